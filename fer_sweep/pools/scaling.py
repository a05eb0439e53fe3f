"""How many agents a sweep has use for, by what is left of it."""

import math
from dataclasses import dataclass

from fer_sweep.sweeps import Remaining


@dataclass(frozen=True)
class Change:
    """What becomes of agents that have no place yet."""

    start: int = 0
    withdraw: int = 0


@dataclass
class Demand:
    """How many agents are of use, learnt from look to look."""

    most: int
    """As many agents are asked for; those that failed are not replaced."""
    slots: int = 1
    """Trials that an agent trains at a time, at least."""
    left: Remaining | None = None
    """The last look."""
    _refused: int = 0
    """Of the trials free then, so many no agent is given: one ended while they were, such as in a space that is
    exhausted before its cap, or at its ``--count``."""
    _is_forgiven: bool = False

    def lost(self) -> None:
        """An agent was lost with what it had in hand, which others can be given."""
        self._is_forgiven = True

    def ended(self) -> None:
        """An agent ended by itself: what was free at the last look is not for agents."""
        if self.left is not None and self.left.free is not None:
            self._refused = max(self._refused, self.left.free)

    def look(self, left: Remaining, *, running: int, waiting: int) -> Change:
        """What follows from a new look.

        >>> Demand(most=8, slots=2).look(Remaining(free=5), running=0, waiting=0)
        Change(start=3, withdraw=0)

        Args:
            left: What there is to do.
            running: Agents that have a place.
            waiting: Agents that wait for one.
        """
        self.left = left
        if left.free is None:
            return Change(start=max(0, self.most - running - waiting))
        self._refused = 0 if self._is_forgiven else min(self._refused, left.free)
        self._is_forgiven = False
        wanting = math.ceil((left.free - self._refused) / self.slots)
        if waiting > wanting:
            return Change(withdraw=waiting - wanting)
        # Those that run train what is leased; only what goes beyond that is for further ones.
        in_all = min(self.most, math.ceil((left.free - self._refused + left.leased) / self.slots))
        return Change(start=max(0, min(wanting - waiting, in_all - running - waiting)))


def slots_of(words: tuple[str, ...], gpus: float, cpus: int) -> int:
    """How many trials an agent with these options trains at a time, at least.

    >>> slots_of(("agent", "abc", "--per-gpu=2"), gpus=2.0, cpus=8)
    4
    >>> slots_of(("agent", "abc"), gpus=0.0, cpus=8), slots_of(("agent", "abc", "--slots=auto"), gpus=0.0, cpus=8)
    (2, 1)
    """
    given = dict(word.split("=", 1) for word in words if "=" in word)
    on_gpus = gpus > 0 and given.get("--gpus") != "none" and "--slots" not in given
    usual = "1" if on_gpus else str(max(1, cpus // 4))
    asked = given.get("--per-gpu" if on_gpus else "--slots", usual)
    each = int(asked) if asked.isdecimal() else 1
    return each * (max(1, int(gpus)) if on_gpus else 1)
