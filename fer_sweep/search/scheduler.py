"""A user's own Optuna study and define-by-run space, from the Python file that ``scheduler.source`` names.

The file is what `wandb sweep-scheduler` takes: ``optimizer`` names a function of the sweep's facts that gives a
study, or a study and a terminator; ``search_space`` names a function of a trial that gives parameter values. The
study's sampler, pruner, and trials it brings along are used; what becomes of our trials stays in our database.
The file is run as it is, with the user's rights: it is theirs.
"""

import contextlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna

from fer_sweep.config.sweep_file import Scheduler, SweepFile
from fer_sweep.config.trial import flatten
from fer_sweep.errors import InputError

SearchSpace = Callable[[optuna.Trial], Mapping[str, Any]]
Terminator = Callable[[optuna.Study], bool]


@dataclass(frozen=True)
class SweepInfo:
    """What an ``optimizer`` function is given: the fields of wandb's own record of that name."""

    id: str
    name: str
    entity: str
    project: str
    config: dict[str, Any]
    """The sweep file as plain data."""
    controller_run_name: str = ""


@dataclass(frozen=True)
class OwnSearch:
    """What the user's file gave."""

    study: optuna.Study | None = None
    terminator: Terminator | None = None
    search_space: SearchSpace | None = None


def load_own_search(sweep: SweepFile, sweep_id: str) -> OwnSearch:
    """Run the user's file and the functions it names.

    Raises:
        InputError: The file cannot be run, or a function is missing, fails or gives the wrong thing.
    """
    scheduler = sweep.scheduler
    if scheduler is None or scheduler.source is None:
        return OwnSearch()
    functions = _load(scheduler)
    study, terminator = None, None
    if scheduler.optimizer:
        info = SweepInfo(sweep_id, sweep.name or sweep_id, sweep.entity or "", sweep.project or "", sweep.to_plain())
        made = run_own(scheduler, scheduler.optimizer, functions[scheduler.optimizer], info)
        study, terminator = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(study, optuna.Study) or not (terminator is None or callable(terminator)):
            raise InputError(
                f"{scheduler.source}: {scheduler.optimizer}() gave {type(made).__name__}, not an optuna.Study",
                hint="return a study, or a pair of a study and a function study -> bool",
            )
        _check_directions(sweep, scheduler, study)
    search_space = functions[scheduler.search_space] if scheduler.search_space else None
    return OwnSearch(study, terminator, cast("SearchSpace | None", search_space))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Optuna announces every study it makes; not within this, and what a user's code prints goes to stderr."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def run_own(scheduler: Scheduler, name: str, function: Callable[..., Any], argument: Any) -> Any:
    """Call a function of the user's file, so that its failure names the file and the line.

    Raises:
        InputError: It raised something.
    """
    try:
        with quietly():
            return function(argument)
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        raise _failure(scheduler, f"{name}() failed", error) from error


def draw_own(scheduler: Scheduler, space: SearchSpace, trial: optuna.Trial) -> dict[str, Any]:
    """The parameters the user's ``search_space`` gives for a trial.

    Raises:
        InputError: It raised something, or gave no dictionary.
    """
    name = scheduler.search_space or "search_space"
    values = run_own(scheduler, name, space, trial)
    if not isinstance(values, Mapping):
        raise InputError(
            f"{scheduler.source}: {name}() gave {type(values).__name__}, not a dictionary of parameters",
            hint="return a dictionary from parameter names to values",
        )
    # numpy's numbers have a plain one in them; groups of parameters go by dotted names everywhere.
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in flatten(values).items()}
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{scheduler.source}: {name}() gave a value that cannot be stored: {error}",
            hint="return plain numbers, texts, booleans, or lists and dictionaries of them",
        ) from error
    return plain


def _load(scheduler: Scheduler) -> dict[str, Callable[..., Any]]:
    source = Path(scheduler.source or "")
    if not source.is_file():
        raise InputError(f"scheduler.source: there is no file {source}", hint="give the path of a Python file")
    spec = importlib.util.spec_from_file_location(f"fersweep_source_{source.stem}", source)
    if spec is None or spec.loader is None:
        raise InputError(f"scheduler.source: {source} is no Python file", hint="its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        with quietly():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        raise _failure(scheduler, "cannot be run", error) from error
    functions = {}
    for key, name in (("optimizer", scheduler.optimizer), ("search_space", scheduler.search_space)):
        if not name:
            continue
        found = getattr(module, name, None)
        if not callable(found):
            there = ", ".join(n for n, value in vars(module).items() if inspect.isfunction(value)) or "none"
            raise InputError(f"scheduler.{key}: {source} has no function {name}", hint=f"functions there: {there}")
        functions[name] = found
    return functions


def _check_directions(sweep: SweepFile, scheduler: Scheduler, study: optuna.Study) -> None:
    wanted = [metric.goal for metric in sweep.objectives]
    given = [direction.name.lower() for direction in study.directions]
    if given != wanted:
        raise InputError(
            f"{scheduler.source}: the study of {scheduler.optimizer}() has the directions {given}, but the sweep's "
            f"metrics have the goals {wanted}",
            hint=f"create the study with directions={wanted}",
        )


def _failure(scheduler: Scheduler, what: str, error: BaseException) -> InputError:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == scheduler.source]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    where = f"{scheduler.source}, line {line}" if line else f"{scheduler.source}"
    return InputError(f"{where}: {what}: {type(error).__name__}: {error}", hint="repair the file and try again")
