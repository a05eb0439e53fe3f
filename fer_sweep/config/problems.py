"""Problems of a file that a person wrote: what is wrong, at which key and line, and what to do about it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fer_sweep.config.parameters import FORMS, form_of
from fer_sweep.config.trial import suggest
from fer_sweep.errors import Problem

_ENGINE_METHODS = {"wandb": ("grid", "bayes", "random"), "optuna": ("custom",), "ax": ("custom",)}
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


def rule_problems(data: Mapping[Any, Any]) -> Iterator[Problem]:
    """Problems of a sweep's top-level keys that are valid by themselves but contradict each other."""
    method, scheduler = data.get("method"), data.get("scheduler")
    if "parameters" not in data and not (isinstance(scheduler, Mapping) and scheduler.get("search_space")):
        yield Problem("missing: the search space", key="parameters")
    if "metric" in data and "metrics" in data:
        yield Problem("cannot be combined with metric", key="metrics", hint="keep metric for one objective")
    elif "metrics" in data and method not in ("custom", None):
        hint = "write method: custom and scheduler: {engine: optuna}"
        yield Problem(f"several objectives need method custom, not {method}", key="metrics", hint=hint)
    stopping = data.get("early_terminate")
    if isinstance(stopping, Mapping) and "min_iter" not in stopping and not {"max_iter", "s"} <= stopping.keys():
        yield Problem("has no bands", key="early_terminate", hint="give min_iter, or max_iter and s")
    if not isinstance(scheduler, Mapping):
        return
    controller, engine = data.get("controller"), scheduler.get("engine")
    if isinstance(controller, Mapping) and controller.get("type") == "local":
        hint = "keep one of them"
        yield Problem("a local controller cannot be combined with scheduler", key="controller", hint=hint)
    if "early_terminate" in data:
        hint = "the scheduler stops runs itself: remove early_terminate"
        yield Problem("cannot be combined with scheduler", key="early_terminate", hint=hint)
    methods = _ENGINE_METHODS.get(engine) if isinstance(engine, str) else None
    if methods and method not in methods:
        hint = f"method: {methods[0]}"
        yield Problem(f"{engine} does not support method {method}", key="scheduler.engine", hint=hint)
    for name in ("optimizer", "search_space"):
        if name in scheduler and "source" not in scheduler:
            yield Problem("needs source, the file that defines it", key=f"scheduler.{name}")


def empty_keys(data: Mapping[Any, Any]) -> list[Problem]:
    """Keys without a value, which W&B refuses and a default would hide."""
    sections: list[tuple[str, Any]] = [("", data)]
    sections += [(f"{name}.", data.get(name)) for name in ("metric", "scheduler", "early_terminate")]
    metrics = data.get("metrics")
    sections += [(f"metrics.{i}.", metric) for i, metric in enumerate(metrics if isinstance(metrics, list) else [])]
    return [
        Problem("is empty", key=f"{prefix}{name}", hint="give it a value or remove the line")
        for prefix, section in sections
        if isinstance(section, Mapping)
        for name, value in section.items()
        if value is None
    ]


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """One problem for every error that pydantic found in the input of ``root``."""
    return [_problem(item, root) for item in error.errors()]


def in_file_order(problems: Sequence[Problem], lines: Mapping[str, int]) -> list[Problem]:
    """The problems with their lines, in order; a missing key has the line of the nearest key around it."""
    placed = [Problem(p.message, p.key, p.line or line_of(p.key, lines), p.hint) for p in problems]
    return sorted(placed, key=lambda problem: problem.line or 0)


def line_of(key: str, lines: Mapping[str, int]) -> int | None:
    """Line of a dotted key, or of the nearest key around it."""
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return None


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
        misplaced = "move it under parameters:" if model is root and form_of(given) else None
        hint = misplaced or suggest(path[-1], known) or f"one of {', '.join(known)}"
        return Problem(what, key=key, hint=hint)
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
    return Problem(f"{given!r} {_TYPES[kind]}" if kind in _TYPES else item["msg"], key=key)


def _walk(loc: Sequence[Any], root: type[BaseModel]) -> tuple[list[str], type[BaseModel], str | None]:
    """The dotted path of an error, the model that its last step belongs to, and the form if it is in a parameter."""
    path: list[str] = []
    model, form = root, None
    for step in loc:
        if step in FORMS and path[-2:-1] == ["parameters"]:  # pydantic's tag of the form, after the parameter's name
            model, form = FORMS[step], step if step != "nested" else None
        elif step != "[key]":
            path.append(str(step))
            model = _child(model, step) or model
    return path, model, form


def _child(model: type[BaseModel], name: Any) -> type[BaseModel] | None:
    info = model.model_fields.get(name) if isinstance(name, str) else None
    return _model_in(info.annotation) if info else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
