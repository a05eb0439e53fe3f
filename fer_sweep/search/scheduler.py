"""A user's own Optuna study and define-by-run space, from the Python file that ``scheduler.source`` names.

The file is what `wandb sweep-scheduler` accepts: ``optimizer`` names a function that is given the sweep's SweepInfo and
returns a study, or a study and a terminator; ``search_space`` names a function of a trial that returns parameter
values. The study's sampler, pruner and own trials are used; the state of our trials stays in our database. The file
runs unchanged, with the rights of its user.
"""

import contextlib
import inspect
import json
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from fer_sweep.config.sweep_file import Scheduler, SweepFile
from fer_sweep.config.trial import flatten
from fer_sweep.errors import InputError


@dataclass(frozen=True)
class SweepInfo:
    """The argument of an ``optimizer`` function: the fields of wandb's own record of that name."""

    id: str
    name: str
    entity: str
    project: str
    config: dict[str, Any]
    """The sweep file as plain data."""
    controller_run_name: str = ""


@dataclass(frozen=True)
class OwnSearch:
    """The study and functions of the user's file; a sweep without one has none of them.

    Every method raises InputError, with the file and the line, if the user's code fails.
    """

    scheduler: Scheduler = field(default_factory=lambda: Scheduler(engine="optuna"))
    study: optuna.Study | None = None
    terminator: Callable[[optuna.Study], bool] | None = None
    search_space: Callable[[optuna.Trial], Mapping[str, Any]] | None = None

    def ask(self, study: optuna.Study, axes: Mapping[str, BaseDistribution]) -> optuna.Trial:
        """Ask a study, which may have the user's sampler, for a trial."""
        if self.study is None:
            return study.ask(dict(axes))
        asked: optuna.Trial = _run(
            self.scheduler, f"the sampler of {self.scheduler.optimizer}() failed", study.ask, dict(axes)
        )
        return asked

    def is_over(self, study: optuna.Study) -> bool:
        """Whether the user's terminator ends the search."""
        if self.terminator is None:
            return False
        return bool(
            _run(self.scheduler, f"the terminator of {self.scheduler.optimizer}() failed", self.terminator, study)
        )

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """The parameters that the user's ``search_space`` gives for a trial, by dotted name."""
        if self.search_space is None:
            return {}
        source, name = self.scheduler.source, self.scheduler.search_space
        values = _run(self.scheduler, f"{name}() failed", self.search_space, trial)
        if not isinstance(values, Mapping):
            raise InputError(
                f"{source}: {name}() gave {type(values).__name__}, not a dictionary of parameters",
                hint="return a dictionary from parameter names to values",
            )
        # numpy's numbers contain a plain one.
        plain = {key: value.item() if hasattr(value, "item") else value for key, value in flatten(values).items()}
        try:
            json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{source}: {name}() gave a value that cannot be stored: {error}",
                hint="return plain numbers, texts, booleans, or lists and dictionaries of them",
            ) from error
        return plain


def load_own_search(sweep: SweepFile, sweep_id: str) -> OwnSearch:
    """Run the user's file and its ``optimizer`` function.

    Raises:
        InputError: The file cannot be run, or a function is missing, fails or returns the wrong type.
    """
    scheduler = sweep.scheduler
    if scheduler is None or scheduler.source is None:
        return OwnSearch()
    functions = _load(scheduler)
    study, terminator = None, None
    if scheduler.optimizer:
        info = SweepInfo(sweep_id, sweep.name or sweep_id, sweep.entity or "", sweep.project or "", sweep.to_plain())
        made = _run(scheduler, f"{scheduler.optimizer}() failed", functions["optimizer"], info)
        study, terminator = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(study, optuna.Study) or not (terminator is None or callable(terminator)):
            raise InputError(
                f"{scheduler.source}: {scheduler.optimizer}() gave {type(made).__name__}, not an optuna.Study",
                hint="return a study, or a pair of a study and a function study -> bool",
            )
        wanted = [metric.goal for metric in sweep.objectives]
        given = [direction.name.lower() for direction in study.directions]
        if given != wanted:
            raise InputError(
                f"{scheduler.source}: the study of {scheduler.optimizer}() has the directions {given}, but the sweep's "
                f"metrics have the goals {wanted}",
                hint=f"create the study with directions={wanted}",
            )
    return OwnSearch(scheduler, study, terminator, functions.get("search_space"))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress Optuna's announcement of every study, and print what a user's code prints to stderr."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _run(scheduler: Scheduler, failure: str, function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        with quietly():
            return function(argument)
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == scheduler.source]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        where = f"{scheduler.source}, line {line}" if line else f"{scheduler.source}"
        raise InputError(
            f"{where}: {failure}: {type(error).__name__}: {error}", hint="repair the file and try again"
        ) from error


def _load(scheduler: Scheduler) -> dict[str, Callable[..., Any]]:
    """The functions that the sweep file names, by its keys."""
    source = scheduler.source or ""
    if not Path(source).is_file():
        raise InputError(f"scheduler.source: there is no file {source}", hint="give the path of a Python file")
    module = _run(scheduler, "cannot be run", runpy.run_path, source)
    functions = {}
    for key, name in (("optimizer", scheduler.optimizer), ("search_space", scheduler.search_space)):
        if not name:
            continue
        if not callable(module.get(name)):
            known = ", ".join(n for n, value in module.items() if inspect.isfunction(value)) or "none"
            raise InputError(f"scheduler.{key}: {source} has no function {name}", hint=f"functions there: {known}")
        functions[key] = module[name]
    return functions
