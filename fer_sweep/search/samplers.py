"""Optuna's samplers over axes that are known beforehand.

Until they have results enough, all of them draw from W&B's distributions, probabilities of categories included; after
that, categories are equally likely a priori and their results decide. W&B's own bayes search is a Gaussian process with
expected improvement: another algorithm under the same contract.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from fer_sweep.search.axes import Axis

LEARN_FROM_PRUNED = ("tpe", "own")
"""These learn from the epochs of a pruned trial. The others ignore such a trial, and would propose its like again, so
they are told of it as complete, with the value that it reached."""
STATEFUL = ("cmaes",)
"""These keep their state in the attributes of Optuna's trials, so the memos of our trials have them."""
_MOST_OTHERS = 1000
"""Trials that TPE compares the best ones with."""


class _KnownAxes(BaseSampler):
    """What a sampler does with axes, before that of Optuna in the order of its classes."""

    _axes: Mapping[str, Axis]
    _draws: np.random.Generator

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All axes; Optuna's own way derives them from every trial anew."""
        return {name: axis.native for name, axis in self._axes.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Only called for what the algorithm does not decide, as while there are too few results."""
        if param_name in self._axes:
            return self._axes[param_name].coordinate(self._draws.random())
        # Abstract in the base, but the next class in the order has it.
        return super().sample_independent(study, trial, param_name, param_distribution)  # type: ignore[safe-super]


class Tpe(_KnownAxes, TPESampler):
    """Multivariate TPE (Bergstra et al. 2011, Falkner et al. 2018), after ten random trials."""

    def __init__(self, axes: Mapping[str, Axis], seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._axes = axes
        self._draws = np.random.default_rng(seed)

    def _build_parzen_estimator(
        self, study: Study, search_space: dict[str, BaseDistribution], trials: list[FrozenTrial], handle_below: bool
    ) -> Any:
        # The trials that are not among the best (at most 25) only say where most trials lie, and a thousand of them say
        # that as well as ten thousand, which would slow down every proposal. Not a public method: should Optuna rename
        # it, proposals take longer and are otherwise the same.
        if not handle_below and len(trials) > _MOST_OTHERS:
            trials = [trials[place] for place in np.linspace(0, len(trials) - 1, _MOST_OTHERS).astype(int)]
        return super()._build_parzen_estimator(study, search_space, trials, handle_below)


class Gp(_KnownAxes, GPSampler):
    """A Gaussian process with log expected improvement (Ament et al. 2023), after ten random trials; imports torch."""

    def __init__(self, axes: Mapping[str, Axis], seed: int) -> None:
        super().__init__(seed=seed)
        self._axes = axes
        self._draws = np.random.default_rng(seed)


class CmaEs(_KnownAxes, CmaEsSampler):
    """CMA-ES (Hansen and Ostermeier 2001), after one random trial; categories are drawn at random throughout."""

    def __init__(self, axes: Mapping[str, Axis], seed: int) -> None:
        super().__init__(seed=seed)
        self._axes = axes
        self._draws = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The axes with an order and a distance."""
        axes = super().infer_relative_search_space(study, trial)
        return {name: native for name, native in axes.items() if not isinstance(native, CategoricalDistribution)}


_SAMPLERS: dict[str, Callable[[Mapping[str, Axis], int], BaseSampler]] = {"tpe": Tpe, "gp": Gp, "cmaes": CmaEs}


def make_sampler(name: str, axes: Mapping[str, Axis], seed: int) -> BaseSampler:
    """The sampler of this name over some axes."""
    return _SAMPLERS[name](axes, seed)
