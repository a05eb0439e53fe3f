"""Turning what a check of a sweep found into problems that a person can act on."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fer_sweep.config.parameters import FORMS, form_of
from fer_sweep.config.trial import suggest
from fer_sweep.errors import Problem

_ENGINE_METHODS = {"wandb": ("grid", "bayes", "random"), "optuna": ("custom",), "ax": ("custom",)}
_CHOICES = {
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


def rule_problems(data: Mapping[Any, Any]) -> list[Problem]:
    """What is wrong between the top-level keys of a sweep, each of which may be fine by itself."""
    method, scheduler = data.get("method"), data.get("scheduler")
    own_space = isinstance(scheduler, Mapping) and bool(scheduler.get("search_space"))
    problems = []
    if "parameters" not in data and not own_space:
        problems.append(Problem("missing: what is searched", key="parameters"))
    if "metric" in data and "metrics" in data:
        problems.append(Problem("cannot stand beside metric", key="metrics", hint="keep metric for one objective"))
    elif "metrics" in data and method != "custom" and method is not None:
        hint = "write method: custom and scheduler: {engine: optuna}"
        problems.append(Problem(f"several objectives need method custom, not {method}", key="metrics", hint=hint))
    stopping = data.get("early_terminate")
    if isinstance(stopping, Mapping) and "min_iter" not in stopping and not {"max_iter", "s"} <= stopping.keys():
        hint = "give min_iter, or max_iter and s"
        problems.append(Problem("names no bands", key="early_terminate", hint=hint))
    if not isinstance(scheduler, Mapping):
        return problems
    controller = data.get("controller")
    if isinstance(controller, Mapping) and controller.get("type") == "local":
        problems.append(Problem("a local controller excludes scheduler", key="controller", hint="keep one of them"))
    if "early_terminate" in data:
        hint = "the scheduler stops runs itself: leave early_terminate out"
        problems.append(Problem("cannot stand beside scheduler", key="early_terminate", hint=hint))
    engine = scheduler.get("engine")
    methods = _ENGINE_METHODS.get(engine) if isinstance(engine, str) else None
    if methods and method not in methods:
        problems.append(
            Problem(f"{engine} does not do method {method}", key="scheduler.engine", hint=f"method: {methods[0]}")
        )
    for name in ("optimizer", "search_space"):
        if name in scheduler and "source" not in scheduler:
            problems.append(Problem("needs source, the file it stands in", key=f"scheduler.{name}"))
    return problems


def empty_keys(data: Mapping[Any, Any]) -> list[Problem]:
    """Keys that are there with no value, which W&B refuses and a default would hide."""
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
    """One problem for every error pydantic found in ``root``'s input."""
    return [_problem(item, root) for item in error.errors()]


def in_file_order(problems: Sequence[Problem], lines: Mapping[str, int]) -> list[Problem]:
    """The problems with their lines, those of missing keys at the line of what lacks them, first line first."""
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
        return Problem("missing", key=key, hint=_needs(form) or _CHOICES.get(key))
    if kind == "extra_forbidden":
        known = list(model.model_fields)
        what = f"{form} takes no {path[-1]}" if form else "no such key"
        misplaced = "move it under parameters:" if model is root and form_of(given) else None
        hint = misplaced or suggest(path[-1], known) or f"one of {', '.join(known)}"
        return Problem(what, key=key, hint=hint)
    if kind == "literal_error":
        return Problem(f"{given!r} is not allowed", key=key, hint=_choice_hint(given, context["expected"]))
    if kind == "too_short":
        least = "one entry" if context["min_length"] == 1 else f"{context['min_length']} entries"
        return Problem(f"needs at least {least}", key=key)
    if kind == "string_pattern_mismatch" or "[key]" in item["loc"]:
        hint = "a letter or _ first, then letters, digits, _ . and -"
        return Problem(f"{given!r} is not a name a parameter may have", key=key, hint=hint)
    return Problem(f"{given!r} {_TYPES[kind]}" if kind in _TYPES else item["msg"], key=key)


def _walk(loc: Sequence[Any], root: type[BaseModel]) -> tuple[list[str], type[BaseModel], str | None]:
    """The dotted path of an error, the model its last step belongs to, and the parameter form if it is in one."""
    path: list[str] = []
    model, form = root, None
    steps = iter(loc)
    for step in steps:
        if step == "[key]":
            continue
        path.append(str(step))
        if step == "parameters" and issubclass(model, (root, FORMS["nested"])):
            name = next(steps, None)
            if name is None:
                break
            path.append(str(name))
            tag = next(steps, None)
            if tag in FORMS:
                model, form = FORMS[tag], tag if tag != "nested" else None
        else:
            model = _child(model, step) or model
    return path, model, form


def _child(model: type[BaseModel], name: Any) -> type[BaseModel] | None:
    info = model.model_fields.get(name) if isinstance(name, str) else None
    return _model_in(info.annotation) if info else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _needs(form: str | None) -> str | None:
    if form is None:
        return None
    names = [name for name, info in FORMS[form].model_fields.items() if info.is_required() and name != "distribution"]
    return f"{form} needs {' and '.join(names)}"


def _choice_hint(given: Any, expected: str) -> str:
    choices = [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]
    return suggest(str(given), choices) or f"one of {', '.join(choices)}"
