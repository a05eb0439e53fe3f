"""What the models of written files share: their base, their types of values, and when two values are the same.

Nothing is coerced: a value is accepted as it is or refused.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from fer_sweep.config.hints import as_list, unquoted


def refusal(message: str, hint: str | None = None) -> PydanticCustomError:
    """An error for a validator to raise, whose ``hint`` reaches the reader of the file."""
    # Braces in what the user wrote are not placeholders.
    return PydanticCustomError("refused", "{message}", {"message": message, "hint": hint})


class Written(BaseModel):
    """A part of a written file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_given(cls, value: Any) -> Any:
        # W&B refuses an empty key, which a default would hide.
        if value is None:
            raise refusal("is empty", "give it a value or remove the line")
        return value


def must(accepts: Callable[[Any], object], message: str, hint: str | None = None) -> AfterValidator:
    """A validator that refuses every value that ``accepts`` is false for, as "VALUE message"."""

    def check(value: Any) -> Any:
        if not accepts(value):
            raise refusal(f"{value!r} {message}", hint)
        return value

    return AfterValidator(check)


def between(least: int, most: int) -> AfterValidator:
    """A validator of numbers from ``least`` to ``most``, both included."""
    return must(lambda value: least <= value <= most, f"is not from {least} to {most}")


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(f"{value!r} is not a number", unquoted(value))
    try:
        finite = math.isfinite(value)
    except OverflowError:
        raise refusal("the number is too large") from None
    if not finite:
        raise refusal(f"{value!r} is not a finite number")
    return value


def _list(value: Any, info: ValidationInfo) -> list[Any]:
    if not isinstance(value, list):
        raise refusal(f"{value!r} is not a list", as_list(info.field_name, value))
    return value


Number = Annotated[int | float, PlainValidator(_number)]
"""A finite number, integers staying integers; no text and no booleans."""
NotNegative = Annotated[Number, must(lambda value: value >= 0, "is negative")]
Positive = Annotated[Number, must(lambda value: value > 0, "is not above zero")]
Whole = Annotated[
    int, PlainValidator(_number), must(lambda value: value == int(value), "is not a whole number"), AfterValidator(int)
]
"""3.0 is whole."""
WrittenWhole = Annotated[
    int,
    PlainValidator(_number),
    must(lambda value: isinstance(value, int), "is not written as a whole number", "int_uniform takes whole numbers"),
]
PositiveWhole = Annotated[Whole, must(lambda value: value >= 1, "is not 1 or more")]
Text = Annotated[str, Field(strict=True)]
is_list = BeforeValidator(_list)
"""A list, and no other sequence."""


def canonical(value: Any) -> str:
    """Text that is equal for values that mean the same: 1 and 1.0, keys in any order; but True is not 1.

    >>> canonical({"b": 1.0, "a": [True]}) == canonical({"a": [True], "b": 1})
    True
    >>> canonical(True) == canonical(1)
    False
    """
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{canonical(key)}:{canonical(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return repr(int(value))
    return repr(value)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, which True is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
