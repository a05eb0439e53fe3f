"""Confirmation of winners with further seeds, and comparison of two of them. Pure.

The accuracy of a trial that a search chose is too high on average, as the best of many noisy measurements, so the seed
of the search is left out of these means. Each further seed still selects its best epoch on the validation images; only
the test split, opened once, is free of that.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fer_sweep.formatting import percent
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
    """The fingerprint of the data set, or its name if the fingerprint is unknown."""
    searched: TrialResult
    """Its result in the search."""
    seeds: Mapping[int, TrialResult]
    """The result of each further seed."""

    @property
    def accuracy(self) -> Mean | None:
        """The mean of ``best_val_acc`` over the seeds; None without seeds."""
        return self._mean("best_val_acc")

    @property
    def clean(self) -> Mean | None:
        """The mean of ``val_acc_clean``."""
        return self._mean("val_acc_clean")

    @property
    def gap(self) -> Mean | None:
        """The mean of ``train_val_gap``."""
        return self._mean("train_val_gap")

    def _mean(self, metric: str) -> Mean | None:
        return mean_interval([getattr(result, metric) for result in self.seeds.values()]) if self.seeds else None

    @property
    def optimism(self) -> float | None:
        """How much the accuracy in the search exceeds the mean over the further seeds."""
        return None if self.accuracy is None else self.searched.best_val_acc - self.accuracy.mean

    @property
    def against_search(self) -> str:
        """Its accuracy in the search, against the mean over the further seeds; empty without seeds."""
        if self.optimism is None:
            return ""
        searched = percent(self.searched.best_val_acc)
        return f"in the search it had {searched}, {100 * self.optimism:+.2f} points against the mean"

    @property
    def summary(self) -> str:
        """The results of the further seeds as text."""
        accuracy = self.accuracy
        if accuracy is None:
            return "no further seed has a result yet"
        lost = sum(not result.verdict.may_win for result in self.seeds.values())
        failed = f"; {lost} of {accuracy.count} collapsed or diverged" if lost else ""
        if accuracy.low is None or accuracy.high is None:
            return f"{percent(accuracy.mean)} with one further seed, which gives no interval{failed}"
        return (
            f"mean over {accuracy.count} further seeds {percent(accuracy.mean)} "
            f"({100 * accuracy.level:g} % interval {100 * accuracy.low:.2f} to {percent(accuracy.high)}){failed}"
        )

    @property
    def images(self) -> int:
        """How many validation images there are."""
        return sum(map(sum, self.searched.confusion_matrix))

    @property
    def image_error(self) -> float:
        """The standard error due to the choice of validation images, independent of the number of seeds."""
        return binomial_error(self.accuracy.mean if self.accuracy else self.searched.best_val_acc, self.images)


@dataclass(frozen=True)
class Comparison:
    """Two confirmed configurations, seed by seed on the same images."""

    first: Confirmed
    second: Confirmed
    seeds: tuple[int, ...]
    """The seeds that both were trained with."""
    difference: Mean
    """Of ``best_val_acc``, first minus second; 95 % for all comparisons together (Bonferroni)."""
    p: float
    """The p-value of this comparison alone."""

    @property
    def is_decided(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and not low <= 0 <= high

    @property
    def better_first(self) -> tuple[Confirmed, Confirmed]:
        """Both, the one with the higher mean first."""
        return (self.first, self.second) if self.difference.mean >= 0 else (self.second, self.first)

    @property
    def meaning(self) -> str:
        """The result of the comparison, in a sentence."""
        better, other = self.better_first
        if self.is_decided:
            return f"over seeds, {better.model} {better.name} is better than {other.model} {other.name} on these images"
        return (
            f"{len(self.seeds)} seeds cannot tell {self.first.model} {self.first.name} from "
            f"{self.second.model} {self.second.name}"
        )


def select_confirmed(candidates: Sequence[Candidate], confirmed: Sequence[Confirmed]) -> Selection:
    """Choose among confirmed trials by the same rule as ``select``, on the means over their further seeds.

    Args:
        candidates: The trials, as the search left them.
        confirmed: The results of their further seeds; trials without a mean are left out.
    """
    by_name = {found.name: found for found in confirmed}
    means = []
    for candidate in candidates:
        found = by_name.get(candidate.name)
        if found is None or found.accuracy is None or found.gap is None:
            continue
        accuracy, gap = found.accuracy.mean, found.gap.mean
        values = {"best_val_acc": accuracy, "train_acc": accuracy + gap, "train_val_gap": gap}
        # Its further seeds are complete, even if it was pruned.
        record = replace(candidate.record, state=TrialState.COMPLETE)
        means.append(replace(candidate, record=record, result=candidate.result.model_copy(update=values)))
    return select(means)


def compare(confirmed: Sequence[Confirmed]) -> list[Comparison]:
    """Compare every pair with the same images and at least two common seeds, by a paired t-test over seeds.

    The same seed means the same order of images and the same augmentation, and the validation images are the same;
    pairing removes the variance of both. The result holds for these images only.
    """
    pairs = [
        (first, second, seeds)
        for first, second in itertools.combinations(confirmed, 2)
        if (first.data, first.images) == (second.data, second.images)
        and len(seeds := tuple(sorted(first.seeds.keys() & second.seeds.keys()))) > 1
    ]
    comparisons = []
    for first, second, seeds in pairs:
        differences = [first.seeds[seed].best_val_acc - second.seeds[seed].best_val_acc for seed in seeds]
        difference = mean_interval(differences, level=1 - 0.05 / len(pairs))
        comparisons.append(Comparison(first, second, seeds, difference, t_test(difference)))
    return comparisons
