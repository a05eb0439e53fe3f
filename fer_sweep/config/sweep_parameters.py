"""The forms a parameter of a sweep file may take, as frozen models, which ``config.space`` turns into distributions.

A form is recognised as W&B does it: by ``parameters``, by a named ``distribution``, by ``value`` or ``values``
(with ``probabilities``), or by ``min`` and ``max``, which mean integers if both are written as integers.
"""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from fer_sweep.config.sweep_fields import NotNegative, Number, Positive, Values, WrittenWhole, plain_list, refusal

REPLACED = {
    "log_uniform": "log_uniform_values",
    "inv_log_uniform": "inv_log_uniform_values",
    "q_log_uniform": "q_log_uniform_values",
}
"""Distributions whose bounds are exponents; W&B refuses them in favour of those whose bounds are the values."""


class Form(BaseModel):
    """What the forms share."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ConstantForm(Form):
    """``value: 3``."""

    value: Any
    distribution: Literal["constant"] = "constant"


class CategoricalForm(Form):
    """``values: [a, b]``."""

    values: Values
    distribution: Literal["categorical"] = "categorical"


class WeightedForm(Form):
    """``values: [a, b]`` with ``probabilities: [0.9, 0.1]``."""

    values: Values
    probabilities: Annotated[tuple[NotNegative, ...], BeforeValidator(plain_list), Field(min_length=1)]
    distribution: Literal["categorical_w_probabilities"] = "categorical_w_probabilities"

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if len(self.values) != len(self.probabilities):
            raise refusal(f"{len(self.values)} values but {len(self.probabilities)} probabilities")
        total = sum(self.probabilities)
        if abs(total - 1.0) > 1e-5 + 1e-8:  # W&B's tolerance
            raise refusal(f"the probabilities sum to {total:g}, not to 1")
        return self


class _Range(Form):
    @model_validator(mode="after")
    def _ascending(self) -> Self:
        low, high = self.min, self.max  # type: ignore[attr-defined]
        if low >= high:
            raise refusal(
                f"min {low} is not less than max {high}",
                f"one value only: write value: {low}" if low == high else "swap them",
            )
        if not math.isfinite(float(high) - float(low)):
            raise refusal(f"from {low} to {high} is too wide")
        return self


class IntUniformForm(_Range):
    """``min: 1, max: 5``, both written as integers."""

    min: WrittenWhole
    max: WrittenWhole
    distribution: Literal["int_uniform"] = "int_uniform"


class UniformForm(_Range):
    """``min: 0.0, max: 0.5``."""

    min: Number
    max: Number
    distribution: Literal["uniform"] = "uniform"


class LogUniformForm(_Range):
    """``distribution: log_uniform_values, min: 0.0001, max: 0.1``."""

    min: Positive
    max: Number
    distribution: Literal["log_uniform_values", "inv_log_uniform_values"]


class QUniformForm(_Range):
    """``distribution: q_uniform, min: 0, max: 1, q: 0.25``."""

    min: Number
    max: Number
    q: Positive = 1.0
    distribution: Literal["q_uniform"]


class QLogUniformForm(_Range):
    """``distribution: q_log_uniform_values, min: 16, max: 512, q: 16``."""

    min: Positive
    max: Number
    q: Positive = 1.0
    distribution: Literal["q_log_uniform_values"]


class _Bell(Form):
    mu: Number = 0.0
    sigma: NotNegative = 1.0

    @field_validator("sigma")
    @classmethod
    def _spreads(cls, value: int | float) -> int | float:
        if value == 0:
            raise refusal("a sigma of 0 leaves nothing to draw", "for one value write value:")
        return value


class NormalForm(_Bell):
    """``distribution: normal``."""

    distribution: Literal["normal"]


class LogNormalForm(_Bell):
    """``distribution: log_normal``."""

    distribution: Literal["log_normal"]


class QNormalForm(_Bell):
    """``distribution: q_normal``."""

    q: Positive = 1.0
    distribution: Literal["q_normal"]


class QLogNormalForm(_Bell):
    """``distribution: q_log_normal``."""

    q: Positive = 1.0
    distribution: Literal["q_log_normal"]


class _BetaShape(Form):
    a: NotNegative = 1
    b: NotNegative = 1

    @field_validator("a", "b")
    @classmethod
    def _has_a_shape(cls, value: int | float) -> int | float:
        if value == 0:
            raise refusal("there is no beta distribution with a or b of 0")
        return value


class BetaForm(_BetaShape):
    """``distribution: beta``."""

    distribution: Literal["beta"]


class QBetaForm(_BetaShape):
    """``distribution: q_beta``."""

    q: Positive = 1.0
    distribution: Literal["q_beta"]


class NestedForm(Form):
    """``parameters:`` in a parameter: a dictionary of parameters."""

    parameters: "Parameters"


FORMS: dict[str, type[Form]] = {
    "constant": ConstantForm,
    "categorical": CategoricalForm,
    "categorical_w_probabilities": WeightedForm,
    "int_uniform": IntUniformForm,
    "uniform": UniformForm,
    "log_uniform_values": LogUniformForm,
    "inv_log_uniform_values": LogUniformForm,
    "q_uniform": QUniformForm,
    "q_log_uniform_values": QLogUniformForm,
    "normal": NormalForm,
    "log_normal": LogNormalForm,
    "q_normal": QNormalForm,
    "q_log_normal": QLogNormalForm,
    "beta": BetaForm,
    "q_beta": QBetaForm,
    "nested": NestedForm,
}
"""Every form by the name of its distribution, and ``nested``."""


def form_of(raw: Any) -> str | None:
    """The name of the form a parameter is written in; None if it is in none.

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


def _recognised(raw: Any) -> Any:
    if form_of(raw) is not None:
        return raw
    if not isinstance(raw, Mapping):
        wanted = f"values: {raw}" if isinstance(raw, list) else f"value: {raw}"
        raise refusal(f"{raw!r} is not a parameter", f"write {wanted}" if raw is not None else "give value: or values:")
    if "distribution" not in raw:
        raise refusal("says nothing about its values", "give value, values, min and max, or a distribution")
    named = str(raw["distribution"])
    if named in REPLACED:
        raise refusal(
            f"{named} is deprecated: its min and max are exponents of e",
            f"use {REPLACED[named]}, whose min and max are the values themselves",
        )
    known = [name for name in FORMS if name != "nested"]
    near = get_close_matches(named, [*known, *REPLACED], n=1)
    hint = f"did you mean {REPLACED.get(near[0], near[0])}?" if near else f"one of {', '.join(known)}"
    raise refusal(f"no such distribution: {named!r}", hint)


Parameter = Annotated[
    Annotated[ConstantForm, Tag("constant")]
    | Annotated[CategoricalForm, Tag("categorical")]
    | Annotated[WeightedForm, Tag("categorical_w_probabilities")]
    | Annotated[IntUniformForm, Tag("int_uniform")]
    | Annotated[UniformForm, Tag("uniform")]
    | Annotated[LogUniformForm, Tag("log_uniform_values")]
    | Annotated[LogUniformForm, Tag("inv_log_uniform_values")]
    | Annotated[QUniformForm, Tag("q_uniform")]
    | Annotated[QLogUniformForm, Tag("q_log_uniform_values")]
    | Annotated[NormalForm, Tag("normal")]
    | Annotated[LogNormalForm, Tag("log_normal")]
    | Annotated[QNormalForm, Tag("q_normal")]
    | Annotated[QLogNormalForm, Tag("q_log_normal")]
    | Annotated[BetaForm, Tag("beta")]
    | Annotated[QBetaForm, Tag("q_beta")]
    | Annotated[NestedForm, Tag("nested")],
    Discriminator(form_of),
    BeforeValidator(_recognised),
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", strict=True)]
Parameters = Annotated[dict[Name, Parameter], Field(min_length=1)]

NestedForm.model_rebuild()
