"""Checking a sweep against what can be trained here, before anything is created.

A W&B sweep file may name any parameter of any program; to be run here each one must be a field of TrialConfig, and
every value it can take one that the training function takes.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
    QUniform,
    Uniform,
    canonical,
)
from fer_sweep.config.search_checks import method_problems, notes, objective_problems
from fer_sweep.config.space import LARGEST_AXIS, Space
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

Axes = Mapping[str, list[tuple[Any, str]]]
"""By parameter, the values to try and where in the file each comes from."""


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
    grid = sweep.method == "grid"
    known = known_names()
    axes = {name: _probes(found, grid=grid) for name, found in space.parameters.items() if _has(known, name)}
    problems = [_placed(problem, places) for problem in method_problems(sweep, space)] + [*objective_problems(sweep)]
    parameter_problems = [*_name_problems(space, places, own_space=own_space), *_value_problems(space, axes, places)]
    if not (problems or parameter_problems or own_space):
        parameter_problems = _combination_problems(space, axes, places, grid=grid)
    problems += parameter_problems
    if problems:
        raise SweepFileError(source, in_file_order(problems, lines or {}))
    return tuple(in_file_order([*notes(sweep, space)], lines or {}))


def _places(parameters: Mapping[str, Parameter], prefix: str = "", file: str = "parameters.") -> Iterator[Any]:
    for name, form in parameters.items():
        if isinstance(form, NestedForm):
            yield from _places(form.parameters, f"{prefix}{name}.", f"{file}{name}.parameters.")
        else:
            yield f"{prefix}{name}", f"{file}{name}"


def _placed(problem: Problem, places: Mapping[str, str]) -> Problem:
    return replace(problem, key=places.get(problem.key.removeprefix("parameters."), problem.key))


def _name_problems(space: Space, places: Mapping[str, str], *, own_space: bool) -> Iterator[Problem]:
    if "model" not in space.parameters:
        if not own_space:
            hint = f"add model: {{value: simple_cnn}}, or one of {', '.join(list(ARCHITECTURES)[1:])}"
            yield Problem("no model is given: which architecture to train", key="parameters", hint=hint)
        models = list(ARCHITECTURES)
    else:
        models = []
        for value in _models(space):
            if _is_model(value):
                models.append(value)
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


def _value_problems(space: Space, axes: Axes, places: Mapping[str, str]) -> Iterator[Problem]:
    given = "model" in space.parameters
    for name, distribution in space.parameters.items():
        having = [model for model in _models(space) if _is_model(model) and _has(known_names(model), name)]
        reported: set[str] = set()
        for value, part in axes[name] if having and name != "model" else []:
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


def _combination_problems(space: Space, axes: Axes, places: Mapping[str, str], *, grid: bool) -> list[Problem]:
    groups: dict[tuple[str, ...], list[str]] = {}
    corners = {name: [value for value, _ in axis] for name, axis in axes.items()}
    for values in itertools.chain(_combinations(corners), _draws(space, corners, grid=grid)):
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


def _combinations(corners: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    if math.prod(len(values) for values in corners.values()) <= MOST_COMBINATIONS:
        for values in itertools.product(*corners.values()):
            yield dict(zip(corners, values, strict=True))
    else:
        yield from itertools.islice(_pairs(corners), MOST_COMBINATIONS)


def _draws(space: Space, corners: Mapping[str, list[Any]], *, grid: bool) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for _ in range(SAMPLES):
        if grid:  # whose values are not those that sampling gives
            yield {name: values[rng.integers(len(values))] for name, values in corners.items()}
        else:
            yield space.sample(rng)


def _pairs(corners: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    first = {name: values[0] for name, values in corners.items()}
    for (name, values), (other, others) in itertools.combinations(corners.items(), 2):
        if len(values) > 1 and len(others) > 1:
            for value, second in itertools.product(values, others):
                yield {**first, name: value, other: second}


def _refusals(values: Mapping[str, Any]) -> tuple[Problem, ...]:
    try:
        parse_trial(values)
    except ConfigError as error:
        return error.problems
    return ()


def _probes(distribution: Distribution, *, grid: bool) -> list[tuple[Any, str]]:
    """The values to try, each with the part of the parameter it comes from."""
    if grid and isinstance(distribution, QUniform) and distribution.steps <= LARGEST_AXIS:
        every = list(distribution.grid_values())
        chosen = every if len(every) <= MOST_STEPS else [*every[:8], every[len(every) // 2], *every[-8:]]
        return [(value, "") for value in chosen]
    levels: tuple[float, ...]
    match distribution:
        case Constant(value):
            return [(value, "value")]
        case Categorical(values):
            places: dict[str, int] = {}
            for index, value in enumerate(values):
                places.setdefault(canonical(value), index)
            return [(value, f"values.{places[canonical(value)]}") for value in distribution.possible]
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


def _models(space: Space) -> list[Any]:
    """The models that will be trained; all of them where that is not known."""
    if "model" not in space.parameters:
        return list(ARCHITECTURES)
    return [value for value, _ in _probes(space.parameters["model"], grid=False)]


def _is_model(value: Any) -> bool:
    return isinstance(value, str) and value in ARCHITECTURES


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
