"""Proposing with Optuna: a study in memory that mirrors the sweep's trials, whichever agent runs them.

The mirror is brought up to date before each proposal. Trial n is sampled by a fresh sampler seeded with the sweep's
seed and n, so an agent that was restarted proposes what it would have proposed anyway.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import TrialState as OptunaState

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.records import TrialState
from fer_sweep.search.axes import Tpe, axes_of
from fer_sweep.search.sampling import Candidates, Proposal, unit_draws
from fer_sweep.search.scheduler import OwnSearch, draw_own, load_own_search, quietly, run_own
from fer_sweep.store.config_index import ConfigIndex
from fer_sweep.store.database import Row
from fer_sweep.store.trials import Histories, Ledger

SAMPLER_DRAWS = 10
"""Proposals of the sampler that may turn out taken before its prior is drawn from instead."""
OWN_DRAWS = 200
"""The same for a user's own sampler or space, which nothing may stand in for; then the sweep is exhausted."""
GAP = "train_val_gap"
_STOPPED = "Study.stop"
"""Part of what Optuna raises when a sampler, such as GridSampler, ends the study outside of optimize()."""


class StudyProposer:
    """TPE, or a user's own sampler and space, over the sweep's trials."""

    def __init__(
        self, sweep: SweepFile, space: Space, *, sweep_id: str, seed: int, max_gap: float | None, histories: Histories
    ) -> None:
        self._sweep = sweep
        self._sweep_id = sweep_id
        self._seed = seed
        self._max_gap = max_gap
        self._histories = histories
        self._axes = axes_of(space.parameters)
        self._constants = {
            name: source.quantile(0.5) for name, source in space.parameters.items() if name not in self._axes
        }
        self._index = ConfigIndex()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._own = load_own_search(self._sweep, self._sweep_id)
        self._memory = optuna.storages.InMemoryStorage()
        self._study = _study(self._sweep, self._own, self._memory)
        self._study_id = self._memory.get_study_id_from_name(self._study.study_name)
        self._mirror: dict[int, int] = {}
        """Number of every trial of the sweep to its number in the study; the study also has draws thrown away."""
        self._unended: set[int] = set()
        self._failed: dict[int, int] = {}
        """Number of every trial that has failed, and how often it had been handed out by then."""
        self._latest: tuple[int, str | None] | None = None
        """Number and memo of the last proposal, until it is seen that its transaction was not undone."""
        self._is_stopped = False

    @property
    def has_pruner(self) -> bool:
        """Whether a user's study brought a pruner of its own."""
        return not isinstance(self._study.pruner, optuna.pruners.NopPruner)

    def propose(self, number: int, ledger: Ledger) -> Proposal | None:
        """See ``search.sampling``; None also when the user's terminator or sampler ends the search."""
        self.catch_up(ledger)
        if self._is_over():
            return None
        candidates = Candidates(lambda config: self._index.find(config, ledger))
        found = self._draw(number, candidates)
        if found is None:
            candidates.check_exhausted(number)
            return None
        self._latest = (number, found.memo)
        return found

    def check(self) -> None:
        """Draw from a user's file once, so that what is wrong with it shows before the sweep is made.

        Raises:
            InputError: The file's functions fail.
            ConfigError: The training function refuses what they give.
        """
        candidates = Candidates()
        if self._draw(0, candidates) is None:
            candidates.check_exhausted(0)

    def should_prune(self, number: int, ledger: Ledger) -> bool:
        """Whether the pruner of the user's study would stop this trial now; for a single objective."""
        self.catch_up(ledger)
        return self._handle(self._mirror[number]).should_prune()

    def _is_over(self) -> bool:
        scheduler, terminator = self._sweep.scheduler, self._own.terminator
        if scheduler is not None and terminator is not None:
            return bool(run_own(scheduler, f"the terminator of {scheduler.optimizer}", terminator, self._study))
        is_exhausted = getattr(self._study.sampler, "is_exhausted", None)  # GridSampler has it
        return self._is_stopped or (is_exhausted is not None and bool(is_exhausted(self._study)))

    def _draw(self, number: int, candidates: Candidates) -> Proposal | None:
        natives = {name: axis.native for name, axis in self._axes.items()}
        if self._own.study is None:
            seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
            self._study.sampler = Tpe(self._axes, seed)
        has_own = self._own.study is not None or self._own.search_space is not None
        # Trials that a user's study brought along to be tried first come before what its sampler proposes.
        waiting = len(self._study.get_trials(deepcopy=False, states=(OptunaState.WAITING,)))
        for _ in range(waiting + (OWN_DRAWS if has_own else SAMPLER_DRAWS)):
            trial = self._ask(natives)
            if found := candidates.accept(self._values(trial), self._memo(trial)):
                self._remember(number, trial.number)
                return found
            self._tell(trial.number, OptunaState.FAIL, None)
        if has_own:
            return None
        parameters = {name: axis.source for name, axis in self._axes.items()}
        for points in unit_draws(parameters, np.random.default_rng([self._seed, number])):
            params = {name: axis.coordinate(points[name]) for name, axis in self._axes.items()}
            swept = {name: axis.value(params[name]) for name, axis in self._axes.items()}
            if found := candidates.accept({**swept, **self._constants}, json.dumps({"params": params})):
                self._remember(number, self._add(params, natives))
                return found
        return None

    def _ask(self, natives: dict[str, BaseDistribution]) -> optuna.Trial:
        scheduler = self._sweep.scheduler
        if scheduler is None or self._own.study is None:
            return self._study.ask(natives)
        asked: optuna.Trial = run_own(scheduler, f"the sampler of {scheduler.optimizer}", self._study.ask, natives)
        return asked

    def _remember(self, number: int, in_study: int) -> None:
        self._mirror[number] = in_study
        self._unended.add(number)

    def _values(self, trial: optuna.Trial) -> dict[str, Any]:
        swept = {name: axis.value(trial.params[name]) for name, axis in self._axes.items()}
        own: Mapping[str, Any] = {}
        if self._own.search_space is not None and self._sweep.scheduler is not None:
            own = draw_own(self._sweep.scheduler, self._own.search_space, trial)
        # What the sweep file fixes, `--set` among it, wins over the user's function.
        return {**own, **swept, **self._constants}

    def _memo(self, trial: optuna.Trial) -> str:
        kept: dict[str, Any] = {"params": trial.params}
        if self._own.search_space is not None:
            kept["distributions"] = {name: distribution_to_json(d) for name, d in trial.distributions.items()}
        if self._own.study is not None:
            # Some samplers keep their state there, CMA-ES and the grid for two.
            kept["attributes"] = self._frozen(trial.number).system_attrs
        return json.dumps(kept)

    def catch_up(self, ledger: Ledger) -> None:
        """Take in what has become of the trials since the last time."""
        self._histories.update(ledger)
        self._index.catch_up(ledger)
        if self._failed and ledger.attempts(self._failed) != self._failed:
            self._begin_anew()  # one is tried again after all, and a study takes back nothing that it was told
        self._forget_undone(ledger)
        for row in ledger.since(len(self._mirror), self._unended):
            number = row["number"]
            if number not in self._mirror:
                memo = json.loads(row["memo"])
                natives: Mapping[str, BaseDistribution] = {name: axis.native for name, axis in self._axes.items()}
                if "distributions" in memo:
                    natives = {name: json_to_distribution(text) for name, text in memo["distributions"].items()}
                self._remember(number, self._add(memo["params"], natives, memo.get("attributes", {})))
            if TrialState(row["state"]).has_ended:
                self._end(row)
        if self.has_pruner:
            for number in self._unended:
                self._report(number)

    def _forget_undone(self, ledger: Ledger) -> None:
        # A proposal whose transaction was undone, by a full disk say, is in the study but not in the sweep, where
        # another agent's trial may have taken its number.
        if self._latest is None:
            return
        (number, memo), self._latest = self._latest, None
        if memo not in [row["memo"] for row in ledger.since(number, ()) if row["number"] == number]:
            self._tell(self._mirror.pop(number), OptunaState.FAIL, None)
            self._unended.discard(number)

    def _end(self, row: Row) -> None:
        number = row["number"]
        self._unended.discard(number)
        if row["state"] == TrialState.FAILED:
            self._failed[number] = row["attempt"]
        values: list[float | None] = json.loads(row["objectives"])
        known = [value for value in values if value is not None]
        self._report(number)
        if self._max_gap is not None:
            self._handle(self._mirror[number]).set_constraint(GAP, self._violation(row, self._max_gap))
        pruned = row["state"] == TrialState.PRUNED and len(values) == 1
        if pruned:
            self._tell(self._mirror[number], OptunaState.PRUNED, None)
        elif known and len(known) == len(values):
            self._tell(self._mirror[number], OptunaState.COMPLETE, known)
        else:
            self._tell(self._mirror[number], OptunaState.FAIL, None)

    @staticmethod
    def _violation(row: Row, max_gap: float) -> float:
        source = json.loads(row["result"] or row["metrics"])
        gap = source.get(GAP) if source.get("best_epoch", 1) else None
        # Nothing is known of a trial that failed or diverged early: as infeasible as can be.
        return float(gap) - max_gap if gap is not None and np.isfinite(gap) else 1.0

    def _report(self, number: int) -> None:
        if len(self._sweep.objectives) > 1:
            return  # Optuna has no intermediate values for several objectives
        trial_id = self._id(self._mirror[number])
        for step, value in enumerate(self._histories.of(number), start=1):
            self._memory.set_trial_intermediate_value(trial_id, step, value)

    def _add(
        self,
        params: Mapping[str, Any],
        natives: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any] | None = None,
    ) -> int:
        number = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(
            optuna.trial.create_trial(
                state=OptunaState.RUNNING,
                params=dict(params),
                distributions=dict(natives),
                system_attrs=dict(attributes or {}),
            )
        )
        return number

    def _tell(self, number: int, state: OptunaState, values: Sequence[float] | None) -> None:
        try:
            self._study.tell(number, values, state=state)
        except RuntimeError as error:
            if _STOPPED not in str(error):
                raise
            self._is_stopped = True

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _handle(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._id(number))

    def _id(self, number: int) -> int:
        return self._memory.get_trial_id_from_study_id_trial_number(self._study_id, number)


def check_own_search(sweep: SweepFile, sweep_id: str) -> None:
    """Run a user's study and space once, before a sweep is made of them.

    Raises:
        InputError: The file cannot be run, or a function is missing, fails or gives the wrong thing.
        ConfigError: The training function refuses what they give.
    """
    space = Space.from_sweep(sweep)
    StudyProposer(sweep, space, sweep_id=sweep_id, seed=0, max_gap=None, histories=Histories(None)).check()


def _study(sweep: SweepFile, own: OwnSearch, memory: optuna.storages.InMemoryStorage) -> optuna.Study:
    with quietly():
        study = optuna.create_study(
            storage=memory,
            directions=[metric.goal for metric in sweep.objectives],
            sampler=own.study.sampler if own.study else None,
            pruner=own.study.pruner if own.study and len(sweep.objectives) == 1 else optuna.pruners.NopPruner(),
        )
    if own.study is not None:
        study.add_trials(own.study.get_trials())
    return study
