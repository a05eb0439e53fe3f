"""Proposing configurations that were not tried before: grid and random, and what every proposer shares."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fer_sweep.config.distributions import Categorical, Distribution, IntUniform
from fer_sweep.config.space import Space

REDRAWS = 100
"""Draws of a configuration already tried before the rest of a finite space is listed instead."""
_ENDLESS_REDRAWS = 2_000
"""The same where there is no list to fall back on; then the space counts as exhausted."""
_LARGEST_LIST = 200_000
"""Configurations; a space larger than this is never listed."""


@dataclass(frozen=True)
class Proposal:
    """A configuration to try, of which no trial exists yet."""

    values: Mapping[str, Any]
    """By dotted name, constants included."""
    identity: str
    """The same for configurations that are the same."""
    memo: str | None = None
    """What the proposer wants to be given back with the trial's row."""


IsTaken = Callable[[str], bool]
"""Whether a trial with this identity exists."""


class Proposer(Protocol):
    """Decides what trial ``number`` is; None once every configuration is taken."""

    def propose(self, number: int, is_taken: IsTaken) -> Proposal | None:
        """Called within the transaction that stores the trial, so nothing changes meanwhile."""
        ...


class GridProposer:
    """W&B's grid, in its order: trial n is the n-th configuration."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._position = 0
        self._ahead = space.grid()

    def propose(self, number: int, is_taken: IsTaken) -> Proposal | None:
        """The ``number``-th configuration of the grid, whoever was given the ones before."""
        if number < self._position:
            self._position, self._ahead = 0, self._space.grid()
        for values in itertools.islice(self._ahead, number - self._position, None):
            self._position = number + 1
            return Proposal(values, self._space.key(values))
        return None


class RandomProposer:
    """Independent draws; trial n's depend on the seed, n and the trials before it, not on who asks."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed

    def propose(self, number: int, is_taken: IsTaken) -> Proposal | None:
        """Draw until the configuration is new; if that does not come about, take one of those left over."""
        rng = np.random.default_rng([self._seed, number])
        left = Leftover(self._space.parameters)
        for _ in range(REDRAWS if left.is_listable else _ENDLESS_REDRAWS):
            values = self._space.sample(rng)
            identity = self._space.key(values)
            if not is_taken(identity):
                return Proposal(values, identity)
        for points in left.shuffled(rng):
            values = {name: self._space.parameters[name].quantile(u) for name, u in points.items()}
            identity = self._space.key(values)
            if not is_taken(identity):
                return Proposal(values, identity)
        return None


class Leftover:
    """The configurations of a finite space as points of the unit cube, for when drawing finds nothing new."""

    def __init__(self, parameters: Mapping[str, Distribution]) -> None:
        self._parameters = parameters
        sizes = [distribution.size for distribution in parameters.values()]
        total = math.prod(size for size in sizes if size is not None)
        self.is_listable = None not in sizes and total <= _LARGEST_LIST

    def shuffled(self, rng: np.random.Generator) -> Iterator[dict[str, float]]:
        """Every configuration once, in random order; nothing if the space is not listable."""
        if not self.is_listable:
            return
        names = list(self._parameters)
        points = [unit_points(distribution) for distribution in self._parameters.values()]
        shape = [len(column) for column in points]
        for flat in rng.permutation(math.prod(shape)):
            where = np.unravel_index(int(flat), shape) if shape else ()
            yield {name: column[int(i)] for name, column, i in zip(names, points, where, strict=True)}


def unit_points(distribution: Distribution) -> Sequence[float]:
    """For a finite distribution, one u of [0, 1] for every value that ``quantile`` can give, ascending.

    >>> unit_points(IntUniform(1, 4))
    [0.125, 0.375, 0.625, 0.875]
    """
    size = distribution.size
    if size is None:
        raise ValueError(f"{distribution} has no end of values")
    if isinstance(distribution, Categorical):
        chances = distribution.probabilities or (1.0,) * len(distribution.values)
        ends = [end / math.fsum(chances) for end in itertools.accumulate(chances)]
        candidates = [(low + high) / 2 for low, high in itertools.pairwise([0.0, *ends]) if high > low]
    elif isinstance(distribution, IntUniform):
        candidates = [(k + 0.5) / size for k in range(size)]
    else:
        # Rounding makes stretches of unequal length: look closely enough that none of a usable chance is missed.
        fine = 64 * size
        candidates = [(k + 0.5) / fine for k in range(fine)]
    first_of: dict[Any, float] = {}
    for u in candidates:
        first_of.setdefault(repr(distribution.quantile(u)), u)
    return list(first_of.values())
