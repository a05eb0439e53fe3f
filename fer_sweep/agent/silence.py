"""How long a trial may be silent before it counts as hung."""

LIMIT_S = 300.0
"""Without a step. Steps and the parts of an evaluation take seconds at most, so this is only for slow devices."""
START_LIMIT_S = 1800.0
"""Before the first step, in which pretrained weights may be downloaded."""
TIMES_THE_LONGEST = 10
"""A trial may be silent for so many times as long as any trial of this agent ever was."""
LAST_WORDS_S = 5.0
"""How long a hung trial has to write down where it hangs before it is killed."""


class Silence:
    """What is usual among one agent's trials."""

    def __init__(self, limit_s: float | None = None) -> None:
        """Know nothing yet.

        Args:
            limit_s: A trial that has been silent for so many seconds is hung; None to learn it.
        """
        self._given = limit_s
        self._longest = 0.0

    def learn(self, seconds: float) -> None:
        """A trial was silent for so long and then went on."""
        self._longest = max(self._longest, seconds)

    def limit(self, *, has_begun: bool) -> float:
        """Seconds of silence after which a trial is hung, before or after its first step."""
        if self._given is not None:
            return self._given
        return max(LIMIT_S if has_begun else START_LIMIT_S, TIMES_THE_LONGEST * self._longest)
