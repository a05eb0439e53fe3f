"""Proposing with Optuna: a study in memory that mirrors the sweep's trials, whichever agents run them.

The study is updated before each proposal. Trial n is sampled by a new sampler seeded with the sweep's seed and n, so a
restarted agent proposes what it would have proposed anyway.
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
from fer_sweep.config.trial import parse_trial_json
from fer_sweep.errors import ConfigError
from fer_sweep.records import TrialState
from fer_sweep.search.axes import axes_of
from fer_sweep.search.samplers import LEARN_FROM_PRUNED, STATEFUL, make_sampler
from fer_sweep.search.sampling import Candidates, Proposal, fits, given_values, unit_draws
from fer_sweep.search.scheduler import load_own_search, quietly
from fer_sweep.store.caches import ConfigIndex, Histories
from fer_sweep.store.engine import Row
from fer_sweep.store.queue import Picked, Prior
from fer_sweep.store.trials import Ledger

SAMPLER_DRAWS = 10
"""Proposals of the sampler that may be taken before its prior is drawn from instead."""
OWN_DRAWS = 200
"""The same for a user's own sampler or space, which has no such prior; then the sweep is exhausted."""
GAP = "train_val_gap"


class StudyProposer:
    """One of Optuna's samplers, or a user's own sampler and space, over the sweep's trials."""

    def __init__(
        self,
        sweep: SweepFile,
        sweep_id: str,
        histories: Histories,
        *,
        sampler: str = "tpe",
        seed: int = 0,
        max_gap: float | None = None,
        steered: int | None = None,
        priors: Sequence[Prior] = (),
    ) -> None:
        self._sweep = sweep
        self._sweep_id = sweep_id
        self._sampler = sampler
        self._seed = seed
        self._max_gap = max_gap
        self._steered = steered or 0
        self._priors = priors
        self._histories = histories
        self._space = Space.from_sweep(sweep)
        parameters = self._space.parameters
        self._axes = axes_of(parameters)
        self._natives: dict[str, BaseDistribution] = {name: axis.native for name, axis in self._axes.items()}
        self._constants = {name: source.quantile(0.5) for name, source in parameters.items() if name not in self._axes}
        self._index = ConfigIndex()
        self._rebuild()

    def _rebuild(self) -> None:
        """Start with an empty study: Optuna cannot undo an ask or a tell."""
        self._own = own = load_own_search(self._sweep, self._sweep_id)
        self._memory = optuna.storages.InMemoryStorage()
        pruner = own.study.pruner if own.study and len(self._sweep.objectives) == 1 else optuna.pruners.NopPruner()
        with quietly():
            self._study = optuna.create_study(
                storage=self._memory,
                directions=[metric.goal for metric in self._sweep.objectives],
                sampler=own.study.sampler if own.study else None,
                pruner=pruner,
            )
        if own.study is not None:
            self._study.add_trials(own.study.get_trials())
        self._study_id = self._memory.get_study_id_from_name(self._study.study_name)
        for prior in self._priors:
            self._learn(prior)
        self._mirror: dict[int, int] = {}
        """Every trial's number in the sweep to its number in the study, which also has draws thrown away."""
        self._unended: set[int] = set()
        self._unfit: set[int] = set()
        """Trials of which the search cannot learn: their configurations are not of this space."""
        self._failed: dict[int, int] = {}
        """The attempt with which each failed trial failed, by number."""
        self._latest: tuple[int, str | None] | None = None
        """Number and memo of the last proposal, until it is known whether its transaction was committed."""
        self._is_stopped = False

    @property
    def has_pruner(self) -> bool:
        """Whether a user's study brought a pruner."""
        return not isinstance(self._study.pruner, optuna.pruners.NopPruner)

    def propose(self, number: int, ledger: Ledger) -> Proposal | None:
        """See ``search.sampling``; None also when the user's terminator or sampler ends the search."""
        self.catch_up(ledger)
        is_exhausted = getattr(self._study.sampler, "is_exhausted", None)  # GridSampler has it
        if self._is_stopped or self._own.is_over(self._study) or (is_exhausted and is_exhausted(self._study)):
            return None
        found = self.draw(number, Candidates(lambda config: self._index.find(config, ledger)))
        self._latest = (number, found.memo) if found else None
        return found

    def should_prune(self, number: int, ledger: Ledger) -> bool:
        """Whether the pruner of the user's study would stop this trial now; for a single objective."""
        self.catch_up(ledger)
        return self._handle(self._mirror[number]).should_prune()

    def draw(self, number: int, candidates: Candidates) -> Proposal | None:
        """Draw trial ``number``; None if every configuration is taken."""
        if self._own.study is None:
            seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
            self._study.sampler = make_sampler(self._sampler, self._axes, seed)
        has_own = self._own.study is not None or self._own.search_space is not None
        # Trials that a user's study has enqueued come before what its sampler proposes.
        waiting = len(self._study.get_trials(deepcopy=False, states=(OptunaState.WAITING,)))
        for _ in range(waiting + (OWN_DRAWS if has_own else SAMPLER_DRAWS)):
            trial = self._own.ask(self._study, self._natives)
            # What the sweep file fixes, `--set` included, wins over the user's function.
            if found := candidates.accept({**self._own.draw(trial), **self._values(trial.params)}, self._memo(trial)):
                self._remember(number, trial.number)
                return found
            self._tell(trial.number, OptunaState.FAIL, None)
        if not has_own:
            parameters = {name: axis.source for name, axis in self._axes.items()}
            for points in unit_draws(parameters, np.random.default_rng([self._seed, number])):
                params = {name: axis.coordinate(points[name]) for name, axis in self._axes.items()}
                if found := candidates.accept(self._values(params), json.dumps({"params": params})):
                    self._remember(number, self._add(params, self._natives))
                    return found
        candidates.check_exhausted(number)
        return None

    def _values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {**{name: axis.value(params[name]) for name, axis in self._axes.items()}, **self._constants}

    def _memo(self, trial: optuna.Trial) -> str:
        kept: dict[str, Any] = {"params": trial.params}
        if self._own.search_space is not None:
            kept["distributions"] = {name: distribution_to_json(d) for name, d in trial.distributions.items()}
        if self._own.study is not None or self._sampler in STATEFUL:
            # Some samplers keep their state there, such as CMA-ES and the grid.
            kept["attributes"] = self._study.get_trials(deepcopy=False)[trial.number].system_attrs
        return json.dumps(kept)

    def _remember(self, number: int, in_study: int) -> None:
        self._mirror[number] = in_study
        self._unended.add(number)

    def catch_up(self, ledger: Ledger) -> None:
        """Update the study with what has changed since the last call."""
        self._histories.update(ledger)
        self._index.catch_up(ledger)
        if self._has_diverged(ledger):
            self._rebuild()
        for row in ledger.since(len(self._mirror), self._unended):
            number = row["number"]
            if number not in self._mirror:
                self._remember(number, self._add_row(row))
            if TrialState(row["state"]).has_ended:
                self._end(row)
        if self.has_pruner:
            for number in self._unended:
                self._report(number)

    def _add_row(self, row: Row) -> int:
        memo = json.loads(row["memo"]) if row["memo"] else {}
        if "distributions" in memo:
            natives = {name: json_to_distribution(text) for name, text in memo["distributions"].items()}
            return self._add(memo["params"], natives, memo.get("attributes"))
        if memo and row["number"] >= self._steered:
            return self._add(memo["params"], self._natives, memo.get("attributes"))
        try:
            picked = Picked(parse_trial_json(row["config"]), json.loads(row["parameters"]))
            params = self._located(picked)
        except ConfigError:
            params = None  # of a version with other fields or bounds
        if params is None:
            self._unfit.add(row["number"])
        return self._add(params or {}, self._natives if params else {})

    def _located(self, picked: Picked) -> dict[str, Any] | None:
        """The coordinates of a configuration that this space did not propose; None if it does not fit the space."""
        if not fits(self._space, picked):
            return None
        given = given_values(picked)
        return {name: axis.locate(given[name]) for name, axis in self._axes.items()}

    def _learn(self, prior: Prior) -> None:
        params = self._located(prior.picked) if prior.is_alike else None
        if params is None or len(prior.objectives) != len(self._sweep.objectives):
            return
        in_study = self._add(params, self._natives)
        if self._max_gap is not None:
            violation = 1.0 if prior.gap is None else prior.gap - self._max_gap
            self._handle(in_study).set_constraint(GAP, violation)
        self._tell(in_study, OptunaState.COMPLETE, prior.objectives)

    def _has_diverged(self, ledger: Ledger) -> bool:
        """Whether a failed trial was requeued, or the transaction of the last proposal rolled back.

        Then another agent's trial may have that number.
        """
        latest, self._latest = self._latest, None
        if latest and latest not in [(row["number"], row["memo"]) for row in ledger.numbered([latest[0]])]:
            return True
        if not self._failed:
            return False
        failed = ledger.numbered(self._failed, "number, attempt, state")
        return self._failed != {row["number"]: row["attempt"] for row in failed if TrialState(row["state"]).has_ended}

    def _end(self, row: Row) -> None:
        number = row["number"]
        self._unended.discard(number)
        if row["state"] == TrialState.FAILED:
            self._failed[number] = row["attempt"]
        values: list[float | None] = json.loads(row["objectives"])
        known = [value for value in values if value is not None]
        if number in self._unfit:
            self._tell(self._mirror[number], OptunaState.FAIL, None)
            return
        self._report(number)
        if self._max_gap is not None:
            self._handle(self._mirror[number]).set_constraint(GAP, self._violation(row, self._max_gap))
        if row["state"] == TrialState.PRUNED and len(values) == 1 and self._sampler in LEARN_FROM_PRUNED:
            self._tell(self._mirror[number], OptunaState.PRUNED, None)
        elif known and len(known) == len(values):
            self._tell(self._mirror[number], OptunaState.COMPLETE, known)
        else:
            self._tell(self._mirror[number], OptunaState.FAIL, None)

    @staticmethod
    def _violation(row: Row, max_gap: float) -> float:
        source = json.loads(row["result"] or row["metrics"])
        gap = source.get(GAP) if source.get("best_epoch", 1) else None
        # Nothing is known of a trial that failed or diverged early: it counts as far beyond the gap.
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

    def _tell(self, in_study: int, state: OptunaState, values: Sequence[float] | None) -> None:
        try:
            self._study.tell(in_study, values, state=state)
        except RuntimeError as error:
            # A sampler, such as GridSampler, ends the study, which Optuna allows only within optimize().
            if "Study.stop" not in str(error):
                raise
            self._is_stopped = True

    def _handle(self, in_study: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._id(in_study))

    def _id(self, in_study: int) -> int:
        return self._memory.get_trial_id_from_study_id_trial_number(self._study_id, in_study)


def check_own_search(sweep: SweepFile, sweep_id: str) -> None:
    """Run a user's study and space once, before a sweep is created from them.

    Raises:
        InputError: The file cannot be run, or a function is missing, fails or returns the wrong type.
        ConfigError: The training function refuses what they give.
    """
    StudyProposer(sweep, sweep_id, Histories(None)).draw(0, Candidates())
