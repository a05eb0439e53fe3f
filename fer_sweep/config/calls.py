"""Arguments of the Python API, checked before a call: a wrong one is an InputError that says what would be right."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fer_sweep.config.trial import suggest
from fer_sweep.errors import InputError
from fer_sweep.formatting import plain

P = ParamSpec("P")
R = TypeVar("R")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def checked_call(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function's arguments checked against its annotations, as ``check_call`` does."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True  # by IPython: the user's own line stands above the message
        check_call(function, *args, **kwargs)
        return function(*args, **kwargs)

    return call


def check_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Check that a function takes these arguments; nothing is converted, and what has no annotation may be anything.

    Raises:
        InputError: There is no such argument, or it has another type; the hint is its line in the docstring.
    """
    __tracebackhide__ = True
    name = function.__name__
    function = inspect.unwrap(function)
    signature = inspect.signature(function)
    known = [given.name for given in signature.parameters.values() if given.kind in _NAMED and given.name != "self"]
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        wrong = next((word for word in kwargs if word not in known), "")
        hint = (wrong and suggest(wrong, known)) or f"its arguments: {', '.join(known)}"
        raise InputError(f"{name}: {error}", hint=hint) from None
    for argument, value in bound.arguments.items():
        parameter = signature.parameters[argument]
        if parameter.annotation is parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
            continue
        adapter = _adapter(parameter.annotation)
        for item in value if parameter.kind is parameter.VAR_POSITIONAL else [value]:
            try:
                adapter.validate_python(item)
            except ValidationError:
                line = re.search(rf"^ +\**{argument}: (.+)$", function.__doc__ or "", flags=re.MULTILINE)
                hint = f"{argument}: {line[1]}" if line else f"help(fer_sweep.{name})"
                shown = plain(repr(item), 60)
                raise InputError(f"{name}: {argument} cannot be {shown}", hint=hint.replace("``", "")) from None


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=_STRICT)
