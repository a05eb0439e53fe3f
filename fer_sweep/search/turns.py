"""Freeze-thaw over a sweep's trials: which one an agent trains next, and for how many epochs."""

import json
import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.config.trial import SharedConfig
from fer_sweep.records import TrialState
from fer_sweep.search.freeze_thaw import Fitted, FreezeThaw
from fer_sweep.search.freeze_thaw.history import Observation
from fer_sweep.search.outputs import Curves, earlier_observations, outputs_of
from fer_sweep.search.sampling import Candidates, Proposal
from fer_sweep.store.caches import ConfigIndex, Histories
from fer_sweep.store.engine import Row
from fer_sweep.store.queue import Prior
from fer_sweep.store.trials import Ledger

MOST_TRIALS = 300
"""A decision about more takes over 0.2 s; sweeps with a larger cap are searched by TPE."""
SHORTEST_TURN = 2
"""Epochs."""
SWITCHING_SHARE = 0.05
"""Largest share of the time that goes into pausing and resuming trials."""
KEPT_TIMES = 100
"""The pace is the median of so many times, the latest ones."""
LEAST_GAIN = 0.01
"""Once no new trial may start, a turn must be expected to gain so many standard deviations; else the sweep ends."""


def can_take_turns(sweep: SweepFile, *, max_gap: float | None) -> bool:
    """Whether freeze-thaw searches a sweep unless another sampler is asked for.

    It does for method bayes without early_terminate, and for method custom without a study or space of the user's own,
    if the objectives are metrics of every epoch.
    """
    is_plain = sweep.method in ("bayes", "custom") and sweep.early_terminate is None and not sweep.has_own_code
    is_small = sweep.run_cap is None or sweep.run_cap <= MOST_TRIALS
    return is_plain and is_small and bool(outputs_of(sweep, max_gap=max_gap))


class Pace:
    """How long epochs and pauses take on this host, which says how long a turn must be."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._epoch_s: deque[float] = deque(maxlen=KEPT_TIMES)
        self._epoch_s_of: dict[int, float] = {}
        """Of each trial's latest epoch."""
        self._switch_s: deque[float] = deque(maxlen=KEPT_TIMES)
        """From the end of a turn until its slot asks for the next one. That is half of what a pause costs: the next
        trial takes about as long again to read its checkpoint."""
        self._reported_at: dict[int, float] = {}
        self._ended_at: dict[str, float] = {}
        self._until: dict[int, int] = {}

    @property
    def turn(self) -> int:
        """Epochs of a turn: SHORTEST_TURN, or more if pauses would take over SWITCHING_SHARE of the time."""
        epoch_s = statistics.median(self._epoch_s) if self._epoch_s else 0.0
        if not epoch_s:
            return SHORTEST_TURN
        return max(SHORTEST_TURN, math.ceil(self._pause_s / (SWITCHING_SHARE * epoch_s)))

    @property
    def _pause_s(self) -> float:
        return 2 * statistics.median(self._switch_s) if self._switch_s else 0.0

    def seconds_to_finish(self, number: int, epochs: int) -> float:
        """Seconds that a trial needs for so many epochs if another trial has a turn first; 0 while nothing is known."""
        if not self._epoch_s:
            return 0.0
        epoch_s = statistics.median(self._epoch_s)
        return epochs * self._epoch_s_of.get(number, epoch_s) + self.turn * epoch_s + 2 * self._pause_s

    def begin(self, number: int, epoch: int) -> int:
        """A trial's turn begins after this epoch; returns the epoch that it ends after."""
        self._reported_at.pop(number, None)
        return self.extend(number, epoch)

    def extend(self, number: int, epoch: int) -> int:
        """The trial that has finished this epoch has the next turn as well; returns the epoch that it ends after."""
        self._until[number] = epoch + self.turn
        return self._until[number]

    def end_of(self, number: int, epochs: int) -> int:
        """The epoch after which a running trial's turn ends, of which so many are done; a guess for other agents'."""
        return max(epochs + 1, self._until.get(number, epochs + self.turn))

    def is_over(self, number: int, epoch: int) -> bool:
        """Whether a trial's turn is over, now that it has finished this epoch."""
        now = self._clock()
        if (before := self._reported_at.get(number)) is not None:
            self._epoch_s.append(now - before)
            self._epoch_s_of[number] = now - before
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

    def __init__(
        self,
        sweep: SweepFile,
        histories: Histories,
        *,
        seed: int,
        clock: Callable[[], float],
        max_gap: float | None = None,
        priors: Sequence[Prior] = (),
    ) -> None:
        self.pace = Pace(clock)
        self._seed = seed
        outputs = outputs_of(sweep, max_gap=max_gap)
        names = [metric.name for metric in sweep.objectives]
        self._curves = Curves(outputs, histories, names[0])
        self._max_gap = max_gap
        self._index = ConfigIndex()
        self._parameters: dict[int, Mapping[str, Any]] = {}
        """Of every trial read so far, by number."""
        self._fitted: Fitted | None = None
        self._decided: tuple[object, Proposal | int | None] | None = None
        """The last decision, and on what: a turn's end asks first, and then the slot that has become free."""
        first, *others = outputs.values()
        self._goal = first.goal
        self._epochs: int = SharedConfig.model_fields["epochs"].default
        space = Space.from_sweep(sweep)
        self._core = FreezeThaw(
            space.parameters,
            epochs=self._epochs,
            goal=self._goal,
            second=others[0] if others else None,
            earlier=earlier_observations(priors, space, outputs, names),
        )

    def catch_up(self, ledger: Ledger) -> None:
        """Read what is new, which a decision would read otherwise."""
        self._curves.update(ledger)
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
        only_best: bool = False,
        time_left_s: float = math.inf,
    ) -> Proposal | int | None:
        """The number of the paused trial to resume, or the configuration to start; None if neither is worth it.

        Args:
            ledger: The sweep's trials.
            may_resume: Whether this host has a paused trial's checkpoint.
            may_start: Whether new trials are allowed.
            ending: A running trial at the end of its turn, which may be given another one.
            only_best: Only the best trial may be resumed: no sweep ends before it has been trained to the end.
            time_left_s: For training, seconds; where it gets short for the best trial, that one has the next turn.
        """
        self.catch_up(ledger)
        states = {row["number"]: TrialState(row["state"]) for row in self._read(ledger)}
        paused = {trial for trial, state in states.items() if state is TrialState.PAUSED}
        resumable = {trial for trial in paused if may_resume(trial)} | ({ending} - {None})
        observations = [self._observe(trial, state, trial in resumable) for trial, state in states.items()]
        best = self._best(observations)
        if best is not None and best in resumable:
            seen = observations[best]
            last_epoch = int(seen.values.get("epochs", self._epochs))
            if only_best or time_left_s < self.pace.seconds_to_finish(best, last_epoch - len(seen.curve)):
                return best
        if only_best:
            turn = None
        else:
            asked = (may_start, [(len(o.curve), o.is_paused, o.running_until is None) for o in observations])
            if self._decided is None or self._decided[0] != asked:
                self._decided = asked, self._decide(observations, ledger, may_start=may_start)
            turn = self._decided[1]
        if turn is not None or best is None:
            return turn
        # The best trial alone is worth it. A host that has its checkpoint may be gone, if none trains anything.
        is_left_behind = best in paused and all(seen.running_until is None for seen in observations)
        return best if best in resumable or is_left_behind else None

    def _read(self, ledger: Ledger) -> Sequence[Row]:
        """The state of every trial; the parameters of those that are new are kept."""
        rows = ledger.states()
        for row in rows[len(self._parameters) :]:
            self._parameters[row["number"]] = json.loads(row["parameters"])
        return rows

    def _observe(self, number: int, state: TrialState, is_resumable: bool) -> Observation:
        curve, second = self._curves.of(number)
        is_running = state in (TrialState.RUNNING, TrialState.PREEMPTED) and not is_resumable
        return Observation(
            self._parameters[number],
            curve,
            second,
            running_until=self.pace.end_of(number, len(curve)) if is_running else None,
            is_paused=is_resumable,
            has_failed=state is TrialState.FAILED,
        )

    def _decide(self, observations: list[Observation], ledger: Ledger, *, may_start: bool) -> Proposal | int | None:
        """What ``FreezeThaw`` proposes, if it is worth a turn."""
        found: Proposal | None = None
        candidates = Candidates(lambda config: self._index.find(config, ledger))

        def accepts(values: Mapping[str, Any]) -> bool:
            nonlocal found
            found = candidates.accept(values)
            return found is not None

        decisions = sum(len(seen.curve) for seen in observations)
        rng = np.random.default_rng([self._seed, len(observations), decisions])
        turn = self._core.propose(
            observations,
            rng,
            fitted=self._fitted,
            accepts=accepts,
            may_start=may_start,
            least_gain=0.0 if may_start else LEAST_GAIN,
        )
        if turn is None:
            candidates.check_exhausted(len(observations))
            return None
        self._fitted = turn.fitted
        return found if turn.trial is None else turn.trial

    def _best(self, observations: Sequence[Observation]) -> int | None:
        """The trial that has reached most and did not fail; None before the first finite value.

        With a limit on the gap, it is the best of those within it, if there are any; of two objectives, the best in the
        first.
        """
        sign = 1.0 if self._goal == "maximize" else -1.0

        def reached(trial: int) -> tuple[bool, float]:
            seen = observations[trial]
            is_within = self._max_gap is None or any(gap <= self._max_gap for gap in seen.second[-1:])
            return is_within, max((sign * value for value in seen.curve if math.isfinite(value)), default=-math.inf)

        known = [
            k for k, seen in enumerate(observations) if not seen.has_failed and any(map(math.isfinite, seen.curve))
        ]
        return max(known, key=reached, default=None)
