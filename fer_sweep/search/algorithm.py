"""The algorithm of one sweep in an agent: what its settings have it propose, prune and count as enough."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.hyperband import should_stop
from fer_sweep.search.method import sampler_of, stopping_rule
from fer_sweep.search.objective import imputed_value, objective_value
from fer_sweep.search.sampling import GridProposer, RandomProposer
from fer_sweep.search.turns import TurnProposer
from fer_sweep.search.worth import Worth
from fer_sweep.store.caches import Histories
from fer_sweep.store.trials import Ledger, Settings

if TYPE_CHECKING:
    from fer_sweep.search.study import StudyProposer


class Algorithm:
    """How an agent searches a sweep; once the settings change, another one takes its place.

    Args:
        sweep_id: Of the sweep.
        settings: What to search by.
        ledger: The sweep's trials so far.
        clock: Seconds, for the pace of turns.
        sweep: Propose from this file in place of the sweep's own.

    Raises:
        InputError: The user's own study or space failed.
    """

    def __init__(
        self,
        sweep_id: str,
        settings: Settings,
        ledger: Ledger,
        *,
        clock: Callable[[], float],
        sweep: SweepFile | None = None,
    ) -> None:
        self.settings = settings
        self._sweep = sweep or settings.file
        self.objectives = self._sweep.objectives
        self._histories = Histories(self.objectives[0].name if self.objectives else None)
        self._stopping_rule = stopping_rule(self._sweep)
        sampler = sampler_of(self._sweep, settings)
        self._worth: Worth | None = None
        if settings.until_converged:
            takes_turns = sampler == "freeze_thaw"
            self._worth = Worth(self._sweep, self._histories, seed=settings.seed, takes_turns=takes_turns)
        self.turns: TurnProposer | None = None
        """The proposer, if trials are trained in turns."""
        self._study: StudyProposer | None = None
        self.proposer: StudyProposer | GridProposer | RandomProposer | TurnProposer
        if sampler == "freeze_thaw":
            self.turns = self.proposer = TurnProposer(
                self._sweep,
                self._histories,
                seed=settings.seed,
                clock=clock,
                max_gap=settings.max_gap,
                priors=ledger.priors(),
            )
        elif sampler in ("grid", "random"):
            space = Space.from_sweep(self._sweep)
            self.proposer = GridProposer(space) if sampler == "grid" else RandomProposer(space, settings.seed)
        else:
            from fer_sweep.search import study  # only here: optuna takes half a second to import

            self._study = self.proposer = study.StudyProposer(
                self._sweep,
                sweep_id,
                self._histories,
                sampler=sampler,
                seed=settings.seed,
                max_gap=settings.max_gap,
                steered=ledger.count() if sweep else settings.steered,
                priors=ledger.priors(),
            )

    def look(self, ledger: Ledger) -> None:
        """Find out whether going on is worth it, if the sweep finishes by that; not in a writing transaction."""
        if self._worth is not None:
            self._histories.update(ledger)
            self._worth.apply(ledger)

    @property
    def is_converged(self) -> bool:
        """Whether the sweep finishes since going on was not worth it at the last look."""
        return self._worth is not None and self._worth.is_over

    def budget_is_spent(self, ledger: Ledger) -> bool:
        """Whether the trials have had all epochs that the sweep may train."""
        budget = self.settings.budget_epochs
        return budget is not None and ledger.reported_epochs() >= budget

    def is_at_cap(self, ledger: Ledger) -> bool:
        """Whether the sweep has as many trials as it may."""
        return self._sweep.run_cap is not None and ledger.count() >= self._sweep.run_cap

    def should_prune(self, ledger: Ledger, number: int) -> bool:
        """Whether a running trial should be stopped early for good; not in a writing transaction."""
        if self._study is not None and self._study.has_pruner:
            return self._study.should_prune(number, ledger)
        if self._stopping_rule is None or not self.objectives:
            return False
        self._histories.update(ledger)
        return should_stop(
            self._stopping_rule, self.objectives[0].goal, self._histories.of(number), self._histories.all()
        )

    def values_of(self, ledger: Ledger, number: int, outcome: TrialOutcome) -> list[float | None]:
        """What a trial with this outcome is worth in each objective; see ``search.objective``."""
        reports = ledger.reports_of(number)
        values: list[float | None] = []
        for index, metric in enumerate(self.objectives):
            value = objective_value(metric, reports, outcome.result)
            if outcome.state is TrialState.FAILED or (value is None and outcome.state is TrialState.COMPLETE):
                others = [worths[index] for worths in ledger.objectives()]
                value = imputed_value(metric, reports, [other for other in others if other is not None])
            values.append(value)
        return values
