"""Problems of a written file: what is wrong, at which key and line, and what to do about it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fer_sweep.config import hints
from fer_sweep.config.parameters import FORMS, form_of
from fer_sweep.config.trial import suggest
from fer_sweep.errors import Problem

_EXAMPLES = {
    "method": "bayes, random, grid or custom",
    "metric.name": "such as best_val_acc",
    "early_terminate.type": "write type: hyperband",
    "scheduler.engine": "write engine: optuna",
}
_TYPES = {
    "string_type": "is not text",
    "bool_type": "is not true or false",
    "dict_type": "is not a dictionary",
    "model_type": "is not a dictionary",
    "model_attributes_type": "is not a dictionary",
}


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """One problem for every error that pydantic found in the input of ``root``."""
    return [_problem(item, root) for item in error.errors()]


def in_file_order(problems: Iterable[Problem], lines: Mapping[str, int] | None) -> list[Problem]:
    """The problems with their lines, in order; a missing key has the line of the nearest key around it."""
    placed = [Problem(p.message, p.key, p.line or _line_of(p.key, lines or {}), p.hint) for p in problems]
    return sorted(placed, key=lambda problem: problem.line or 0)


def _line_of(key: str, lines: Mapping[str, int]) -> int | None:
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return lines.get(key)


def _problem(item: Any, root: type[BaseModel]) -> Problem:
    path, model, form = _walk(item["loc"], root)
    key = ".".join(path)
    kind, given, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "refused":
        return Problem(context["message"], key=key, hint=context["hint"])
    if kind == "missing":
        needed = [name for name, info in model.model_fields.items() if info.is_required()]
        return Problem("missing", key=key, hint=f"{form} needs {' and '.join(needed)}" if form else _EXAMPLES.get(key))
    if kind == "extra_forbidden":
        known = list(model.model_fields)
        what = f"{form} takes no {path[-1]}" if form else "no such key"
        return Problem(what, key=key, hint=_hint_for_unknown(path[-1], given, form, known, is_top=model is root))
    if kind == "literal_error":
        choices = re.findall("'([^']*)'", context["expected"])
        hint = suggest(str(given), choices) or f"one of {', '.join(choices)}"
        return Problem(f"{given!r} is not allowed", key=key, hint=hint)
    if kind == "too_short":
        least = "one entry" if context["min_length"] == 1 else f"{context['min_length']} entries"
        return Problem(f"needs at least {least}", key=key)
    if kind == "string_pattern_mismatch" or "[key]" in item["loc"]:
        hint = "a letter or _ first, then letters, digits, _ . and -"
        return Problem(f"{given!r} is not a valid parameter name", key=key, hint=hint)
    return Problem(
        f"{given!r} {_TYPES[kind]}" if kind in _TYPES else item["msg"], key=key, hint=hints.wrong_type(key, given)
    )


def _hint_for_unknown(name: str, given: Any, form: str | None, known: list[str], *, is_top: bool) -> str:
    if form and name == "q":
        quantized = "q_uniform" if form == "int_uniform" else f"q_{form}"
        return f"q belongs to {quantized}" if quantized in FORMS else f"remove it: {form} has no steps"
    meant = hints.unknown_key(name) if is_top and "parameters" in known else None
    misplaced = "move it under parameters:" if is_top and form_of(given) else None
    return meant or misplaced or suggest(name, known) or f"one of {', '.join(known)}"


def _walk(loc: Sequence[Any], root: type[BaseModel]) -> tuple[list[str], type[BaseModel], str | None]:
    """The dotted path of an error, the model that its last step belongs to, and the form if it is in a parameter."""
    path: list[str] = []
    model, form = root, None
    for step in loc:
        if step in FORMS and path[-2:-1] == ["parameters"]:  # pydantic's tag of the form, after the parameter's name
            model, form = FORMS[step], step if step != "nested" else None
        elif step != "[key]":
            path.append(str(step))
            info = model.model_fields.get(path[-1])
            model = (info and _model_in(info.annotation)) or model
    return path, model, form


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
