"""Checks of a sweep against what fersweep can search and train, before anything is created.

A W&B sweep file may name any parameter of any program. For fersweep each one must be a field of TrialConfig, each value
that it can take must be one that TrialConfig accepts, and the objectives must be metrics that a trial reports.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_sweep.config import parameters as forms
from fer_sweep.config.metrics import BETTER_HIGH, BETTER_LOW, EPOCH_METRICS, RESULT_METRICS
from fer_sweep.config.problems import in_file_order
from fer_sweep.config.space import LARGEST_AXIS, Space
from fer_sweep.config.sweep_file import EarlyTerminate, SweepFile
from fer_sweep.config.trial import ARCHITECTURES, IMAGE_SIZE, SharedConfig, known_names, parse_trial, suggest
from fer_sweep.config.values import canonical
from fer_sweep.errors import ConfigError, Problem, SweepFileError

PRACTICAL_TAIL = 0.001
"""An unbounded distribution must stay within a field's bounds between this quantile and its mirror: two draws in a
thousand may fall outside, and end as failed trials."""
MOST_COMBINATIONS = 2_000
"""Up to this many combinations of probed values, all are tried."""
SAMPLES = 300
"""Combinations tried where there are more, and random draws tried in any case; always the same ones."""
MOST_STEPS = 64
"""Every value of a discrete range of up to this many is tried."""

_MODELS = list(ARCHITECTURES)
_MACROS = [
    *("env", "interpreter", "program", "args", "args_no_equals", "args_no_hyphens", "args_no_boolean_flags"),
    *("args_json", "args_json_file", "args_append_hydra", "args_override_hydra"),
]
"""Macros that the stock agent replaces in a command line."""

Probes = Mapping[str, list[tuple[Any, str]]]
"""By parameter: values to try, each with the part of the parameter in the file that it comes from."""
ImageSize = Callable[[str], tuple[int, int]]


def bind(
    sweep: SweepFile,
    *,
    source: str = "sweep",
    lines: Mapping[str, int] | None = None,
    image_size: ImageSize = lambda data: (IMAGE_SIZE, IMAGE_SIZE),
) -> tuple[Problem, ...]:
    """Check a sweep's method, objectives, parameters and values.

    Args:
        sweep: The sweep file.
        source: Names the sweep in errors.
        lines: Line of every dotted key, where there is a file.
        image_size: Gives height and width, in pixels, of the images of a data set.

    Returns:
        Notes: settings that run but are probably not intended.

    Raises:
        SweepFileError: With one problem for every distinct reason.
    """
    try:
        space = Space.from_sweep(sweep)
    except SweepFileError as error:
        raise SweepFileError(source, in_file_order(error.problems, lines)) from None
    grid = sweep.method == "grid"
    probes = {name: _probes(found, grid=grid) for name, found in space.parameters.items()}
    given = [value for value, _ in probes["model"]] if "model" in probes else _MODELS
    models = [model for model in given if model in _MODELS]
    problems = [
        *_method_problems(sweep, space),
        *_objective_problems(sweep),
        *_model_problems(sweep, space, given),
        *_name_problems(sweep, space, models),
        *_value_problems(space, probes, models),
    ]
    if not (problems or sweep.has_own_space):
        problems = _combination_problems(space, probes, functools.cache(image_size), grid=grid)
    if problems:
        raise SweepFileError(source, in_file_order(problems, lines))
    return tuple(in_file_order(_notes(sweep, space), lines))


def _method_problems(sweep: SweepFile, space: Space) -> Iterator[Problem]:
    if sweep.method == "grid":
        try:
            space.grid()
        except SweepFileError as error:
            yield from error.problems
    if sweep.method == "custom" and sweep.scheduler is None:
        yield Problem("method custom needs a scheduler", key="method", hint="write scheduler: {engine: optuna}")
    if sweep.scheduler and sweep.scheduler.engine == "ax":
        yield Problem("fersweep does not support the engine ax", key="scheduler.engine", hint="use optuna")


def _objective_problems(sweep: SweepFile) -> Iterator[Problem]:
    known = list(dict.fromkeys((*EPOCH_METRICS, *RESULT_METRICS)))
    names = [metric.name for metric in sweep.objectives]
    for index, name in enumerate(names):
        key = f"metrics.{index}.name" if sweep.metrics else "metric.name"
        if name not in known:
            hint = suggest(name, known) or f"one of {', '.join(known)}"
            yield Problem(f"no trial reports {name!r}", key=key, hint=hint)
        if name in names[:index]:
            yield Problem(f"{name} is given twice", key=key)
    hint = "write metric: {name: best_val_acc, goal: maximize}"
    if not names and sweep.method in ("bayes", "custom"):
        yield Problem(f"method {sweep.method} needs a metric", key="method", hint=hint)
    if not names and sweep.early_terminate:
        yield Problem("needs a metric to compare trials by", key="early_terminate", hint=hint)


def _model_problems(sweep: SweepFile, space: Space, given: list[Any]) -> Iterator[Problem]:
    if "model" not in space.keys and not sweep.has_own_space:
        hint = f"add model: {{value: simple_cnn}}, or one of {', '.join(_MODELS[1:])}"
        yield Problem("no model is given: which architecture to train", key="parameters", hint=hint)
    for model in given:
        if model not in _MODELS:
            hint = suggest(str(model), _MODELS) or f"one of {', '.join(_MODELS)}"
            yield Problem(f"no such model: {model!r}", key=space.keys["model"], hint=hint)


def _name_problems(sweep: SweepFile, space: Space, models: list[str]) -> Iterator[Problem]:
    for name in space.parameters if models else ():
        owners = [model for model in _MODELS if _has(model, name)]
        having = [model for model in models if model in owners]
        if len(having) == len(models) or (sweep.has_own_space and having):
            continue
        if having:
            others = [model for model in models if model not in having]
            message = f"{_have(having)} {name}, but {_have(others)} not"
            yield Problem(message, key=space.keys[name], hint="write one sweep file per architecture")
        elif owners:
            message = f"{_have(models)} no {name}: it belongs to {_and(owners)}"
            yield Problem(message, key=space.keys[name], hint=f"remove it, or use model {owners[0]}")
        else:
            known = known_names(models[0] if len(models) == 1 else None)
            yield Problem("no such parameter", key=space.keys[name], hint=suggest(name, known))


def _value_problems(space: Space, probes: Probes, models: list[str]) -> Iterator[Problem]:
    tail_hint = f"{PRACTICAL_TAIL:.1%} of the draws lie beyond: narrow it, or use uniform with min and max"
    for name, distribution in space.parameters.items():
        having = [model for model in models if _has(model, name)]
        reported: set[str] = set()
        for value, part in probes[name] if having and name != "model" else []:
            found = [_refusals_of(model, name, value) for model in having]
            if "model" not in space.parameters and not all(found):
                continue  # the model is unknown, and one of them accepts the value
            for problem in itertools.chain.from_iterable(found):
                reason = re.sub(r"^.*?: ", "", problem.message)
                if reason not in reported:
                    reported.add(reason)
                    key = f"{space.keys[name]}.{part}" if part else space.keys[name]
                    hint = tail_hint if isinstance(distribution, forms.Normal) else None
                    yield Problem(problem.message, key=key, hint=problem.hint or hint)


def _combination_problems(space: Space, probes: Probes, image_size: ImageSize, *, grid: bool) -> list[Problem]:
    """One problem for each set of parameters that does not go together, and for each listed value that never fits."""
    groups: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for values in _combinations(space, probes, grid=grid):
        for problem in _refusals(values, image_size):
            words = set(re.findall(r"\w+", problem.message))
            involved = tuple(name for name in space.parameters if name in words or name == problem.key)
            groups.setdefault(involved, {})[problem.message] = values
    problems = []
    for involved, messages in groups.items():
        searched = [name for name in involved if not isinstance(space.parameters[name], forms.Constant)]
        varied = searched or involved
        if len(varied) == 1 and isinstance(space.parameters[varied[0]], forms.Constant | forms.Categorical):
            (name,) = varied
            parts = {canonical(value): part for value, part in probes[name]}
            for message, values in messages.items():
                problems.append(Problem(message, key=f"{space.keys[name]}.{parts[canonical(values[name])]}"))
            continue
        key = next((space.keys[name] for name in [*searched, *involved]), "parameters")
        more = f", and {len(messages) - 1} more such combinations" if len(messages) > 1 else ""
        problems.append(Problem(f"a combination that cannot be trained: {next(iter(messages))}{more}", key=key))
    return problems


def _combinations(space: Space, probes: Probes, *, grid: bool) -> Iterator[dict[str, Any]]:
    """Combinations of probed values, and random draws where those can give other values."""
    rng = np.random.default_rng(0)
    columns = [[value for value, _ in column] for column in probes.values()]
    rows: Iterator[tuple[Any, ...]] = itertools.product(*columns)
    if math.prod(map(len, columns)) > MOST_COMBINATIONS:
        rows = (tuple(column[rng.integers(len(column))] for column in columns) for _ in range(SAMPLES))
    for row in rows:
        yield dict(zip(probes, row, strict=True))
    for _ in range(0 if grid else SAMPLES):
        yield space.sample(rng)


def _probes(distribution: forms.Distribution, *, grid: bool) -> list[tuple[Any, str]]:
    """The values to try, each with the part of the parameter that it comes from."""
    if isinstance(distribution, forms.Constant):
        return [(distribution.value, "value")]
    if isinstance(distribution, forms.Categorical):
        places = [canonical(value) for value in distribution.values]
        return [(value, f"values.{places.index(canonical(value))}") for value in distribution.possible]
    if grid and isinstance(distribution, forms.QUniform) and distribution.steps <= LARGEST_AXIS:
        every = distribution.grid_values()
        chosen = every if len(every) <= MOST_STEPS else [*every[:8], every[len(every) // 2], *every[-8:]]
        return [(value, "") for value in chosen]
    tail = PRACTICAL_TAIL if isinstance(distribution, forms.Normal) else 0.0
    levels = [tail, 1 - tail, 0.382, 0.618]
    if (size := distribution.size) is not None and size <= MOST_STEPS:
        levels = [0.0, 1.0, *(index / (4 * size) for index in range(1, 4 * size))]
    found: dict[Any, str] = {}
    if not isinstance(distribution, forms.Quantized) and isinstance(distribution, forms.Range):
        found = {distribution.min: "min", distribution.max: "max"}
        levels = levels[2:]
    for level in levels:
        found.setdefault(distribution.quantile(level), "")
    return list(found.items())


def _notes(sweep: SweepFile, space: Space) -> Iterator[Problem]:
    for index, metric in enumerate(sweep.objectives):
        if metric.name in (BETTER_HIGH if metric.goal == "minimize" else BETTER_LOW):
            key = f"metrics.{index}" if sweep.metrics else "metric"
            right = "maximize" if metric.goal == "minimize" else "minimize"
            default = "" if "goal" in metric.model_fields_set else ", the default"
            yield Problem(f"the goal is to {metric.goal} {metric.name}{default}", key=key, hint=f"goal: {right}?")
    if sweep.early_terminate:
        yield from _stopping_notes(sweep.early_terminate, sweep.objectives[0].name, space)
    if own := _own_program(sweep):
        what = "it" if len(own) == 1 else _and(own)
        message = f"fersweep does not run {what}: it trains its own architectures"
        yield Problem(message, key=own[0], hint="parameters.model names one; wandb agent runs programs")
    size = space.grid_size() if sweep.method == "grid" else space.size()
    if size is not None and sweep.run_cap and sweep.run_cap > size and sweep.parameters:
        yield Problem(f"there are only {size} configurations, and none is trained twice", key="run_cap")
    for index, word in enumerate(sweep.command or ()):
        macro = re.fullmatch(r"\$\{([^}]*)\}", str(word))
        if macro and macro[1] not in _MACROS and not macro[1].startswith("envvar:"):
            hint = suggest(macro[1], _MACROS)
            yield Problem(f"the stock agent drops {word}", key=f"command.{index}", hint=hint)


def _own_program(sweep: SweepFile) -> list[str]:
    """The keys that name another program than fersweep."""
    own = ["program"] if sweep.program and Path(sweep.program).name != "fersweep" else []
    words = [str(word) for word in sweep.command or () if not str(word).startswith("${")]
    own += ["command"] if words and "fersweep" not in (Path(word).name for word in words) else []
    return own + [name for name in ("job", "image_uri") if getattr(sweep, name)]


def _stopping_notes(settings: EarlyTerminate, metric: str, space: Space) -> Iterator[Problem]:
    if metric not in EPOCH_METRICS:
        message = f"no trial will be stopped early: {metric} is known only at a trial's end"
        yield Problem(message, key="early_terminate", hint=f"use one of {', '.join(EPOCH_METRICS)}")
    epochs = space.parameters.get("epochs", forms.Constant(value=SharedConfig.model_fields["epochs"].default))
    values = epochs.possible if isinstance(epochs, forms.Categorical) else (epochs.quantile(1.0),)
    longest = max(int(float(value)) for value in values)  # "20" in quotes is a number of epochs too
    if not settings.bands or settings.bands[0] >= longest:
        first = f"the first band, {settings.bands[0]}, is not before" if settings.bands else "no band is before"
        message = f"no trial will be stopped early: {first} the last of {longest} epochs"
        yield Problem(message, key="early_terminate", hint="lower min_iter" if settings.min_iter else "raise max_iter")


def _refusals_of(model: str, name: str, value: Any) -> list[Problem]:
    # A problem without this key is a conflict with another field's default, which the sweep may set otherwise.
    problems = _refusals({"model": model, name: value})
    return [problem for problem in problems if problem.key == name or problem.key.startswith(f"{name}.")]


def _refusals(values: Mapping[str, Any], image_size: ImageSize | None = None) -> tuple[Problem, ...]:
    try:
        config = parse_trial(values)
        if image_size:
            config.check_image_size(*image_size(config.data))
    except ConfigError as error:
        return error.problems
    return ()


def _has(model: str, name: str) -> bool:
    """Whether the architecture has the field, or the group of fields."""
    return any(field == name or field.startswith(f"{name}.") for field in known_names(model))


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _have(names: list[str]) -> str:
    return f"{_and(names)} {'has' if len(names) == 1 else 'have'}"
