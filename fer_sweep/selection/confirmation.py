"""What further seeds say of a winner, and of one winner against another. Pure.

The trial that a search chose owes part of its accuracy to having been chosen: the best of many noisy measurements is on
average too high (the winner's curse). So the seed of the search has no place in these means. Each further seed still
takes its best epoch by the validation images; only the test split, opened once, is free of that.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fer_sweep.records import TrialResult, TrialState
from fer_sweep.selection.choice import Candidate, Selection, select
from fer_sweep.selection.intervals import Mean, binomial_error, mean_interval, t_test


@dataclass(frozen=True)
class Confirmed:
    """A chosen trial, trained again with further seeds."""

    name: str
    """SWEEP/TRIAL of the chosen one."""
    model: str
    data: str
    """The data set all of it was measured on: its fingerprint, or its name where that is not recorded."""
    searched: TrialResult
    """What the search chose it by."""
    seeds: Mapping[int, TrialResult]
    """What each further seed came to, by seed."""

    @property
    def accuracy(self) -> Mean | None:
        """Of ``best_val_acc`` over the seeds; None without any."""
        return mean_interval([result.best_val_acc for result in self.seeds.values()]) if self.seeds else None

    @property
    def clean(self) -> Mean | None:
        """Of ``val_acc_clean``, likewise."""
        return mean_interval([result.val_acc_clean for result in self.seeds.values()]) if self.seeds else None

    @property
    def gap(self) -> Mean | None:
        """Of ``train_val_gap``, likewise."""
        return mean_interval([result.train_val_gap for result in self.seeds.values()]) if self.seeds else None

    @property
    def optimism(self) -> float | None:
        """By how much the search's accuracy exceeds the mean over the further seeds."""
        return None if self.accuracy is None else self.searched.best_val_acc - self.accuracy.mean

    @property
    def summary(self) -> str:
        """What the further seeds came to, in words."""
        accuracy = self.accuracy
        if accuracy is None:
            return "no further seed has a result yet"
        if accuracy.low is None or accuracy.high is None:
            return f"{100 * accuracy.mean:.2f} % with one further seed, which gives no interval"
        return (
            f"mean over {accuracy.count} further seeds {100 * accuracy.mean:.2f} % "
            f"({100 * accuracy.level:g} % interval {100 * accuracy.low:.2f} to {100 * accuracy.high:.2f} %)"
        )

    @property
    def images(self) -> int:
        """How many validation images there are."""
        return sum(map(sum, self.searched.confusion_matrix))

    @property
    def image_error(self) -> float:
        """The standard error that the choice of validation images leaves, however many seeds there are."""
        return binomial_error(self.accuracy.mean if self.accuracy else self.searched.best_val_acc, self.images)


@dataclass(frozen=True)
class Comparison:
    """Two confirmed configurations, seed by seed on the same images."""

    first: Confirmed
    second: Confirmed
    seeds: tuple[int, ...]
    """Those both were trained with."""
    difference: Mean
    """Of ``best_val_acc``, first less second; its level leaves all comparisons together right 95 times in a hundred
    (Bonferroni)."""
    p: float
    """The chance of a difference at least this large were there none; for this comparison alone."""

    @property
    def is_decided(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and not low <= 0 <= high

    @property
    def meaning(self) -> str:
        """What the comparison says, in a sentence."""
        better, other = (self.first, self.second) if self.difference.mean >= 0 else (self.second, self.first)
        if self.is_decided:
            return f"over seeds, {better.model} {better.name} is better than {other.model} {other.name} on these images"
        return (
            f"{len(self.seeds)} seeds do not tell {self.first.model} {self.first.name} from "
            f"{self.second.model} {self.second.name}"
        )


def select_confirmed(candidates: Sequence[Candidate], confirmed: Sequence[Confirmed]) -> Selection:
    """Choose among confirmed trials by the same rule as ``select``, on the means over their further seeds.

    Args:
        candidates: The trials, as the search left them.
        confirmed: What their further seeds came to; trials without a mean are left out.
    """
    by_name = {found.name: found for found in confirmed}
    means = []
    for candidate in candidates:
        found = by_name.get(candidate.name)
        if found is None or found.accuracy is None or found.gap is None:
            continue
        accuracy, gap = found.accuracy.mean, found.gap.mean
        values = {"best_val_acc": accuracy, "train_acc": accuracy + gap, "train_val_gap": gap}
        record = replace(candidate.record, state=TrialState.COMPLETE)  # its further seeds are, even if it was pruned
        means.append(replace(candidate, record=record, result=candidate.result.model_copy(update=values)))
    return select(means)


def compare(confirmed: Sequence[Confirmed]) -> list[Comparison]:
    """Every pair that was measured on the same images with at least two seeds in common, by a paired t-test over seeds.

    The same seed means the same order of images and the same augmentation, and all are measured on the same validation
    images: that is what pairing takes out. What is said holds for these images; others bring an error of their own.
    """
    pairs = []
    for first, second in itertools.combinations(confirmed, 2):
        seeds = tuple(sorted(first.seeds.keys() & second.seeds.keys()))
        if first.data == second.data and first.images == second.images and len(seeds) > 1:
            pairs.append((first, second, seeds))
    comparisons = []
    for first, second, seeds in pairs:
        differences = [first.seeds[seed].best_val_acc - second.seeds[seed].best_val_acc for seed in seeds]
        difference = mean_interval(differences, level=1 - 0.05 / len(pairs))
        comparisons.append(Comparison(first, second, seeds, difference, t_test(difference)))
    return comparisons
