"""A parameter of a sweep file and the distribution that it stands for: one frozen model for both, equal to W&B's.

Each distribution has ``quantile(u)``, the inverse of its cumulative distribution over ``u`` in [0, 1]. A random draw
is the quantile of a uniform one, and a search without a native counterpart for a distribution can search over ``u``.
The quantiles are written out here: ``scipy.stats`` takes a second to import, and its last bits differ from those that
sweeps under way have drawn.
"""

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, Self, Union

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from fer_sweep.config import hints
from fer_sweep.config.values import NotNegative, Number, Positive, WrittenWhole, canonical, is_list, must, refusal

_TAIL = 1e-12
"""Tails are cut at this quantile, the normal's at 7 standard deviations, so that every u gives a finite value."""


class Distribution(BaseModel):
    """What every distribution has; subclasses have W&B's fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distribution: str | None = None

    def quantile(self, u: float) -> Any:
        """The value below which a draw falls with probability ``u``, in [0, 1], as a plain Python value."""
        raise NotImplementedError

    @property
    def possible(self) -> Sequence[Any] | None:
        """The values that can be drawn, in order, where they can be listed; duplicates (1 and 1.0) once."""
        return None

    @property
    def size(self) -> int | None:
        """Number of distinct values; None if it is infinite."""
        return None if self.possible is None else length(self.possible)

    def grid_values(self) -> Sequence[Any] | None:
        """W&B's values for a grid search, in order; None if the distribution has no grid."""
        return self.possible


def length(values: Sequence[Any]) -> int:
    """The ``len`` of a sequence; that of a range beyond 2**63 overflows."""
    return values.stop - values.start if isinstance(values, range) else len(values)


class Constant(Distribution):
    """``value: 3``."""

    value: Any

    def quantile(self, u: float) -> Any:
        """The value."""
        return self.value

    @property
    def possible(self) -> Sequence[Any]:
        """The value alone."""
        return (self.value,)


class Categorical(Distribution):
    """``values: [a, b]``, equally likely."""

    values: Annotated[tuple[Any, ...], is_list, Field(min_length=1)]

    def quantile(self, u: float) -> Any:
        """The value whose part of the unit interval holds ``u``."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    @property
    def chances(self) -> Sequence[float]:
        """The probability of each value, up to a common factor."""
        return (1.0,) * len(self.values)

    @property
    def possible(self) -> tuple[Any, ...]:
        """The distinct values whose probability is not zero."""
        distinct: dict[str, Any] = {}
        for value, chance in zip(self.values, self.chances, strict=True):
            if chance > 0:
                distinct.setdefault(canonical(value), value)
        return tuple(distinct.values())


class Weighted(Categorical):
    """``values: [a, b]`` with ``probabilities: [0.9, 0.1]``."""

    probabilities: Annotated[tuple[NotNegative, ...], is_list, Field(min_length=1)]

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        if len(self.values) != len(self.probabilities):
            raise refusal(f"{len(self.values)} values but {len(self.probabilities)} probabilities")
        total = sum(self.probabilities)
        if abs(total - 1.0) > 1e-5 + 1e-8:  # W&B's tolerance
            raise refusal(f"the probabilities sum to {total:g}, not to 1")
        return self

    def quantile(self, u: float) -> Any:
        """The value whose part of the unit interval, as long as its probability, holds ``u``."""
        ends = list(itertools.accumulate(self.probabilities))
        index = min(bisect.bisect_right(ends, u * ends[-1]), len(self.values) - 1)
        while not self.probabilities[index]:  # u = 1 lands behind the last value that can occur
            index -= 1
        return self.values[index]

    @property
    def chances(self) -> Sequence[float]:
        """The probabilities."""
        return self.probabilities

    def grid_values(self) -> None:
        """W&B has no grid over weighted values."""
        return None


class Range(Distribution):
    """From ``min`` to ``max``."""

    min: Number
    max: Number

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        low, high = self.min, self.max
        if low >= high:
            hint = f"one value only: write value: {low}" if low == high else "swap them"
            raise refusal(f"min {low} is not less than max {high}", hint)
        if not math.isfinite(float(high) - float(low)):
            raise refusal(f"from {low} to {high} is too wide")
        return self


class IntUniform(Range):
    """``min: 1, max: 5``, both written as integers; both are included."""

    min: WrittenWhole
    max: WrittenWhole

    def quantile(self, u: float) -> int:
        """The integer whose part of the unit interval holds ``u``."""
        return min(self.min + int(u * (self.max - self.min + 1)), self.max)

    @property
    def possible(self) -> Sequence[int]:
        """Every integer."""
        return range(self.min, self.max + 1)


class Uniform(Range):
    """``min: 0.0, max: 0.5``."""

    def quantile(self, u: float) -> float:
        """Linear in ``u``."""
        return min(max(float(self.min + u * (self.max - self.min)), self.min), self.max)


class LogUniform(Range):
    """``distribution: log_uniform_values, min: 0.0001, max: 0.1``: the logarithm is uniform."""

    min: Positive

    def quantile(self, u: float) -> float:
        """Linear in ``u`` on the log scale."""
        exponent = math.log(self.min) + u * (math.log(self.max) - math.log(self.min))
        return min(max(math.exp(exponent), float(self.min)), float(self.max))


class Normal(Distribution):
    """``distribution: normal``."""

    mu: Number = 0.0
    sigma: Annotated[Number, must(lambda value: value > 0, "is not above zero", "for one value write value:")] = 1.0

    def quantile(self, u: float) -> float:
        """Cut at seven standard deviations."""
        return self.mu + self.sigma * NormalDist().inv_cdf(min(max(u, _TAIL), 1 - _TAIL))


class LogNormal(Normal):
    """``distribution: log_normal``: the logarithm is normal."""

    def quantile(self, u: float) -> float:
        """The exponential of the normal's quantile; infinite where that is too large for a float."""
        try:
            return math.exp(super().quantile(u))
        except OverflowError:
            return math.inf


class Beta(Distribution):
    """``distribution: beta``, on [0, 1]."""

    a: Positive = 1
    b: Positive = 1

    def quantile(self, u: float) -> float:
        """The inverse of the regularized incomplete beta function."""
        from scipy.special import betaincinv  # slow: half a second to import

        return float(betaincinv(self.a, self.b, min(max(u, _TAIL), 1 - _TAIL)))


class Quantized(Distribution):
    """Multiples of ``q``: round(x / q) * q for a draw x of the other base class; may leave that one's bounds."""

    q: Positive = 1.0

    def quantile(self, u: float) -> int | float:
        """The nearest multiple of q, an integer if q is one; ties go to the even multiple."""
        value: float = super().quantile(u)
        ratio = value / self.q
        return round(ratio) * self.q if math.isfinite(ratio) else value

    @property
    def size(self) -> int | None:
        """Number of multiples of q that can be drawn; None if unbounded."""
        low, high = self.quantile(0.0) / self.q, self.quantile(1.0) / self.q
        has_bounds = math.isfinite(high - low) and not isinstance(self, Normal)
        return round(high) - round(low) + 1 if has_bounds else None


class QUniform(Quantized, Uniform):
    """``distribution: q_uniform, min: 0, max: 1, q: 0.25``."""

    @property
    def steps(self) -> float:
        """How many values its grid has, about."""
        return (self.max - self.min) / self.q

    def grid_values(self) -> Sequence[int | float]:
        """From min in steps of q, max excluded: W&B's grid, which differs from what sampling gives."""
        values: list[int | float] = np.arange(self.min, self.max, self.q).tolist()
        return values


class QLogUniform(Quantized, LogUniform):
    """``distribution: q_log_uniform_values, min: 16, max: 512, q: 16``."""


class QNormal(Quantized, Normal):
    """``distribution: q_normal``."""


class QLogNormal(Quantized, LogNormal):
    """``distribution: q_log_normal``."""


class QBeta(Quantized, Beta):
    """``distribution: q_beta``."""


class Nested(BaseModel):
    """``parameters:`` in a parameter: a group of parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: "Parameters"


FORMS: dict[str, type[Distribution] | type[Nested]] = {
    "constant": Constant,
    "categorical": Categorical,
    "categorical_w_probabilities": Weighted,
    "int_uniform": IntUniform,
    "uniform": Uniform,
    "log_uniform_values": LogUniform,
    "inv_log_uniform_values": LogUniform,
    "q_uniform": QUniform,
    "q_log_uniform_values": QLogUniform,
    "normal": Normal,
    "log_normal": LogNormal,
    "q_normal": QNormal,
    "q_log_normal": QLogNormal,
    "beta": Beta,
    "q_beta": QBeta,
    "nested": Nested,
}
"""Every form by W&B's name of its distribution, and ``nested``."""

_REPLACED = {name: f"{name}_values" for name in ("log_uniform", "inv_log_uniform", "q_log_uniform")}
"""Distributions whose bounds are exponents; W&B refuses them in favor of those whose bounds are the values."""


def form_of(raw: Any) -> str | None:
    """The name of the form that a parameter is written in, a key of FORMS; None if it is in none.

    >>> form_of({"min": 0, "max": 1}), form_of({"min": 0, "max": 1.0})
    ('int_uniform', 'uniform')
    """
    if not isinstance(raw, Mapping):
        return None
    if "parameters" in raw:
        return "nested"
    if "distribution" in raw:
        named = raw["distribution"]
        return named if isinstance(named, str) and named in FORMS and named != "nested" else None
    if "values" in raw:
        return "categorical_w_probabilities" if "probabilities" in raw else "categorical"
    if "value" in raw:
        return "constant"
    if "min" in raw or "max" in raw:
        bounds = [raw[name] for name in ("min", "max") if name in raw]
        return "uniform" if any(isinstance(bound, float) for bound in bounds) else "int_uniform"
    return None


def _recognized(raw: Any) -> Any:
    if form_of(raw) is not None:
        return raw
    if not isinstance(raw, Mapping):
        raise refusal("is empty" if raw is None else f"{raw!r} is not a parameter", hints.parameter(raw))
    if "distribution" not in raw:
        raise refusal("has no values", hints.parameter(raw))
    named = str(raw["distribution"])
    if named in _REPLACED:
        hint = f"use {_REPLACED[named]}, whose min and max are the values themselves"
        raise refusal(f"{named} is deprecated: its min and max are exponents of e", hint)
    known = [name for name in FORMS if name != "nested"]
    near = hints.distribution(named, [*known, *_REPLACED])
    hint = f"did you mean {_REPLACED.get(near, near)}?" if near else f"one of {', '.join(known)}"
    raise refusal(f"no such distribution: {named!r}", hint)


if TYPE_CHECKING:
    Parameter = Distribution | Nested
else:
    Parameter = Annotated[
        Union[tuple(Annotated[form, Tag(name)] for name, form in FORMS.items())],  # noqa: UP007 made from a table
        Discriminator(form_of),
        BeforeValidator(_recognized),
    ]

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", strict=True)]
Parameters = Annotated[dict[Name, Parameter], Field(min_length=1)]

Nested.model_rebuild()
