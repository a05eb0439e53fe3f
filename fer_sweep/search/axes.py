"""W&B's distributions as Optuna sees them: native where Optuna has the same one, otherwise the unit interval.

Searching over u in [0, 1] and training with ``quantile(u)`` serves normal, log-normal, beta and all quantized
distributions exactly: a flat prior over u is W&B's prior over the values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from fer_sweep.config.parameters import Categorical, Distribution, IntUniform, LogUniform, Quantized, Uniform
from fer_sweep.config.values import canonical
from fer_sweep.search.sampling import unit_of

_MOST_OTHERS = 1000
"""Trials that TPE compares the best ones with."""

Coordinate = float | int | str | bool | None
"""A parameter's value as Optuna sees it: the value itself, the index of a category such as a list, or u."""


@dataclass(frozen=True)
class Axis:
    """One parameter that is searched."""

    source: Distribution
    native: BaseDistribution

    def coordinate(self, u: float) -> Coordinate:
        """The coordinate of the source's quantile of ``u``."""
        if isinstance(self.source, Categorical):
            wanted = canonical(self.source.quantile(u))
            index = [canonical(value) for value in self.source.possible].index(wanted)
            return _choices(self.source)[index]
        if _is_range(self.source):
            return cast("float", self.source.quantile(u))
        return u

    def locate(self, value: Any) -> Coordinate:
        """The coordinate of a value that the source can give."""
        if isinstance(self.source, Categorical):
            index = [canonical(possible) for possible in self.source.possible].index(canonical(value))
            return _choices(self.source)[index]
        return value if _is_range(self.source) else unit_of(self.source, value)

    def value(self, coordinate: Coordinate) -> Any:
        """The value to train with."""
        if isinstance(self.source, Categorical):
            return self.source.possible[_choices(self.source).index(coordinate)]
        if _is_range(self.source):
            return coordinate
        return self.source.quantile(cast("float", coordinate))


def axes_of(parameters: Mapping[str, Distribution]) -> dict[str, Axis]:
    """The axes of all parameters with more than one value; a constant is no parameter to Optuna."""
    natives = {name: _native(source) for name, source in parameters.items() if source.size != 1}
    return {name: Axis(parameters[name], native) for name, native in natives.items() if not native.single()}


def _native(source: Distribution) -> BaseDistribution:
    if isinstance(source, Categorical):
        return CategoricalDistribution(_choices(source))
    if isinstance(source, IntUniform):
        return IntDistribution(source.min, source.max)
    if isinstance(source, Uniform | LogUniform) and _is_range(source):
        return FloatDistribution(source.min, source.max, log=isinstance(source, LogUniform))
    return FloatDistribution(0.0, 1.0)


def _is_range(source: Distribution) -> bool:
    """Whether Optuna has the distribution itself."""
    return isinstance(source, IntUniform | Uniform | LogUniform) and not isinstance(source, Quantized)


def _choices(source: Categorical) -> Sequence[Coordinate]:
    # Optuna stores plain scalars only, and cannot tell True from 1.
    values = source.possible
    is_plain = all(value is None or isinstance(value, bool | int | float | str) for value in values)
    return values if is_plain and len(set(values)) == len(values) else range(len(values))


class Tpe(TPESampler):
    """Optuna's multivariate TPE (Bergstra et al. 2011, Falkner et al. 2018) over known axes.

    W&B's own bayes search is a Gaussian process with expected improvement: another algorithm under the same contract.
    The first ten trials are drawn from W&B's distributions, probabilities of categories included; after that,
    categories are equally likely a priori and their results decide.
    """

    def __init__(self, axes: Mapping[str, Axis], seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._axes = axes
        self._draws = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All axes; TPE's own way derives them from every trial anew."""
        return {name: axis.native for name, axis in self._axes.items()}

    def _build_parzen_estimator(
        self, study: Study, search_space: dict[str, BaseDistribution], trials: list[FrozenTrial], handle_below: bool
    ) -> Any:
        # The trials that are not among the best (at most 25) only say where most trials lie, and a thousand of them say
        # that as well as ten thousand, which would slow down every proposal. Not a public method: should Optuna rename
        # it, proposals take longer and are otherwise the same.
        if not handle_below and len(trials) > _MOST_OTHERS:
            trials = [trials[place] for place in np.linspace(0, len(trials) - 1, _MOST_OTHERS).astype(int)]
        return super()._build_parzen_estimator(study, search_space, trials, handle_below)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Only called while there are too few results for TPE, unless the parameter is a user's own."""
        if param_name in self._axes:
            return self._axes[param_name].coordinate(self._draws.random())
        return super().sample_independent(study, trial, param_name, param_distribution)
