"""Checking a sweep against what can be trained here, before anything is created.

A W&B sweep file may name any parameter of any program; to be run here each one must be a field of TrialConfig, and
every value it can take one that the training function takes.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fer_sweep.config.distributions import (
    Beta,
    Categorical,
    Constant,
    Distribution,
    IntUniform,
    LogNormal,
    LogUniform,
    Normal,
    QLogNormal,
    QNormal,
    Uniform,
)
from fer_sweep.config.metrics import BETTER_HIGH, BETTER_LOW, EPOCH_METRICS, RESULT_METRICS
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_errors import in_file_order
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.config.sweep_parameters import NestedForm, Parameter
from fer_sweep.config.trial import ARCHITECTURES, known_names, parse_trial, suggest
from fer_sweep.errors import ConfigError, Problem, SweepFileError

PRACTICAL_TAIL = 0.001
"""An unbounded distribution is held to a field's bounds between this quantile and its mirror: two draws in a
thousand may fall outside, and end as a failed trial."""
MOST_COMBINATIONS = 2_000
"""Combinations of corners tried; a space with more has its pairs of parameters tried instead."""
SAMPLES = 300
"""Draws tried on top, always the same."""
MOST_STEPS = 64
"""A discrete range of up to this many values has every one of them tried."""
MACROS = [
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_equals",
    "args_no_hyphens",
    "args_no_boolean_flags",
    "args_json",
    "args_json_file",
    "args_append_hydra",
    "args_override_hydra",
]
"""What the stock agent puts into a command line."""


def bind(
    sweep: SweepFile, space: Space, *, source: str = "sweep", lines: Mapping[str, int] | None = None
) -> tuple[Problem, ...]:
    """Check every parameter, value and objective of a sweep against TrialConfig and the metrics a trial reports.

    Args:
        sweep: The sweep file.
        space: Its space.
        source: Names the sweep in errors.
        lines: Line of every dotted key, where there is a file.

    Returns:
        Notes: things that run but are probably not meant.

    Raises:
        SweepFileError: With one problem for every distinct reason.
    """
    places = dict(_places(sweep.parameters or {}))
    own_space = bool(sweep.scheduler and sweep.scheduler.search_space)
    problems = [*_method_problems(sweep, space), *_objective_problems(sweep)]
    parameter_problems = [*_name_problems(space, places, own_space=own_space), *_value_problems(space, places)]
    if not (parameter_problems or own_space):
        parameter_problems = _combination_problems(space, places)
    problems += parameter_problems
    if problems:
        raise SweepFileError(source, in_file_order(problems, lines or {}))
    return tuple(in_file_order([*_notes(sweep, space)], lines or {}))


def _places(parameters: Mapping[str, Parameter], prefix: str = "", file: str = "parameters.") -> Iterator[Any]:
    for name, form in parameters.items():
        if isinstance(form, NestedForm):
            yield from _places(form.parameters, f"{prefix}{name}.", f"{file}{name}.parameters.")
        else:
            yield f"{prefix}{name}", f"{file}{name}"


def _method_problems(sweep: SweepFile, space: Space) -> Iterator[Problem]:
    if sweep.method == "grid":
        try:
            space.grid()
        except SweepFileError as error:
            yield from error.problems
    if sweep.method == "custom" and sweep.scheduler is None:
        yield Problem("method custom needs a scheduler", key="method", hint="write scheduler: {engine: optuna}")
    if sweep.scheduler and sweep.scheduler.engine == "ax":
        yield Problem("ax is not one of the engines here", key="scheduler.engine", hint="take optuna")


def _objective_problems(sweep: SweepFile) -> Iterator[Problem]:
    known = list(dict.fromkeys((*EPOCH_METRICS, *RESULT_METRICS)))
    seen: set[str] = set()
    for index, metric in enumerate(sweep.objectives):
        key = f"metrics.{index}.name" if sweep.metrics else "metric.name"
        if metric.name not in known:
            hint = suggest(metric.name, known) or f"one of {', '.join(known)}"
            yield Problem(f"no trial reports {metric.name!r}", key=key, hint=hint)
        if metric.name in seen:
            yield Problem(f"{metric.name} is an objective twice", key=key)
        seen.add(metric.name)
    hint = "write metric: {name: best_val_acc, goal: maximize}"
    if not sweep.objectives and sweep.method in ("bayes", "custom"):
        yield Problem(f"method {sweep.method} needs a metric", key="method", hint=hint)
    if not sweep.objectives and sweep.early_terminate:
        yield Problem("needs a metric to judge by", key="early_terminate", hint=hint)


def _name_problems(space: Space, places: Mapping[str, str], *, own_space: bool) -> Iterator[Problem]:
    if "model" not in space.parameters:
        if not own_space:
            hint = f"add model: {{value: simple_cnn}}, or one of {', '.join(list(ARCHITECTURES)[1:])}"
            yield Problem("no model is given: which architecture to train", key="parameters", hint=hint)
        models = list(ARCHITECTURES)
    else:
        models = []
        for value in _possible(space.parameters["model"]):
            if value in ARCHITECTURES:
                models.append(str(value))
            else:
                hint = suggest(str(value), list(ARCHITECTURES)) or f"one of {', '.join(ARCHITECTURES)}"
                yield Problem(f"no such model: {value!r}", key=places["model"], hint=hint)
    if not models:
        return
    fields = {model: known_names(model) for model in models}
    everywhere = known_names()
    for name in space.parameters:
        having = [model for model in models if _has(fields[model], name)]
        if len(having) == len(models) or (own_space and having):
            continue
        if having:
            others = ", ".join(model for model in models if model not in having)
            message = f"{_and(having)} {'has' if len(having) == 1 else 'have'} it, but {others} not"
            yield Problem(message, key=places[name], hint="make one sweep file an architecture")
        elif owners := [model for model in ARCHITECTURES if _has(known_names(model), name)]:
            message = f"{_and(models)} {'has' if len(models) == 1 else 'have'} no {name}: it belongs to {_and(owners)}"
            yield Problem(message, key=places[name], hint=f"leave it out, or take model {owners[0]}")
        else:
            known = fields[models[0]] if len(models) == 1 else everywhere
            yield Problem("no such parameter", key=places[name], hint=suggest(name, known))


def _has(fields: list[str], name: str) -> bool:
    return name in fields or any(field.startswith(f"{name}.") for field in fields)


def _value_problems(space: Space, places: Mapping[str, str]) -> Iterator[Problem]:
    given = "model" in space.parameters
    models = _possible(space.parameters["model"]) if given else list(ARCHITECTURES)
    for name, distribution in space.parameters.items():
        having = [model for model in models if model in ARCHITECTURES and _has(known_names(model), name)]
        reported: set[str] = set()
        for value, part in _probes(distribution) if having and name != "model" else []:
            found = [_refusals_of(model, name, value) for model in having]
            if not given and not all(found):
                continue  # which model it is for is not known, and one of them takes it
            for problem in itertools.chain.from_iterable(found):
                reason = re.sub(r"^.*?: ", "", problem.message)
                if reason not in reported:
                    reported.add(reason)
                    key = f"{places[name]}.{part}" if part else places[name]
                    yield Problem(problem.message, key=key, hint=problem.hint or _tail_hint(distribution))


def _refusals_of(model: str, name: str, value: Any) -> list[Problem]:
    # An empty key is a quarrel with another field's default, which the sweep may set otherwise.
    problems = _refusals({"model": model, name: value})
    return [problem for problem in problems if problem.key == name or problem.key.startswith(f"{name}.")]


def _combination_problems(space: Space, places: Mapping[str, str]) -> list[Problem]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for values in _combinations(space):
        for problem in _refusals(values):
            words = set(re.findall(r"\w+", problem.message))
            involved = tuple(name for name in space.parameters if name in words or name == problem.key)
            messages = groups.setdefault(involved, [])
            if problem.message not in messages:
                messages.append(problem.message)
    problems = []
    for involved, messages in groups.items():
        searched = [name for name in involved if not isinstance(space.parameters[name], Constant)] or list(involved)
        key = places[searched[0]] if searched else "parameters"
        more = f", and {len(messages) - 1} more such combinations" if len(messages) > 1 else ""
        problems.append(Problem(f"a combination that cannot be trained: {messages[0]}{more}", key=key))
    return problems


def _combinations(space: Space) -> Iterator[dict[str, Any]]:
    axes = {name: [value for value, _ in _probes(d)] for name, d in space.parameters.items()}
    if math.prod(len(axis) for axis in axes.values()) <= MOST_COMBINATIONS:
        for values in itertools.product(*axes.values()):
            yield dict(zip(axes, values, strict=True))
    else:
        yield from itertools.islice(_pairs(axes), MOST_COMBINATIONS)
    rng = np.random.default_rng(0)
    for _ in range(SAMPLES):
        yield space.sample(rng)


def _pairs(axes: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    first = {name: values[0] for name, values in axes.items()}
    for (name, values), (other, others) in itertools.combinations(axes.items(), 2):
        if len(values) > 1 and len(others) > 1:
            for value, second in itertools.product(values, others):
                yield {**first, name: value, other: second}


def _refusals(values: Mapping[str, Any]) -> tuple[Problem, ...]:
    try:
        parse_trial(values)
    except ConfigError as error:
        return error.problems
    return ()


def _probes(distribution: Distribution) -> list[tuple[Any, str]]:
    """The values to try, each with the part of the parameter it comes from."""
    levels: tuple[float, ...]
    match distribution:
        case Constant(value):
            return [(value, "value")]
        case Categorical(values):
            return [(value, f"values.{values.index(value)}") for value in distribution.possible]
        case IntUniform(low, high) if distribution.size <= MOST_STEPS:
            inner = [(value, "") for value in range(low + 1, high)]
            return [(low, "min"), (high, "max"), *inner]
        case IntUniform(low, high):
            return [(low, "min"), (high, "max"), (low + 1, ""), ((low + high) // 2, "")]
        case Uniform(low, high) | LogUniform(low, high):
            return [(low, "min"), (high, "max"), (distribution.quantile(0.382), ""), (distribution.quantile(0.618), "")]
        case Normal() | LogNormal() | QNormal() | QLogNormal():
            levels = (PRACTICAL_TAIL, 0.382, 0.618, 1 - PRACTICAL_TAIL)
        case _:
            levels = (0.0, 0.382, 0.618, 1.0)
    steps = distribution.size
    if steps is not None and steps <= MOST_STEPS and not isinstance(distribution, Beta):
        levels = tuple(index / (4 * steps) for index in range(4 * steps + 1))
    return [(value, "") for value in dict.fromkeys(distribution.quantile(level) for level in levels)]


def _tail_hint(distribution: Distribution) -> str | None:
    if isinstance(distribution, Normal | LogNormal | QNormal | QLogNormal):
        return f"it goes there in {PRACTICAL_TAIL:.1%} of the draws: narrow it, or take uniform with min and max"
    return None


def _notes(sweep: SweepFile, space: Space) -> Iterator[Problem]:
    for index, metric in enumerate(sweep.objectives):
        key = f"metrics.{index}" if sweep.metrics else "metric"
        wrong = metric.name in (BETTER_HIGH if metric.goal == "minimize" else BETTER_LOW)
        if wrong:
            right = "maximize" if metric.goal == "minimize" else "minimize"
            said = "" if "goal" in metric.model_fields_set else ", the default"
            yield Problem(f"the goal is to {metric.goal} {metric.name}{said}", key=key, hint=f"goal: {right}?")
    if sweep.early_terminate:
        yield from _stopping_notes(sweep, space)
    size = space.size()
    if size is not None and sweep.run_cap and sweep.run_cap > size and sweep.parameters:
        message = f"there are {size} configurations only, and none is trained twice"
        yield Problem(message, key="run_cap")
    for index, word in enumerate(sweep.command or ()):
        macro = re.fullmatch(r"\$\{([^}]*)\}", str(word))
        if macro and macro[1] not in MACROS and not macro[1].startswith("envvar:"):
            hint = suggest(macro[1], MACROS)
            yield Problem(f"the stock agent drops {word}", key=f"command.{index}", hint=hint)


def _stopping_notes(sweep: SweepFile, space: Space) -> Iterator[Problem]:
    settings = sweep.early_terminate
    assert settings is not None
    metric = sweep.objectives[0].name
    if metric not in EPOCH_METRICS:
        message = f"nothing will be stopped early: {metric} is known at a trial's end only"
        yield Problem(message, key="early_terminate", hint=f"judge by one of {', '.join(EPOCH_METRICS)}")
    epochs = space.parameters.get("epochs", Constant(20))
    longest = max((value for value, _ in _probes(epochs)), default=0)
    if not settings.bands or settings.bands[0] >= longest:
        first = f"the first band, {settings.bands[0]}, is not before" if settings.bands else "no band is before"
        message = f"nothing will be stopped early: {first} the last of {longest} epochs"
        yield Problem(message, key="early_terminate", hint="lower min_iter" if settings.min_iter else "raise max_iter")


def _possible(distribution: Distribution) -> list[Any]:
    return [value for value, _ in _probes(distribution)]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
