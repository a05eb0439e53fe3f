"""What reports show of sweeps: records, axes, curves, names, how to create them again."""

import math
import re
import shlex
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import yaml

from fer_sweep.config.parameters import Categorical, Constant, Distribution, LogNormal, LogUniform
from fer_sweep.config.space import Space
from fer_sweep.config.values import canonical
from fer_sweep.formatting import plain
from fer_sweep.openings import Opening
from fer_sweep.records import TrialRecord
from fer_sweep.selection import Candidate, Selection
from fer_sweep.sweeps import Sweep
from fer_sweep.sweeps.choosing import Choice, as_candidates, choose, openings_about
from fer_sweep.sweeps.expectation import expectation

CURVES_SHOWN = 8
"""Trials whose curves are drawn; more colours cannot be told apart."""
_LONGEST_TITLE = 128
"""Characters; W&B's limit for a report's title."""
_TAIL = 1e-9
"""Probability that an unbounded distribution leaves outside an axis on each side."""

MEASURED = (
    "train_acc is measured as val_acc is: in evaluation mode, without augmentation, on a fixed sample of training "
    "images as large as the validation split. The gap is train_acc minus val_acc at the best epoch."
)

Curve = Sequence[Mapping[str, float]]
"""A trial's metrics by epoch, earliest first."""


@dataclass(frozen=True)
class Axis:
    """A swept parameter."""

    name: str
    """Dotted where it is nested."""
    log: bool
    """Whether it is drawn on a logarithmic scale."""
    choices: tuple[Any, ...] | None = None
    """The values of a categorical parameter."""
    bounds: tuple[float, float] | None = None
    """The range that is searched, if known."""


@dataclass(frozen=True)
class ReportedSweep:
    """One sweep, as a report shows it."""

    id: str
    name: str
    """From its file; untrusted, may be empty."""
    description: str
    """Likewise."""
    models: tuple[str, ...]
    """The architectures it trains."""
    method: str
    """In its file; for an embedded search of method bayes or custom also the algorithm."""
    axes: tuple[Axis, ...]
    """Every parameter with more than one value."""
    file: str
    """The sweep file, as YAML."""
    options: str
    """Of the command that creates it again from that file."""
    records: tuple[TrialRecord, ...]
    expectation: str = field(default="", kw_only=True)
    """What another hour of training is expected to gain; empty for a sweep that has just begun."""

    @property
    def label(self) -> str:
        """Architectures, name and id on one line."""
        models, name = ", ".join(self.models), plain(self.name, 60)
        return f"{models}: {name} ({self.id})" if name not in ("", models) else f"{models} ({self.id})"

    @property
    def file_name(self) -> str:
        """The name of its file in the command that creates it again."""
        return f"sweep-{self.id}.yaml"

    @property
    def create(self) -> str:
        """The command that creates it again."""
        return f"fersweep create {shlex.quote(self.file_name)} {self.options}"


@dataclass(frozen=True)
class ShownSweep(ReportedSweep):
    """A sweep as the views on a W&B server show it; ``id`` is its id there."""

    entity: str
    project: str
    url: str
    """Its page."""
    runs: int
    """On the server, when the views were saved."""
    winner: str | None
    """The run that ``fersweep best`` picks, if any."""
    argument: str
    """Its name for other commands."""


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    sweeps: tuple[ReportedSweep, ...]
    """At least one."""
    choice: Choice
    """What ``fersweep best`` says of these sweeps."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Of the best trials and of each architecture's best, by SWEEP/TRIAL."""
    openings: tuple[Opening, ...] = ()
    """Openings of the test splits of these sweeps."""
    made: float = 0.0
    """Unix time, seconds."""

    @property
    def selection(self) -> Selection:
        """The choice among all trials."""
        return self.choice.overall

    @cached_property
    def trials(self) -> list[tuple[ReportedSweep, TrialRecord]]:
        """Every trial with its sweep, in the order of the sweeps."""
        return [(sweep, record) for sweep in self.sweeps for record in sweep.records]

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The position of every trial in ``trials``, by SWEEP/TRIAL."""
        return {f"{sweep.id}/{record.trial_id}": place for place, (sweep, record) in enumerate(self.trials)}

    @property
    def models(self) -> tuple[str, ...]:
        """The architectures of all sweeps and trials."""
        return tuple(dict.fromkeys([*(m for sweep in self.sweeps for m in sweep.models), *self.choice.by_model]))

    @cached_property
    def names(self) -> Mapping[str, str]:
        """What each sweep is called, by its id: its name, or its architectures; with the id where several share it."""
        names = {sweep.id: plain(sweep.name, 30) or plain(", ".join(sweep.models), 30) for sweep in self.sweeps}
        shared = Counter(names.values())
        return {id: name if shared[name] == 1 else f"{name} ({plain(id, 20)})" for id, name in names.items()}

    def label(self, name: str) -> str:
        """A trial, by SWEEP/TRIAL: with the name of its sweep if there are several."""
        sweep, record = self.trials[self.places[name]]
        trial = plain(record.trial_id, 30)
        return f"{self.names[sweep.id]}/{trial}" if len(self.sweeps) > 1 else f"trial {trial}"

    def named(self, text: str) -> str:
        """A sentence in which trials are called as ``label`` calls them, not by the ids of their sweeps."""
        ids = "|".join(map(re.escape, self.names))

        def called(found: re.Match[str]) -> str:
            return f"{found[1]}{self.names[found[2]]}/" if len(self.names) > 1 else found[1] or "trial "

        return re.sub(rf"((?:[Tt]rial )?)(?<![\w/])({ids})/(?=\w)", called, text)


def gather(opened: Sequence[Sweep], only: Collection[str] = ()) -> Report:
    """Read everything that a report of these sweeps shows.

    Args:
        opened: At least one.
        only: The trials to show, as SWEEP/TRIAL; empty for all.

    Raises:
        StorageError: The database or the record of opened test splits cannot be read.
        ServerError: A W&B server does not answer.
    """
    sweeps = tuple(reported(sweep) for sweep in opened)
    if only:
        sweeps = tuple(
            replace(sweep, records=tuple(r for r in sweep.records if f"{sweep.id}/{r.trial_id}" in only))
            for sweep in sweeps
        )
    candidates = [candidate for sweep in sweeps for candidate in as_candidates(sweep.id, sweep.records)]
    choice = choose(opened, candidates)
    by_id = {sweep.id: sweep for sweep in opened}
    drawn = {c.name: c for c in (*best_trials(choice.overall), *best_of_each_model(choice))}
    curves = {name: by_id[c.sweep].reports(c.record.trial_id) for name, c in drawn.items()}
    curves = {name: curve for name, curve in curves.items() if curve}
    return Report(sweeps, choice, curves, openings_about(candidates), time.time())


def reported(sweep: Sweep) -> ReportedSweep:
    """Read what a report shows of one sweep."""
    records = tuple(sweep.trials())
    options = ["--search", sweep.entry.search]
    if sweep.entry.max_gap is not None:
        options += ["--max-gap", f"{sweep.entry.max_gap:g}"]
    if sweep.seed:
        options += ["--seed", str(sweep.seed)]
    if (sampler := sweep.settings().sampler) is not None:
        options += ["--sampler", sampler]
    method, words = str(sweep.file.method), sweep.searched_by
    is_named = sweep.searched_by_server or words.startswith(method)
    return ReportedSweep(
        id=sweep.id,
        name=sweep.entry.name or "",
        description=sweep.file.description or "",
        models=models_of(sweep.space, records),
        method=method if is_named else f"{method} ({words})",
        axes=axes_of(sweep.space, records),
        file=yaml.safe_dump(sweep.file.to_plain(), sort_keys=False),
        options=shlex.join(options),
        records=records,
        expectation=expectation(sweep, records) or "",
    )


def title(sweeps: Sequence[ReportedSweep]) -> str:
    """The title of a report of these sweeps, within W&B's limit."""
    models = ", ".join(dict.fromkeys(model for sweep in sweeps for model in sweep.models))
    if len(sweeps) > 1:
        return plain(f"{len(sweeps)} sweeps side by side: {models}", _LONGEST_TITLE)
    models, id = plain(models, 40), sweeps[0].id
    name = plain(sweeps[0].name, max(1, _LONGEST_TITLE - len(f"{models} sweep  ({id})")))
    shown = f"{name} ({id})" if name not in ("", models) else id
    return plain(f"{models} sweep {shown}", _LONGEST_TITLE)


def best_trials(selection: Selection) -> list[Candidate]:
    """The CURVES_SHOWN most accurate trials, the winner among them."""
    trained = [c for c in selection.ranking if c.result.best_epoch > 0]
    best = trained[:CURVES_SHOWN]
    if selection.winner is not None and selection.winner not in best:
        best[-1] = selection.winner
    return best


def best_of_each_model(choice: Choice) -> list[Candidate]:
    """The winner of each architecture, most accurate first."""
    found = [selection.winner for selection in choice.by_model.values() if selection.winner is not None]
    return sorted(found, key=lambda c: -c.result.best_val_acc)[:CURVES_SHOWN]


def models_of(space: Space, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    """The architectures a sweep trains."""
    match space.parameters.get("model"):
        case Constant(value=value):
            return (plain(str(value), 40),)
        case Categorical() as several:
            return tuple(plain(str(value), 40) for value in several.possible)
    return tuple(sorted({str(record.config["model"]) for record in records})) or ("any model",)


def axes_of(space: Space, records: Sequence[TrialRecord]) -> tuple[Axis, ...]:
    """Every parameter of a sweep that has more than one value."""
    if space.parameters:
        return tuple(_axis(name, source) for name, source in space.parameters.items() if source.size != 1)
    # A search space in code is known only from its trials.
    return tuple(Axis(name, log=False) for name in dict.fromkeys(name for r in records for name in r.parameters))


def _axis(name: str, source: Distribution) -> Axis:
    if isinstance(source, Categorical):
        return Axis(name, log=False, choices=source.possible)
    low, high = float(source.quantile(_TAIL)), float(source.quantile(1 - _TAIL))
    is_log = isinstance(source, LogUniform | LogNormal) and low > 0
    return Axis(name, is_log, bounds=(low, high) if math.isfinite(low) and low < high < math.inf else None)


def common_axes(sweeps: Sequence[ReportedSweep]) -> tuple[Axis, ...]:
    """The axes that all sweeps have, after one for the architecture if there are several."""
    models = tuple(dict.fromkeys(model for sweep in sweeps for model in sweep.models))
    first, *others = [{axis.name: axis for axis in sweep.axes} for sweep in sweeps]
    common = [
        _merged([axis, *(axes[name] for axes in others)])
        for name, axis in first.items()
        if name != "model" and all(name in axes for axes in others)
    ]
    return (*([Axis("model", log=False, choices=models)] if len(models) > 1 else []), *common)


def _merged(same: Sequence[Axis]) -> Axis:
    listed = [axis.choices for axis in same if axis.choices is not None]
    choices = tuple({canonical(value): value for values in listed for value in values}.values())
    known = [axis.bounds for axis in same if axis.bounds is not None]
    bounds = (min(low for low, _ in known), max(high for _, high in known)) if len(known) == len(same) else None
    return Axis(same[0].name, all(axis.log for axis in same), choices if len(listed) == len(same) else None, bounds)
