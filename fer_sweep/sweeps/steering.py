"""Steering a sweep under way: more trials, another space, and configurations picked by hand.

A sweep is changed in one transaction, and its agents follow before their next proposals. The embedded search alone can
be steered: a W&B server decides by itself what its sweeps train.
"""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_sweep.config.problems import in_file_order
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.config.sweep_yaml import read_document
from fer_sweep.config.trial import flatten, parse_trial
from fer_sweep.data.store import image_size
from fer_sweep.errors import ConfigError, InputError, NothingToDo, Problem, SweepFileError
from fer_sweep.formatting import counted
from fer_sweep.records import SweepState, TrialRecord, TrialState
from fer_sweep.search.embedded import has_new
from fer_sweep.search.method import check_sampler, in_words, sampler_of, searchable
from fer_sweep.search.sampling import fits
from fer_sweep.shipped import resolve
from fer_sweep.store.caches import ConfigIndex
from fer_sweep.store.queue import Picked
from fer_sweep.store.trials import Ledger, Settings
from fer_sweep.sweeps.data import data_names
from fer_sweep.sweeps.differences import differences, listed, moved
from fer_sweep.sweeps.entries import remember
from fer_sweep.sweeps.next_steps import next_command, raised, reached_limits, resume_command
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.sweeps.opening import checked

_INHERITED = ("name", "description", "entity", "project", "run_cap")
"""Keys of a sweep that stay if a new file does not have them."""


@dataclass(frozen=True)
class Limit:
    """A new limit: a number, or so many more than before."""

    number: int
    is_more: bool = False

    @classmethod
    def read(cls, option: str, text: str) -> "Limit":
        """The limit that an option gives: ``40``, or ``+10``.

        Raises:
            InputError: It is neither.
        """
        number = text.removeprefix("+")
        if not number.isdecimal() or int(number) < 1:
            raise InputError(f"{option} {text}: not a number", hint=f"{option} 40, or {option} +10 for ten more")
        return cls(int(number), text.startswith("+"))

    def __str__(self) -> str:
        return f"{'+' if self.is_more else ''}{self.number}"

    def after(self, before: int) -> int:
        """The limit that follows."""
        return before + self.number if self.is_more else self.number


def resume(sweep: Sweep, *, count: Limit | None = None, budget_epochs: Limit | None = None) -> Sequence[str]:
    """Let a sweep hand out trials: after pause or stop, and with a higher limit also once it has finished.

    Returns:
        A line for each limit that has changed.

    Raises:
        InputError: It is cancelled, a limit would leave no trial to start, or all configurations are trained.
    """
    as_it_is = count is None and budget_epochs is None
    if as_it_is and (sweep.searched_by_server or sweep.state != SweepState.FINISHED):
        if not sweep.searched_by_server:
            sweep.check_not_cancelled()
        sweep.set_state("running")
        return []
    _check_steerable(sweep, "be given more trials")
    is_exhausted = sweep.state == SweepState.FINISHED and not has_new(sweep.database, sweep.id)
    with sweep.ledger(write=True) as ledger:
        settings, started, spent = ledger.settings(), ledger.count(), ledger.reported_epochs()
        if is_exhausted and not ledger.queue() and not ledger.unended():
            raise InputError(
                f"every configuration of sweep {sweep.id} is trained, and none is trained twice",
                hint=f"copy {sweep.folder / 'sweep.yaml'}, widen its ranges, then: fersweep edit FILE {sweep.id}",
            )
        file = settings.file
        cap, budget = file.run_cap, settings.budget_epochs
        if count is not None:
            cap = count.after(started if cap is None else cap)
        if budget_epochs is not None:
            budget = budget_epochs.after(spent if budget is None else budget)
        reached = reached_limits(cap, started, budget, spent)
        if reached:
            given = {"--count": count, "--budget-epochs": budget_epochs}
            options = {option: str(limit) for option, limit in given.items() if limit} | raised(reached)
            what = "is finished" if as_it_is else "would start no trial"
            raise InputError(
                f"sweep {sweep.id} {what}: {' and '.join(reached.values())}",
                hint=f"fersweep {resume_command(sweep, options)}",
            )
        changed = [*moved("run_cap", file.run_cap, cap), *moved("budget_epochs", settings.budget_epochs, budget)]
        new = _with_cap(file, cap)
        check_sampler(new, settings.sampler, max_gap=settings.max_gap)
        changed += _search_by(new, sweep, settings, ledger)
        ledger.change_settings(new, budget_epochs=budget, steered=settings.steered)
        if settings.until_converged and settings.state is SweepState.FINISHED:
            ledger.go_on()
            changed.append("until_converged: true -> false")
        ledger.move_sweep(SweepState.RUNNING, SweepState.FINISHED, SweepState.PAUSED, SweepState.STOPPED)
    _renew(sweep)
    return changed


def edit(
    sweep: Sweep, file: Path, *, constants: Mapping[str, Any], note: Callable[[str], None] = lambda text: None
) -> Sequence[str]:
    """Replace the space and the limits of a sweep by those of a file; its trials stay, and its cap does not fall.

    A finished sweep runs again if the new space has configurations without a trial, and its limits allow one.

    Args:
        sweep: The sweep.
        file: The new sweep file.
        constants: Parameters to fix, by dotted name.
        note: Called with warnings.

    Returns:
        A line for each change.

    Raises:
        SweepFileError: The file is invalid, or changes what must stay; nothing is changed.
        NothingToDo: The file changes nothing.
    """
    _check_steerable(sweep, "be edited")
    old, wanted = sweep.file, checked(file, constants=constants, note=note)
    plain = old.to_plain()
    new = parse_sweep({**{key: plain[key] for key in _INHERITED if key in plain}, **wanted.to_plain()})
    if new.run_cap and old.run_cap:  # the file may be older than a cap that has been raised
        new = _with_cap(new, max(new.run_cap, old.run_cap))
    if problems := [*_forbidden(sweep, new)]:
        raise SweepFileError(str(file), in_file_order(problems, read_document(resolve("sweeps", file)).lines))
    now = sweep.settings()
    new = searchable(new, sweep.id, max_gap=now.max_gap, seed=now.seed, sampler=now.sampler)
    changes = [*differences(old, new)]
    if not changes:
        raise NothingToDo(f"{file} changes nothing in sweep {sweep.id}", hint=f"it is as in {sweep.folder}/sweep.yaml")
    more = has_new(sweep.database, sweep.id, new)
    with sweep.ledger(write=True) as ledger:
        settings, started = ledger.settings(), ledger.count()
        if settings.file != old:
            raise InputError(f"sweep {sweep.id} has just been changed by another command", hint="run this one again")
        changes += _search_by(new, sweep, settings, ledger)
        ledger.change_settings(new, budget_epochs=settings.budget_epochs, steered=started)
        if settings.until_converged and settings.state is SweepState.FINISHED:
            ledger.go_on()
        if more and not reached_limits(new.run_cap, started, settings.budget_epochs, ledger.reported_epochs()):
            ledger.reopen_sweep()
    _renew(sweep)
    return changes


def fitting(sweep: Sweep) -> tuple[int, int]:
    """How many of a sweep's trials are of its present space, and how many trials there are."""
    trials, fit = sweep.trials(), 0
    for trial in trials:
        with contextlib.suppress(ConfigError):  # of a version with other fields or bounds
            fit += fits(sweep.space, Picked(parse_trial(trial.config), trial.parameters))
    return fit, len(trials)


def enqueue(sweep: Sweep, given: Mapping[str, Any]) -> Sequence[str]:
    """Make a configuration the next trial; a finished sweep runs again.

    Args:
        sweep: The sweep.
        given: Values by name. Others are what the sweep fixes, or the defaults.

    Returns:
        Lines that say where the other values come from, and what has changed.

    Raises:
        ConfigError: It cannot be trained.
        InputError: There is a trial of this configuration.
    """
    _check_steerable(sweep, "be given a configuration")
    space = sweep.space.parameters
    flat = flatten(given)
    fixed = {name: source.quantile(0.5) for name, source in space.items() if source.size == 1 and name not in flat}
    config = parse_trial({**fixed, **flat})
    config.check_image_size(*image_size(config.data))
    if (names := sweep.data.names) and config.data not in names:
        hint = "leave it out; for other data, create a new sweep"
        raise InputError(f"sweep {sweep.id} trains on {', '.join(sorted(names))}, not on {config.data}", hint=hint)
    whole = flatten(config.model_dump(mode="json"))
    rest = {name: whole[name] for name in space if name in whole and name not in {**fixed, **flat}}
    lines = [
        f"{title}: {listed(values)}" for title, values in (("from the sweep", fixed), ("defaults", rest)) if values
    ]
    return [*lines, *_enqueue(sweep, Picked(config, {**fixed, **rest, **flat}))]


def extend(sweep: Sweep, trial_id: str, epochs: Limit) -> Sequence[str]:
    """Make the longer training of a trial the next trial: its configuration, from the weights of its best epoch.

    A finished trial's learning rate has fallen to zero. In the new one it rises and falls again, over the new epochs: a
    warm restart (Loshchilov and Hutter 2017).

    Args:
        sweep: The sweep.
        trial_id: The trial.
        epochs: In all, with those of the trial and of the trials that it extends; or so many more.

    Returns:
        Lines that say what has changed.

    Raises:
        InputError: There is no such trial, it has not ended or left no weights, or has that many epochs.
    """
    _check_steerable(sweep, "be given a configuration")
    trial = sweep.trial(trial_id)
    if not trial.state.has_ended:
        hint = f"wait for its end: fersweep status {sweep.id}"
        if trial.state is TrialState.PAUSED:
            hint = f"the search resumes it if it may still win: fersweep {next_command(sweep, sweep.state, ())}"
        raise InputError(f"trial {trial_id} of sweep {sweep.id} is {trial.state}", hint=hint)
    if trial.result is None or not trial.result.best_epoch:
        failed = f"fersweep retry {sweep.id} --trial {trial_id}, or " if trial.state is TrialState.FAILED else ""
        raise InputError(
            f"trial {trial_id} of sweep {sweep.id} ended before its first epoch did and left no weights to start from",
            hint=f"{failed}train another configuration: fersweep enqueue {sweep.id} --set lr=0.0003",
        )
    before = _epochs_behind(sweep, trial)
    more = epochs.after(before) - before
    if more < 1:
        raise InputError(
            f"--epochs {epochs}: trial {trial_id} has trained {counted(before, 'epoch')} already",
            hint=f"more, such as --epochs {2 * before}, or --epochs +{before}",
        )
    changed = {"epochs": more, "weights_from": f"{sweep.id}/{trial_id}"}
    line = f"{counted(more, 'epoch')} after {before}, from the weights of epoch {trial.result.best_epoch}"
    picked = Picked(parse_trial({**trial.config, **changed}), {**trial.parameters, **changed})
    return [line, *_enqueue(sweep, picked)]


def _epochs_behind(sweep: Sweep, trial: TrialRecord) -> int:
    """The epochs of a trial, and of those of this sweep that it extends."""
    origin, _, earlier = str(trial.config.get("weights_from")).rpartition("/")
    before = _epochs_behind(sweep, sweep.trial(earlier)) if origin == sweep.id else 0
    return before + (trial.result.epochs if trial.result else 0)


def _enqueue(sweep: Sweep, picked: Picked) -> Sequence[str]:
    with sweep.ledger(write=True) as ledger:
        for row in ConfigIndex().find(picked.config, ledger):
            hint = "no configuration is trained twice; another seed makes another one: --set seed=1"
            if row["state"] == "failed":
                hint = f"try it again: fersweep retry {sweep.id} --trial {row['number']}"
            raise InputError(f"trial {row['number']} of sweep {sweep.id} has this configuration", hint=hint)
        settings, started, queue = ledger.settings(), ledger.count(), ledger.queue()
        if any(waiting.config == picked.config for waiting in queue):
            hint = f"train it: fersweep agent {sweep.id}"
            raise InputError(f"this configuration is queued already in sweep {sweep.id}", hint=hint)
        file = settings.file
        reached = reached_limits(file.run_cap, started, settings.budget_epochs, ledger.reported_epochs())
        if "--budget-epochs" in reached:
            hint = f"raise it: fersweep {resume_command(sweep, raised(reached))}"
            raise InputError(f"sweep {sweep.id} would not train it: {reached['--budget-epochs']}", hint=hint)
        cap = file.run_cap and max(file.run_cap, started + len(queue) + 1)
        changed = [*moved("run_cap", file.run_cap, cap)]
        budget, steered = settings.budget_epochs, settings.steered or 0
        ledger.change_settings(_with_cap(file, cap), budget_epochs=budget, steered=steered)
        ledger.enqueue(picked)
        ledger.reopen_sweep()
    _renew(sweep)
    return changed


def _check_steerable(sweep: Sweep, what: str) -> None:
    if sweep.searched_by_server:
        file = shlex.quote(str(sweep.folder / "sweep.yaml"))
        raise InputError(
            f"sweep {sweep.id} cannot {what} here: a W&B server proposes its trials",
            hint=f"a sweep that learns from it and can be steered: fersweep create {file} --from {sweep.id}",
        )
    if sweep.entry.confirms is not None:
        origin, _, trial = sweep.entry.confirms.rpartition("/")
        raise InputError(
            f"sweep {sweep.id} cannot {what}: it trains one configuration with further seeds",
            hint=f"more seeds: fersweep confirm {origin} --trial {trial} --seeds 10",
        )
    sweep.check_not_cancelled()


def _forbidden(sweep: Sweep, new: SweepFile) -> Iterator[Problem]:
    """Problems of a file that would make the sweep's trials worth nothing to it."""
    old = sweep.file
    hint = f"for that, a new sweep: fersweep create FILE --from {sweep.id}"
    if new.method != old.method:
        yield Problem(f"a {old.method} search cannot become a {new.method} search", key="method", hint=hint)
    before, after = ([(metric.name, metric.goal) for metric in file.objectives] for file in (old, new))
    if after != before:
        words = [" and ".join(f"{goal} {name}" for name, goal in pairs) or "none" for pairs in (before, after)]
        key = "metrics" if new.metrics else "metric"
        yield Problem(f"the objective cannot change from {words[0]} to {words[1]}", key=key, hint=hint)
    if (old.scheduler and old.scheduler.engine) != (new.scheduler and new.scheduler.engine):
        yield Problem("the scheduler cannot be added or removed", key="scheduler", hint=hint)
    data = sorted(sweep.data.names), sorted(data_names(new, Space.from_sweep(new)))
    if data[0] != data[1]:
        words = [", ".join(names) for names in data]
        hint = f"add --data {words[0]}; {hint}" if len(data[0]) == 1 else hint
        yield Problem(f"the data cannot change from {words[0]} to {words[1]}", key="parameters.data", hint=hint)


def _search_by(new: SweepFile, sweep: Sweep, settings: Settings, ledger: Ledger) -> Sequence[str]:
    """Lines on how the search changes with the file; without freeze-thaw nothing resumes paused trials, so they end."""
    old = settings.file
    lines = [*moved("search", in_words(old, settings), in_words(new, settings))]
    before, after = (sampler_of(file, settings) for file in (old, new))
    if before == "freeze_thaw" != after and (paused := len(ledger.paused())):
        ledger.prune_paused("paused, and the search does not take turns any more", sweep.database.clock())
        lines.append(f"{counted(paused, 'paused trial')} pruned: only freeze-thaw resumes them")
    return lines


def _with_cap(file: SweepFile, cap: int | None) -> SweepFile:
    return file if cap is None else parse_sweep({**file.to_plain(), "run_cap": cap})


def _renew(sweep: Sweep) -> None:
    """Let the opened sweep, and the copy of its file in its folder, follow the change."""
    sweep.settings()
    remember(sweep.entry, sweep.file)
