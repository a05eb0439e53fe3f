"""Whether the search here can do what a sweep asks for: its method, its objectives, its stopping rule."""

import re
from collections.abc import Iterator

from fer_sweep.config.distributions import Categorical, Constant
from fer_sweep.config.metrics import BETTER_HIGH, BETTER_LOW, EPOCH_METRICS, RESULT_METRICS
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import EarlyTerminate, SweepFile
from fer_sweep.config.trial import SharedConfig, suggest
from fer_sweep.errors import Problem, SweepFileError

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


def method_problems(sweep: SweepFile, space: Space) -> Iterator[Problem]:
    """Whether the search here has the sweep's method; keys of parameters are dotted names, as in the space."""
    if sweep.method == "grid":
        try:
            space.grid()
        except SweepFileError as error:
            yield from error.problems
    if sweep.method == "custom" and sweep.scheduler is None:
        yield Problem("method custom needs a scheduler", key="method", hint="write scheduler: {engine: optuna}")
    if sweep.scheduler and sweep.scheduler.engine == "ax":
        yield Problem("ax is not one of the engines here", key="scheduler.engine", hint="take optuna")


def objective_problems(sweep: SweepFile) -> Iterator[Problem]:
    """Whether the objectives are what a trial reports, and are there where they are needed."""
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


def notes(sweep: SweepFile, space: Space) -> Iterator[Problem]:
    """What runs but is probably not meant."""
    for index, metric in enumerate(sweep.objectives):
        key = f"metrics.{index}" if sweep.metrics else "metric"
        wrong = metric.name in (BETTER_HIGH if metric.goal == "minimize" else BETTER_LOW)
        if wrong:
            right = "maximize" if metric.goal == "minimize" else "minimize"
            said = "" if "goal" in metric.model_fields_set else ", the default"
            yield Problem(f"the goal is to {metric.goal} {metric.name}{said}", key=key, hint=f"goal: {right}?")
    if sweep.early_terminate:
        yield from _stopping_notes(sweep.early_terminate, sweep.objectives[0].name, space)
    size = space.grid_size() if sweep.method == "grid" else space.size()
    if size is not None and sweep.run_cap and sweep.run_cap > size and sweep.parameters:
        message = f"there are {size} configurations only, and none is trained twice"
        yield Problem(message, key="run_cap")
    for index, word in enumerate(sweep.command or ()):
        macro = re.fullmatch(r"\$\{([^}]*)\}", str(word))
        if macro and macro[1] not in MACROS and not macro[1].startswith("envvar:"):
            hint = suggest(macro[1], MACROS)
            yield Problem(f"the stock agent drops {word}", key=f"command.{index}", hint=hint)


def _stopping_notes(settings: EarlyTerminate, metric: str, space: Space) -> Iterator[Problem]:
    if metric not in EPOCH_METRICS:
        message = f"nothing will be stopped early: {metric} is known at a trial's end only"
        yield Problem(message, key="early_terminate", hint=f"judge by one of {', '.join(EPOCH_METRICS)}")
    epochs = space.parameters.get("epochs", Constant(SharedConfig.model_fields["epochs"].default))
    values = epochs.possible if isinstance(epochs, Categorical) else (epochs.quantile(1.0),)
    longest = max(int(float(value)) for value in values)  # "20" in quotes is a number of epochs too
    if not settings.bands or settings.bands[0] >= longest:
        first = f"the first band, {settings.bands[0]}, is not before" if settings.bands else "no band is before"
        message = f"nothing will be stopped early: {first} the last of {longest} epochs"
        yield Problem(message, key="early_terminate", hint="lower min_iter" if settings.min_iter else "raise max_iter")
