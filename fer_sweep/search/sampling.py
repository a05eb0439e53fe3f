"""Proposing new configurations: grid and random, and what every proposer shares.

A proposer's ``propose(number, ledger)`` decides what trial ``number`` is, and returns None once every configuration is
taken. It is called within the transaction that stores the trial, and raises ConfigError if the training function
refuses every configuration of the space.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_sweep.config.parameters import Categorical, Distribution, IntUniform, Quantized, Range
from fer_sweep.config.space import Space
from fer_sweep.config.trial import ARCHITECTURES, TrialConfig, flatten, parse_trial
from fer_sweep.config.values import canonical, is_number
from fer_sweep.data.store import image_size
from fer_sweep.errors import ConfigError
from fer_sweep.store.caches import ConfigIndex
from fer_sweep.store.queue import Picked
from fer_sweep.store.trials import Ledger

REDRAWS = 100
"""Draws of a taken configuration before the rest of a finite space is listed instead."""
_ENDLESS_REDRAWS = 2_000
"""The same where there is no list; then the space counts as exhausted."""
_LARGEST_LIST = 200_000
"""Configurations; a space larger than this is never listed."""


@dataclass(frozen=True)
class Proposal:
    """A configuration of which no trial exists yet."""

    values: Mapping[str, Any]
    """By dotted name, constants included."""
    config: TrialConfig
    memo: str | None = None
    """Stored with the trial for the proposer."""

    @property
    def identity(self) -> str:
        """The same for equal configurations, if the same version of fersweep made both."""
        return self.config.model_dump_json()


class Candidates:
    """Turns drawn values into a proposal if they are new and can be trained.

    Values that the training function refuses, such as a `dim` that `head_dim` does not divide or a `patch_size` that
    does not divide the images, are skipped, in a grid too; only a space with nothing else is an error.

    Args:
        is_taken: Whether a trial of a configuration exists.
    """

    def __init__(self, is_taken: Callable[[TrialConfig], object] = lambda config: False) -> None:
        self._is_taken = is_taken
        self._image_size = functools.cache(image_size)
        self._refusal: ConfigError | None = None

    def accept(self, values: Mapping[str, Any], memo: str | None = None) -> Proposal | None:
        """The proposal, or None for values refused or taken."""
        try:
            config = parse_trial(values)
            config.check_image_size(*self._image_size(config.data))
        except ConfigError as error:
            self._refusal = error
            return None
        # What is trained, not how it is written: 64 and "64" are one batch_size, and a default may be spelt out.
        return None if self._is_taken(config) else Proposal(dict(values), config, memo)

    def check_exhausted(self, number: int) -> None:
        """After nothing was found, raise if no trial was ever found.

        Raises:
            ConfigError: With what was wrong with the last values.
        """
        if number == 0 and self._refusal is not None:
            raise ConfigError(
                self._refusal.problems, hint="the sweep's space gives nothing that can be trained: change its ranges"
            )


class GridProposer:
    """W&B's grid, in its order: the first configuration of which there is no trial yet."""

    def __init__(self, space: Space) -> None:
        self._index = ConfigIndex()
        self._candidates = Candidates()
        self._ahead = filter(None, map(self._candidates.accept, space.grid()))
        self._next: Proposal | None = None
        """All configurations before this one have trials. It stays until its own trial is seen: the transaction that
        adds it may be rolled back."""

    def catch_up(self, ledger: Ledger) -> None:
        """Pass over the configurations that have trials, which ``propose`` would do otherwise."""
        self._index.catch_up(ledger)
        if self._next is None:
            self._next = next(self._ahead, None)
        while self._next is not None and self._index.find(self._next.config, ledger):
            self._next = next(self._ahead, None)

    def propose(self, number: int, ledger: Ledger) -> Proposal | None:
        """The next configuration of the grid."""
        self.catch_up(ledger)
        if self._next is None:
            self._candidates.check_exhausted(number)
        return self._next


class RandomProposer:
    """Independent draws; trial n's depend on the seed, n and the trials before it, not on the agent."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._index = ConfigIndex()

    def catch_up(self, ledger: Ledger) -> None:
        """Read the trials added since the last call, which ``propose`` would read otherwise."""
        self._index.catch_up(ledger)

    def propose(self, number: int, ledger: Ledger) -> Proposal | None:
        """Draw until a configuration is new; after REDRAWS, take one of those left."""
        candidates = Candidates(lambda config: self._index.find(config, ledger))
        rng = np.random.default_rng([self._seed, number])
        for points in unit_draws(self._space.parameters, rng):
            values = {name: self._space.parameters[name].quantile(u) for name, u in points.items()}
            if found := candidates.accept(values):
                return found
        candidates.check_exhausted(number)
        return None


def unit_draws(parameters: Mapping[str, Distribution], rng: np.random.Generator) -> Iterator[dict[str, float]]:
    """Points of the unit cube for parameters' quantiles: random draws, then all of a finite space in random order."""
    sizes = [distribution.size for distribution in parameters.values()]
    finite = [size for size in sizes if size is not None]
    is_listable = len(finite) == len(sizes) and math.prod(finite) <= _LARGEST_LIST
    for _ in range(REDRAWS if is_listable else _ENDLESS_REDRAWS):
        yield {name: rng.random() for name in parameters}
    if is_listable:
        columns = [unit_points(distribution) for distribution in parameters.values()]
        shape = [len(column) for column in columns]
        for flat in rng.permutation(math.prod(shape)):
            where = np.unravel_index(int(flat), shape) if shape else ()
            yield {name: column[int(i)] for name, column, i in zip(parameters, columns, where, strict=True)}


def unit_points(distribution: Distribution) -> Sequence[float]:
    """For a finite distribution, one u of [0, 1] for every value that ``quantile`` can give, ascending.

    >>> unit_points(IntUniform(min=1, max=4))
    [0.125, 0.375, 0.625, 0.875]
    """
    if isinstance(distribution, Categorical):
        total = math.fsum(distribution.chances)
        ends = [end / total for end in itertools.accumulate(distribution.chances)]
        candidates = [(low + high) / 2 for low, high in itertools.pairwise([0.0, *ends]) if high > low]
    else:
        size = distribution.size
        assert size is not None, f"{distribution} is not finite"
        # Rounding makes stretches of unequal length: look closely enough that none of a usable chance is missed.
        steps = size if isinstance(distribution, IntUniform) else 64 * size
        candidates = [(k + 0.5) / steps for k in range(steps)]
    first_of: dict[str, float] = {}
    for u in candidates:
        first_of.setdefault(canonical(distribution.quantile(u)), u)
    return list(first_of.values())


def default_trial(space: Space) -> Picked | None:
    """The configuration that the training function would take by itself; None if it cannot be trained.

    A parameter whose default is not in the space has the middle of its distribution.
    """
    values = {name: source.quantile(0.5) for name, source in space.parameters.items()}
    kind = ARCHITECTURES.get(str(values.get("model")))
    if kind is None:
        return None
    defaults = flatten(kind().model_dump(mode="json"))
    for name, source in space.parameters.items():
        if name != "model" and source.size != 1 and name in defaults and holds(source, defaults[name]):
            values[name] = defaults[name]
    found = Candidates().accept(values)
    return Picked(found.config, found.values) if found else None


def fits(space: Space, picked: Picked) -> bool:
    """Whether a configuration is one of the space: each value can be drawn, and all else is what the space fixes."""
    given = given_values(picked)
    values = {name: given.get(name) for name in space.parameters}
    if not all(name in given and holds(space.parameters[name], value) for name, value in values.items()):
        return False
    try:
        return parse_trial(values) == picked.config
    except ConfigError:
        return False


def within(space: Space, picked: Picked) -> Picked | None:
    """The configuration with the values that the space fixes; None if the space cannot give it."""
    given, values = given_values(picked), {}
    for name, source in space.parameters.items():
        if source.size == 1:
            values[name] = source.quantile(0.5)
        elif name in given and holds(source, given[name]):
            values[name] = given[name]
        else:
            return None
    try:
        config = parse_trial(values)
    except ConfigError:
        return None
    return Picked(config, values) if config.model == picked.config.model else None


def given_values(picked: Picked) -> dict[str, Any]:
    """Every value of a configuration by dotted name, as it was written where it was."""
    return {**flatten(picked.config.model_dump(mode="json")), **picked.parameters}


def holds(distribution: Distribution, value: Any) -> bool:
    """Whether a distribution can give a value."""
    if (possible := distribution.possible) is not None and not isinstance(possible, range):
        return canonical(value) in map(canonical, possible)
    if not isinstance(distribution, Quantized) and isinstance(distribution, Range):
        is_within = is_number(value) and distribution.min <= value <= distribution.max
        return is_within and (value == int(value) or not isinstance(distribution, IntUniform))
    return is_number(value) and unit_of(distribution, value) is not None


def unit_of(distribution: Distribution, value: float) -> float | None:
    """A u of [0, 1] whose quantile is this number, in the middle of all such; None if there is none.

    >>> unit_of(IntUniform(min=1, max=4), 2), unit_of(IntUniform(min=1, max=4), 5)
    (0.375, None)
    """
    low = _first(lambda u: distribution.quantile(u) >= value)
    high = _first(lambda u: distribution.quantile(u) > value)
    u = (low + high) / 2
    return u if math.isclose(distribution.quantile(u), value, rel_tol=1e-9, abs_tol=1e-12) else None


def _first(is_reached: Callable[[float], bool]) -> float:
    """The least u of [0, 1] from which on a condition holds; 1 if it never does."""
    low, high = 0.0, 1.0
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (low, middle) if is_reached(middle) else (middle, high)
    return high
