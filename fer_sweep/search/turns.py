"""Freeze-thaw over a sweep's trials: which one an agent trains next, and for how many epochs."""

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fer_sweep.config.metrics import EPOCH_METRICS
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.config.trial import SharedConfig
from fer_sweep.records import TrialState
from fer_sweep.search.freeze_thaw import Fitted, FreezeThaw
from fer_sweep.search.freeze_thaw.history import Observation
from fer_sweep.search.sampling import Candidates, Proposal
from fer_sweep.store.caches import ConfigIndex, Histories
from fer_sweep.store.trials import Ledger

MOST_TRIALS = 300
"""A decision about more takes over 0.2 s; sweeps with a larger cap are searched by TPE."""
SHORTEST_TURN = 2
"""Epochs."""
SWITCHING_SHARE = 0.05
"""Largest share of the time that goes into pausing and resuming trials."""
LEAST_GAIN = 0.01
"""Once no new trial may start, a turn must be expected to gain so many standard deviations; else the sweep ends."""


def can_take_turns(sweep: SweepFile, *, max_gap: float | None) -> bool:
    """Whether freeze-thaw searches a sweep of method bayes unless another sampler is asked for."""
    is_plain = sweep.method == "bayes" and sweep.early_terminate is None and max_gap is None
    has_curve = len(sweep.objectives) == 1 and sweep.objectives[0].name in EPOCH_METRICS
    return is_plain and has_curve and (sweep.run_cap is None or sweep.run_cap <= MOST_TRIALS)


class Pace:
    """How long epochs and pauses take on this host, which says how long a turn must be."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epoch_s: list[float] = []
        self._switch_s: list[float] = []
        """From the end of a turn until its slot asks for the next one. That is half of what a pause costs: the next
        trial takes about as long again to read its checkpoint."""
        self._reported_at: dict[int, float] = {}
        self._ended_at: dict[str, float] = {}
        self._until: dict[int, int] = {}

    @property
    def turn(self) -> int:
        """Epochs of a turn: SHORTEST_TURN, or more if pauses would take over SWITCHING_SHARE of the time."""
        if not self._epoch_s or not self._switch_s:
            return SHORTEST_TURN
        pause = 2 * statistics.median(self._switch_s)
        return max(SHORTEST_TURN, math.ceil(pause / (SWITCHING_SHARE * statistics.median(self._epoch_s))))

    def begin(self, number: int, epoch: int) -> None:
        """A trial's turn begins after this epoch."""
        self._until[number] = epoch + self.turn
        self._reported_at.pop(number, None)

    def end_of(self, number: int, epochs: int) -> int:
        """The epoch after which a running trial's turn ends, of which so many are done; a guess for other agents'."""
        return max(epochs + 1, self._until.get(number, epochs + self.turn))

    def is_over(self, number: int, epoch: int) -> bool:
        """Whether a trial's turn is over, now that it has finished this epoch."""
        now = self._clock()
        if (before := self._reported_at.get(number)) is not None:
            self._epoch_s.append(now - before)
        self._reported_at[number] = now
        return epoch >= self._until.get(number, 0)

    def pause(self, slot: str) -> None:
        """The trial in a slot is about to pause."""
        self._ended_at[slot] = self._clock()

    def slot_is_free(self, slot: str) -> None:
        """A slot asks for its next trial."""
        if (ended := self._ended_at.pop(slot, None)) is not None:
            self._switch_s.append(self._clock() - ended)


class TurnProposer:
    """The turns of one sweep, as one agent decides them."""

    def __init__(self, sweep: SweepFile, histories: Histories, *, seed: int) -> None:
        self.pace = Pace()
        self._seed = seed
        self._histories = histories
        self._index = ConfigIndex()
        self._parameters: dict[int, Mapping[str, Any]] = {}
        """Of every trial read so far, by number."""
        self._fitted: Fitted | None = None
        self._goal = sweep.objectives[0].goal
        default = SharedConfig.model_fields["epochs"].default
        self._core = FreezeThaw(Space.from_sweep(sweep).parameters, epochs=default, goal=self._goal)

    def catch_up(self, ledger: Ledger) -> None:
        """Read what is new, which a decision would read otherwise."""
        self._histories.update(ledger)
        self._index.catch_up(ledger)

    def propose(self, number: int, ledger: Ledger) -> Proposal | None:
        """A new configuration, whatever is paused; see ``search.sampling``."""
        turn = self.next_turn(ledger, may_resume=lambda trial: False, may_start=True)
        assert not isinstance(turn, int)
        return turn

    def next_turn(
        self,
        ledger: Ledger,
        *,
        may_resume: Callable[[int], bool],
        may_start: bool,
        ending: int | None = None,
        is_over: bool = False,
    ) -> Proposal | int | None:
        """The number of the paused trial to resume, or the configuration to start; None if neither is worth it.

        Args:
            ledger: The sweep's trials.
            may_resume: Whether this host has a paused trial's checkpoint.
            may_start: Whether new trials are allowed.
            ending: A running trial at the end of its turn, which may be given another one.
            is_over: Whether only the best trial is to be trained to its end.
        """
        self.catch_up(ledger)
        observations, paused = [], set()
        for row in ledger.states():
            number, state = row["number"], TrialState(row["state"])
            if number not in self._parameters:
                self._parameters[number] = json.loads(row["parameters"])
            if (state is TrialState.PAUSED and may_resume(number)) or number == ending:
                paused.add(number)
            curve = self._histories.of(number)
            has_ended = state not in (TrialState.RUNNING, TrialState.PREEMPTED)
            observations.append(
                Observation(
                    self._parameters[number],
                    curve,
                    running_until=None if has_ended or number == ending else self.pace.end_of(number, len(curve)),
                    is_paused=number in paused,
                    has_failed=state is TrialState.FAILED,
                )
            )
        if is_over:
            return self._unfinished_best(observations)
        found: Proposal | None = None
        candidates = Candidates(lambda config: self._index.find(config, ledger))

        def accepts(values: Mapping[str, Any]) -> bool:
            nonlocal found
            found = candidates.accept(values)
            return found is not None

        decisions = sum(len(seen.curve) for seen in observations)
        rng = np.random.default_rng([self._seed, len(observations), decisions])
        turn = self._core.propose(observations, rng, fitted=self._fitted, accepts=accepts, may_start=may_start)
        if turn is None:
            candidates.check_exhausted(len(observations))
            return None
        self._fitted = turn.fitted
        if turn.trial is None:
            return found
        if not may_start and turn.gain < LEAST_GAIN:
            return self._unfinished_best(observations)
        return turn.trial

    def _unfinished_best(self, observations: list[Observation]) -> int | None:
        """The best trial if it is paused: no sweep ends before its winner has been trained to the end."""
        sign = 1.0 if self._goal == "maximize" else -1.0

        def reached(trial: int) -> float:
            return max((sign * value for value in observations[trial].curve if math.isfinite(value)), default=-math.inf)

        best = max(range(len(observations)), key=reached)
        return best if observations[best].is_paused else None
