"""Freeze-thaw search: give the next epochs to the trial that is most likely to matter (Swersky et al. 2014).

Trials are trained in turns of a few epochs and paused between them. A Gaussian process over configuration and epoch
(``process``) predicts where every curve ends; the next turn goes to the paused trial or new configuration with the
highest expected improvement (``acquisition``) for each epoch that it still takes. Pure over records: it knows no
database and no network.

A second output has a process of its own: a metric with a limit, or a second objective.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fer_sweep.config.parameters import Distribution
from fer_sweep.config.sweep_file import Goal
from fer_sweep.config.values import canonical
from fer_sweep.search.freeze_thaw.acquisition import Acquisition, Hypervolume, Improvement
from fer_sweep.search.freeze_thaw.encoding import Encoding, IsActive
from fer_sweep.search.freeze_thaw.history import History, Observation, Output
from fer_sweep.search.freeze_thaw.process import Array, Hyperparameters, Process, fit, squared_distances
from fer_sweep.search.sampling import unit_draws

FIRST_TRIALS = 6
"""Drawn from the space before the process decides."""
REFIT = 8
"""Turns between two fits of the hyperparameters."""
_FIT_TRIALS = 50
"""Trials whose curves the hyperparameters are fitted to, at most."""
_DRAWS = 400
"""New configurations drawn from the whole space for each turn."""
_MOVES = 200
"""The same near the best trials."""
_PARENTS = 5
"""Trials that moves start from."""
_APART = 0.2
"""Length scales between a new configuration and any trial, at least: nearer, resuming the trial says as much for fewer
epochs."""
_MOST_EARLIER = 60
"""Trials of earlier sweeps that are learnt from."""

Accepts = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Fitted:
    """The hyperparameters of a turn, from which the next turn goes on; plain enough to be stored as JSON."""

    vectors: tuple[tuple[float, ...], ...]
    """Of each output; see ``Hyperparameters.to_vector``."""
    age: int
    """Turns since they were fitted."""


@dataclass(frozen=True)
class Turn:
    """What to train next."""

    trial: int | None
    """The paused trial to resume, by its place among the observations; None to start a new one."""
    values: Mapping[str, Any]
    """The configuration."""
    until: int
    """The epoch to pause after; at the configuration's last epoch it is complete."""
    fitted: Fitted | None = None
    """To be given with the next call; None while there is nothing to fit."""


class FreezeThaw:
    """Decides turn by turn; the same arguments give the same turns, whichever process asks.

    Args:
        parameters: The space: distributions by dotted name.
        epochs: The last epoch of a configuration without a value for ``epochs``.
        goal: Which way the metric is better.
        turn: Epochs of a turn.
        is_active: See ``Encoding``.
        second: A limit on another metric, or a second objective.
        earlier: Trials of earlier sweeps to learn from, the best first; not of sweep 0.
    """

    def __init__(
        self,
        parameters: Mapping[str, Distribution],
        *,
        epochs: int,
        goal: Goal,
        turn: int = 2,
        is_active: IsActive | None = None,
        second: Output | None = None,
        earlier: Sequence[Observation] = (),
    ) -> None:
        self._encoding = Encoding(parameters, is_active)
        self._epochs, self._turn = epochs, turn
        self._outputs = [Output(goal)] if second is None else [Output(goal), second]
        kept = np.linspace(0, len(earlier) - 1, min(len(earlier), _MOST_EARLIER)).astype(np.intp)
        self._earlier = [earlier[place] for place in kept]
        self._places: dict[str, Array] = {}
        """Coordinates by canonical configuration, which some distributions take long to find."""

    def propose(
        self,
        observations: Sequence[Observation],
        rng: np.random.Generator,
        *,
        fitted: Fitted | None = None,
        accepts: Accepts = lambda values: True,
        may_start: bool = True,
        least_gain: float = 0.0,
    ) -> Turn | None:
        """The next turn; None if nothing can be trained now.

        Args:
            observations: Every trial, oldest first, those that run included.
            rng: Draws the new configurations.
            fitted: Of the turn before; without it, hyperparameters are fitted anew.
            accepts: Whether a configuration, other than the trials', can be trained.
            may_start: Whether new trials are allowed beside paused ones.
            least_gain: What a choice must be expected to improve on the best by, in standard deviations of the values
                seen so far (of two objectives in products of them).
        """
        taken = {canonical(seen.values) for seen in observations}

        def is_new(values: Mapping[str, Any]) -> bool:
            return canonical(values) not in taken and accepts(values)

        histories = self._histories(observations)
        is_early = not histories or len(observations) + len(self._earlier) < FIRST_TRIALS
        if may_start and is_early and (drawn := self._draw(is_new, rng)) is not None:
            return self._start(drawn, fitted)
        if not histories:
            paused = [place for place, seen in enumerate(observations) if seen.is_paused]
            return self._resume(observations, paused[0], fitted) if paused else None
        fitted = self._fit(histories, fitted)
        for choice in self._ranked(observations, histories, fitted, rng, least_gain):
            if isinstance(choice, int):
                return self._resume(observations, choice, fitted)
            if may_start and is_new(values := self._encoding.values(choice)):
                return self._start(values, fitted)
        drawn = self._draw(is_new, rng) if may_start else None
        return None if drawn is None else self._start(drawn, fitted)

    def _histories(self, observations: Sequence[Observation]) -> Sequence[History]:
        """Of each output that has a value; none while the first has none."""
        if not observations:
            return []
        seen = [*observations, *self._earlier]
        places = np.array([self._place(one.values) for one in seen])
        ends = self._ends(one.values for one in seen)
        first = History.of(seen, places, ends, self._outputs[0])
        if first is None or len(self._outputs) == 1:
            return [] if first is None else [first]
        second = History.of([replace(one, curve=one.second) for one in seen], places, ends, self._outputs[1])
        return [first] if second is None else [first, second]

    def _fit(self, histories: Sequence[History], fitted: Fitted | None) -> Fitted:
        starts = [Hyperparameters.typical(len(self._encoding.sources)).to_vector()] * len(histories)
        if fitted is not None and [*map(len, fitted.vectors)] == [*map(len, starts)]:  # the space may have been changed
            if fitted.age + 1 < REFIT:
                return Fitted(fitted.vectors, fitted.age + 1)
            starts = [np.array(vector) for vector in fitted.vectors]
        groups = self._encoding.groups
        likeliest = [fit(h.sample(_FIT_TRIALS), groups, start) for h, start in zip(histories, starts, strict=True)]
        return Fitted(tuple(tuple(vector.tolist()) for vector in likeliest), 0)

    def _ranked(
        self,
        observations: Sequence[Observation],
        histories: Sequence[History],
        fitted: Fitted,
        rng: np.random.Generator,
        least_gain: float,
    ) -> Iterable[int | Array]:
        """Paused trials and points of the unit cube, by the improvement that an epoch of each is expected to bring."""
        groups, size = self._encoding.groups, len(observations)
        fits = [Hyperparameters.from_vector(vector) for vector in fitted.vectors]
        processes = [
            self._believing(observations, Process(history.points, groups, h), history, h)
            for history, h in zip(histories, fits, strict=True)
        ]
        points, ends = histories[0].points, self._ends(seen.values for seen in observations)
        means = [process.predict(points.places[:size], np.arange(size), ends)[0] for process in processes]
        acquisition = self._acquisition(histories, means)
        worth = np.where(np.isnan(histories[0].peaks), -math.inf, acquisition.worth(means))
        parents = [place for place in np.argsort(-worth, kind="stable")[:_PARENTS] if worth[place] > -math.inf]
        fresh = self._fresh([observations[place].values for place in parents], rng)
        places = self._encoding.places(fresh)
        # Not apart from trials of earlier sweeps: how good their best is in this one is what is asked.
        distances = squared_distances(places, points.places[:size], fits[0].lengths[groups])
        is_apart = distances.min(1) >= _APART**2
        fresh, places = fresh[is_apart], places[is_apart]
        # Only where epochs are searched do configurations end at different ones.
        sample = fresh if "epochs" in self._encoding.sources else fresh[:1]
        last = np.broadcast_to(self._ends(map(self._encoding.values, sample)), len(fresh))
        paused = np.flatnonzero([seen.is_paused for seen in observations])
        candidates = (
            np.concatenate([points.places[paused], places]),
            np.concatenate([paused, np.full(len(fresh), -1)]),
            np.concatenate([ends[paused], last]),
        )
        gain = acquisition.gain([process.predict(*candidates) for process in processes])
        # An improvement shows at the end. Where early epochs say little, so that all candidates are much the same, this
        # trains one trial to its end after the other, and not the first epochs of many.
        trained = [*(len(observations[place].curve) for place in paused.tolist()), *[0] * len(fresh)]
        rate = gain / np.maximum(candidates[2] - trained, 1)
        choices = [*paused.tolist(), *fresh]
        return (choices[place] for place in np.argsort(-rate, kind="stable") if gain[place] >= least_gain)

    def _believing(
        self, observations: Sequence[Observation], process: Process, history: History, h: Hyperparameters
    ) -> Process:
        """The process that takes what runs to be, at its turn's end, where it is expected (kriging believer).

        So another slot looks elsewhere. A belief about the last epoch would put slots off for longer than the turn.
        """
        running = np.array([k for k, seen in enumerate(observations) if seen.running_until is not None], dtype=np.intp)
        if not len(running):
            return process
        points = history.points
        until = np.array([observations[k].running_until for k in running], dtype=np.float64)
        expected, _ = process.predict(points.places[running], running, until)
        return Process(points.with_more(running, until, expected), self._encoding.groups, h)

    def _acquisition(self, histories: Sequence[History], means: Sequence[Array]) -> Acquisition:
        """How candidates compare, given where the trials are expected to end."""
        first, output = histories[0], self._outputs[-1]
        if len(histories) == 1:
            return Improvement(first.best)
        if output.bound is not None:
            bound = histories[1].scaled(output.bound, output.goal)
            return Improvement.within(first.peaks, first.lowest, means[1], bound)
        peaks = np.stack([history.peaks for history in histories], axis=1)
        # The corner is the worst of what is and what is expected: a trial of two epochs has hardly any gap yet, and one
        # that is trained to the end must not count for nothing because of that.
        worst = [np.nanmin([*p, m.min()]) for p, m in zip(peaks.T, means, strict=True)]
        return Hypervolume.of(peaks, np.array(worst))

    def _fresh(self, parents: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> Array:
        """Points of the unit cube, shape (n, parameters): draws from all of it, and moves from the best trials."""
        size = len(self._encoding.sources)
        draws = rng.random((_DRAWS, size))
        if not parents or not size:
            return draws
        origins = np.array([self._encoding.unit(values) for values in parents])[rng.integers(len(parents), size=_MOVES)]
        # Some parameters move a little, some are drawn anew, as a category has no neighbours; one at least changes.
        near = np.clip(origins + rng.normal(0.0, rng.choice([0.05, 0.2], (_MOVES, 1)), origins.shape), 0.0, 1.0)
        moved = np.where(rng.random(origins.shape) < 0.3, rng.random(origins.shape), near)
        changes = rng.random(origins.shape) < max(2 / size, 0.3)
        changes[np.arange(_MOVES), rng.integers(size, size=_MOVES)] = True
        return np.concatenate([draws, np.where(changes, moved, origins)])

    def _draw(self, is_new: Accepts, rng: np.random.Generator) -> Mapping[str, Any] | None:
        """A new configuration from the whole space; None if it is exhausted."""
        for drawn in unit_draws(self._encoding.sources, rng):
            values = self._encoding.values(np.array(list(drawn.values())))
            if is_new(values):
                return values
        return None

    def _start(self, values: Mapping[str, Any], fitted: Fitted | None) -> Turn:
        return Turn(None, values, min(self._turn, self._end(values)), fitted)

    def _resume(self, observations: Sequence[Observation], trial: int, fitted: Fitted | None) -> Turn:
        seen = observations[trial]
        return Turn(trial, seen.values, min(len(seen.curve) + self._turn, self._end(seen.values)), fitted)

    def _end(self, values: Mapping[str, Any]) -> int:
        return int(values.get("epochs", self._epochs))

    def _ends(self, configurations: Iterable[Mapping[str, Any]]) -> Array:
        return np.array([self._end(values) for values in configurations], dtype=np.float64)

    def _place(self, values: Mapping[str, Any]) -> Array:
        key = canonical(values)
        if key not in self._places:
            self._places[key] = self._encoding.place(values)
        return self._places[key]
