"""What a benchmark is: a figure of fersweep's and the same figure of what people would otherwise run."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Values = Mapping[str, Sequence[float]]
"""By side, a value a repeat."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    title: str
    sides: Mapping[str, Callable[[int], float]]
    """fersweep's first; each measures once, given the number of the repeat, and takes turns with the others."""
    better: Literal["less", "more", "same"]
    """Which way is good; ``same`` for two figures that should agree."""
    is_slow: bool = False
    """Left out of the quick mode."""

    def verdict(self, ours: Sequence[float], *others: Sequence[float]) -> str:
        """The ratio in fersweep's favour, its median and its range over the repeats; or how far the sides agree."""
        if self.better != "same":
            return "; ".join(self._ratio(ours, theirs) for theirs in others)
        differences = [mine - theirs for mine, theirs in zip(ours, others[0], strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
        return f"{statistics.mean(differences):+.1%} ± {error:.1%}"

    def _ratio(self, ours: Sequence[float], theirs: Sequence[float]) -> str:
        pairs = zip(ours, theirs, strict=True)
        ratios = [mine / other if self.better == "more" else other / mine for mine, other in pairs]
        return f"{statistics.median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f})"


def table(rows: Mapping[str, Row], figures: Mapping[str, Values]) -> str:
    """A Markdown table: medians with their ranges."""
    lines = ["| figure | fersweep | against | ratio |", "|---|---|---|---|"]
    for name, values in figures.items():
        (_, ours), *others = values.items()
        against = "; ".join(f"{side}: {spread(them)}" for side, them in others)
        verdict = rows[name].verdict(*values.values())
        lines.append(f"| {rows[name].title} | {spread(ours)} | {against} | {verdict} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most."""
    middle, least, most = (_short(measure(values)) for measure in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
