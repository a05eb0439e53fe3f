"""What training on is expected to gain, and whether that is worth it. Pure over records.

The Gaussian process of freeze-thaw search predicts where every curve ends, whichever search made the trials. Draws from
it play out the next epochs: in each draw, some of the trials that can be resumed and of new configurations are trained,
and the best of them is compared with the best value so far. A search that learns trains those that are the best ones in
other draws of the process (batch Thompson sampling); a random search or a grid trains any. How well this predicts is
measured by ``tests/benchmarks/search_efficiency/stopping.py``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fer_sweep.config.parameters import Distribution
from fer_sweep.config.sweep_file import Goal
from fer_sweep.search.freeze_thaw.encoding import Encoding
from fer_sweep.search.freeze_thaw.history import History, Observation, Output
from fer_sweep.search.freeze_thaw.process import Array, Hyperparameters, Process, fit

Searched = Literal["freeze_thaw", "model", "random"]
"""What makes the trials: freeze-thaw, another search that learns from its trials, or one that does not."""

FIRST_TRIALS = 6
"""Nothing is predicted from fewer trials."""
WHOLE_TRIALS = 2
"""Nor from fewer trials that were trained to their last epoch: the process cannot know how far curves rise."""
LEAST_TRIALS = 20
"""The rule stops no sweep with fewer: six bad trials look as converged as a hundred good ones."""
COVERED = 0.9
"""Share of the draws in the interval."""
LEAST_CHANCE = 0.01
"""Of gaining more than one standard error by training as many epochs again; with less, going on is not worth it."""
_STEP = 1.2
"""The rule is applied each time that the epochs trained have grown by this factor: with every further look, a chance
that it stops too early is added."""
_FLOORS: Mapping[Searched, float] = {"freeze_thaw": 0.25, "model": 1.0, "random": 4.0}
"""Values farther below the median than this many times the distance of the best above it are raised to there. How bad
the bad half is would blur the best; the less so, the fewer good trials a search makes."""
_TRIALS = 60
"""Trials that the process learns from, at most, for its time: half of them the best, the others the newest."""
_RESUMABLE = 100
"""Trials that may be resumed in a draw, at most: the best."""
_POINTS = 250
"""New configurations that may be trained in a draw, from the whole space."""
_MOVES = 100
"""The same near the best trials."""
_PARENTS = 5
"""Trials that moves start from."""
_DRAWS = 500


@dataclass(frozen=True)
class Gain:
    """The improvement of the best value by further epochs, in units of the metric; 0 for none."""

    epochs: int
    """How many more are trained, of all trials together."""
    trials: int
    """How many trials it was predicted from."""
    draws: Array
    """Equally likely gains, rising."""

    @property
    def mean(self) -> float:
        """The expected gain."""
        return float(self.draws.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the shortest interval that holds ``COVERED`` of the draws."""
        inside = math.ceil(COVERED * len(self.draws))
        first = int(np.argmin(self.draws[inside - 1 :] - self.draws[: len(self.draws) - inside + 1]))
        return float(self.draws[first]), float(self.draws[first + inside - 1])

    def chance(self, least: float) -> float:
        """How likely more than ``least`` is gained."""
        return float((self.draws > least).mean())


class Prediction:
    """What the process, fitted to the trials of a sweep, expects of further epochs; see ``predict``."""

    def __init__(
        self,
        encoding: Encoding,
        seen: Sequence[Observation],
        history: History,
        *,
        last_epoch: int,
        searched: Searched,
        seed: int,
    ) -> None:
        self._encoding, self._seen, self._history = encoding, seen, history
        self._last_epoch, self._searched, self._seed = last_epoch, searched, seed
        self._lengths, self._ends = _lengths(seen), _ends(seen, last_epoch)
        points = history.sample(_TRIALS)
        vector = fit(points, encoding.groups, Hyperparameters.typical(len(encoding.sources)).to_vector())
        self._process = Process(points, encoding.groups, Hyperparameters.from_vector(vector))

    @property
    def spent(self) -> int:
        """Epochs that the trials have been trained, together."""
        return int(self._lengths.sum())

    def gain(self, more: int) -> Gain:
        """What so many more epochs, of all trials together, gain."""
        seen, history, encoding, lengths = self._seen, self._history, self._encoding, self._lengths
        learns = self._searched != "random"
        rng = np.random.default_rng([self._seed, len(seen), self.spent])
        ranked = np.array([k for k in np.argsort(-history.peaks) if not math.isnan(history.peaks[k])], dtype=np.intp)
        open_ = [k for k in ranked if seen[k].is_paused or seen[k].running_until is not None][:_RESUMABLE]
        units = rng.random((_POINTS, len(encoding.sources)))
        if learns:
            parents = np.array([encoding.unit(seen[k].values) for k in ranked[:_PARENTS]])
            units = np.concatenate([units, _moved(parents[rng.integers(len(parents), size=_MOVES)], rng)])
        new = np.full(len(units), self._last_epoch, dtype=np.float64)
        if "epochs" in encoding.sources:
            new = np.array([int(encoding.values(unit)["epochs"]) for unit in units], dtype=np.float64)
        resumable = np.array(open_, dtype=np.intp)
        values = self._process.sample(
            np.concatenate([history.points.places[resumable], encoding.places(units)]),
            np.concatenate([resumable, np.full(len(units), -1)]),
            np.concatenate([np.minimum(self._ends[resumable], lengths[resumable] + more), np.minimum(new, more)]),
            _DRAWS,
            rng,
        )
        trained = max(1, round(more * len(seen) / lengths.sum()))  # trials, if they take as many epochs as until now
        choices = rng.integers(_DRAWS if learns else values.shape[1], size=(_DRAWS, trained))
        if learns:
            choices = values.argmax(1)[choices]
        reached = np.take_along_axis(values, choices, 1).max(1)
        return Gain(more, len(seen), np.sort(np.maximum(reached - history.best, 0.0) * history.spread))


def predict(
    parameters: Mapping[str, Distribution],
    observations: Sequence[Observation],
    *,
    last_epoch: int,
    goal: Goal,
    searched: Searched,
    seed: int,
) -> Prediction | None:
    """Fit the process to the trials of a sweep; None while too little is known.

    Args:
        parameters: The space: distributions by dotted name.
        observations: Every trial; those that are paused or running can be trained on.
        last_epoch: Of a configuration without a value for ``epochs``.
        goal: Which way the metric is better.
        searched: How.
        seed: The same arguments give the same gains.
    """
    seen = [observation for observation in observations if len(observation.curve) or observation.has_failed]
    ends = _ends(seen, last_epoch)
    if len(seen) < FIRST_TRIALS or (_lengths(seen) >= ends).sum() < WHOLE_TRIALS:
        return None
    encoding = Encoding(parameters)
    places = np.array([encoding.place(found.values) for found in seen])
    history = History.of(seen, places, ends, Output(goal), _FLOORS[searched])
    if history is None or not np.ptp(history.points.values):
        return None
    return Prediction(encoding, seen, history, last_epoch=last_epoch, searched=searched, seed=seed)


def _lengths(seen: Sequence[Observation]) -> Array:
    return np.array([len(found.curve) for found in seen], dtype=np.float64)


def _ends(seen: Sequence[Observation], last_epoch: int) -> Array:
    return np.array([int(found.values.get("epochs", last_epoch)) for found in seen], dtype=np.float64)


def look(spent: int) -> int:
    """Rises with the epochs trained each time that the rule is to be applied again.

    >>> look(100) == look(105), look(100) == look(125)
    (True, False)
    """
    return math.floor(math.log(max(spent, 1), _STEP))


def is_converged(gain: Gain, least: float) -> bool:
    """Whether going on is not worth it, by the gain of training as many epochs again; ``least`` is what counts."""
    return gain.trials >= LEAST_TRIALS and gain.chance(least) <= LEAST_CHANCE


def _moved(units: Array, rng: np.random.Generator) -> Array:
    """Points of the unit cube near others: most parameters move a little, some are drawn anew."""
    near = np.clip(units + rng.normal(0.0, 0.15, units.shape), 0.0, 1.0)
    moved: Array = np.where(rng.random(units.shape) < 0.2, rng.random(units.shape), near)
    return moved
