"""Two trials side by side: configuration, results, and whether their difference is beyond noise. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fer_sweep.config.trial import flatten
from fer_sweep.config.values import canonical
from fer_sweep.formatting import percent, plain, points, short
from fer_sweep.selection import Candidate, Confirmed, compare, differing_data
from fer_sweep.selection.choice import gap_error
from fer_sweep.selection.intervals import Z95, chance_difference
from fer_sweep.verdicts import explain


@dataclass(frozen=True)
class Difference:
    """How far a metric of two trials differs, first minus second."""

    metric: str
    value: float
    chance: float
    """The largest difference that chance explains, at 95 %."""

    @property
    def is_beyond_noise(self) -> bool:
        """Whether chance does not explain it."""
        return abs(self.value) > self.chance


@dataclass(frozen=True)
class Pair:
    """Two trials with results."""

    first: Candidate
    second: Candidate
    confirmed: tuple[Confirmed, ...] = ()
    """The further seeds of both, if both have some."""

    @property
    def configuration(self) -> dict[str, tuple[Any, Any]]:
        """The parameters that differ, by dotted name; None where a trial lacks one."""
        one, other = (flatten(candidate.record.config) for candidate in (self.first, self.second))
        both = {name: (one.get(name), other.get(name)) for name in {**one, **other}}
        return {name: pair for name, pair in both.items() if canonical(pair[0]) != canonical(pair[1])}

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Of accuracy and gap; empty if the trials were measured on different data."""
        if differing_data([self.first, self.second]):
            return ()
        p, q = self.first.result, self.second.result
        chance = chance_difference(p.best_val_acc, self.first.images, q.best_val_acc, self.second.images)
        of_gaps = Z95 * math.hypot(gap_error(self.first), gap_error(self.second))
        return (
            Difference("best_val_acc", p.best_val_acc - q.best_val_acc, chance),
            Difference("train_val_gap", p.train_val_gap - q.train_val_gap, of_gaps),
        )

    def configuration_rows(self) -> list[tuple[str, str, str]]:
        """The parameters that differ, as text."""
        both = self.configuration.items()
        return [(plain(name, 40), _shown(one), _shown(other)) for name, (one, other) in both]

    def result_rows(self) -> list[tuple[str, str, str]]:
        """The results, as text."""
        columns = [_results(self.first), _results(self.second)]
        return [(name, columns[0][name], columns[1][name]) for name in columns[0]]

    def words(self, names: Sequence[str]) -> list[str]:
        """What the comparison says, a sentence each without its full stop.

        Args:
            names: What the two trials are called.
        """
        if data := differing_data([self.first, self.second]):
            return [f"They were measured on different data ({', '.join(data)}), so their accuracies are not comparable"]
        accuracy, gap = self.differences
        found = [_sentence(accuracy, names, "is {} more accurate"), _sentence(gap, names, "has a gap larger by {}")]
        return found + [f"confirmed: {comparison.meaning}" for comparison in compare(self.confirmed)]

    def verdicts(self, names: Sequence[str]) -> list[str]:
        """The reason of each trial's verdict."""
        both = zip(names, (self.first.result, self.second.result), strict=True)
        return [f"{name}: {result.verdict}: {explain(result)}" for name, result in both]


def _sentence(difference: Difference, names: Sequence[str], says: str) -> str:
    larger = names[0] if difference.value >= 0 else names[1]
    what = "accuracies" if difference.metric == "best_val_acc" else "gaps"
    chance = f"chance explains up to {100 * difference.chance:.2f}"
    if difference.value == 0:
        return f"Their {what} are equal"
    end = "beyond noise" if difference.is_beyond_noise else "not beyond noise"
    return f"{larger} {says.format(f'{abs(100 * difference.value):.2f} points')}, {end}: {chance}"


def _shown(value: Any) -> str:
    return "-" if value is None else plain(short(value), 40)


def _results(candidate: Candidate) -> dict[str, str]:
    result = candidate.result
    return {
        "state": str(candidate.record.state),
        "verdict": str(result.verdict),
        "best_val_acc": percent(result.best_val_acc),
        "val_acc_clean": percent(result.val_acc_clean),
        "train_val_gap": f"{points(result.train_val_gap)} points",
        "train_acc": percent(result.train_acc),
        "macro_f1": f"{result.macro_f1:.3f}",
        "best_epoch": f"{result.best_epoch} of {result.epochs}",
        "parameters": f"{result.parameters:,}",
        "minutes": f"{result.seconds / 60:.1f}",
    }
