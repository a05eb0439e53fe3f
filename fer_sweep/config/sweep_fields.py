"""The scalars and lists of a sweep file: checked as W&B checks them, nothing turned into something else."""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError


def refusal(message: str, hint: str | None = None) -> PydanticCustomError:
    """An error of a validator whose ``hint`` reaches the reader of the file."""
    # Braces in what the user wrote are not placeholders.
    return PydanticCustomError("refused", "{message}", {"message": message, "hint": hint})


def number(value: Any) -> int | float:
    """A finite number as it is, whole ones staying integers; no text and no booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(f"{value!r} is not a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        raise refusal("the number is too large") from None
    if not finite:
        raise refusal(f"{value!r} is not a finite number")
    return value


def at_least_zero(value: Any) -> int | float:
    """A finite number that is not negative."""
    checked = number(value)
    if checked < 0:
        raise refusal(f"{value!r} is negative")
    return checked


def above_zero(value: Any) -> int | float:
    """A finite number greater than zero."""
    checked = number(value)
    if checked <= 0:
        raise refusal(f"{value!r} is not above zero")
    return checked


def whole(value: Any) -> int:
    """A whole number, 3.0 included."""
    checked = number(value)
    if checked != int(checked):
        raise refusal(f"{value!r} is not a whole number")
    return int(checked)


def _written_whole(value: Any) -> int:
    checked = number(value)
    if not isinstance(checked, int):
        raise refusal(f"{value!r} is not written as a whole number", "int_uniform takes whole numbers")
    return checked


def plain_list(value: Any) -> Any:
    """A list, and nothing that could pass for one."""
    if not isinstance(value, list):
        raise refusal(f"{value!r} is not a list")
    return value


Number = Annotated[int | float, PlainValidator(number)]
NotNegative = Annotated[int | float, PlainValidator(at_least_zero)]
Positive = Annotated[int | float, PlainValidator(above_zero)]
Whole = Annotated[int, PlainValidator(whole)]
WrittenWhole = Annotated[int, PlainValidator(_written_whole)]
Values = Annotated[tuple[Any, ...], BeforeValidator(plain_list), Field(min_length=1)]
