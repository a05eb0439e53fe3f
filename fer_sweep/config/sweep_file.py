"""The sweep file: W&B's schema, whole, as frozen models, with every problem reported at its line.

It accepts and refuses what W&B's validator does; the few deliberate differences are listed, each with its reason, in
``tests/config/test_sweep_file_differential.py``. ``config.binding`` then checks whether the parameters can be trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fer_sweep.config import hints
from fer_sweep.config.parameters import Parameters
from fer_sweep.config.problems import in_file_order, problems_of
from fer_sweep.config.sweep_yaml import DEEPEST, read_document
from fer_sweep.config.trial import suggest
from fer_sweep.config.values import Number, PositiveWhole, Text, Whole, Written, is_list, must
from fer_sweep.errors import Problem, SweepFileError

MOST_BANDS = 100
"""W&B's limit where the first band is given."""
LONGEST_RUN = 1e9
"""Iterations; no band lies beyond."""
_ENGINE_METHODS = {"wandb": ("grid", "bayes", "random"), "optuna": ("custom",), "ax": ("custom",)}

Goal = Literal["minimize", "maximize"]
Impute = Literal["latest", "best", "worst"]


class Metric(Written):
    """One objective."""

    name: Text
    """Such as best_val_acc."""
    goal: Goal = "minimize"
    """Which way is better."""
    target: Number | None = None
    """The sweep ends when a run reaches it."""
    impute: Impute = "worst"
    """The value of a failed run in a bayes search."""
    impute_while_running: Literal["latest", "best", "worst", "false"] = "false"
    """The value of a running run."""


class EarlyTerminate(Written):
    """The hyperband stopping rule, which ``search.hyperband`` applies."""

    type: Literal["hyperband"]
    """The only rule that W&B has."""
    min_iter: PositiveWhole | None = None
    """The first band, in logged values of the metric: here, epochs."""
    max_iter: Whole | None = None
    """Bands are this divided by eta, s times."""
    s: Number | None = None
    """Number of bands derived from max_iter."""
    eta: Annotated[Number, must(lambda value: value > 1, "is not above 1")] = 3
    """At each band the best 1/eta of the runs continue."""
    strict: Annotated[bool, Field(strict=True)] = True
    """Compare a run by its value at the band, not by its best so far."""

    @property
    def bands(self) -> tuple[int, ...]:
        """The epochs at which runs are compared, ascending; empty if max_iter is less than eta.

        >>> EarlyTerminate(type="hyperband", max_iter=27, s=2).bands
        (3, 9)
        >>> EarlyTerminate(type="hyperband", min_iter=2, eta=3).bands[:3]
        (2, 6, 18)
        """
        found: list[int] = []
        if self.max_iter is not None and self.s is not None:
            band = self.max_iter / self.eta
            while len(found) < min(int(self.s), MOST_BANDS) and band >= 1:
                found.append(int(band))
                band /= self.eta
            return tuple(reversed(found))
        if self.min_iter is None:
            return ()
        band = float(self.min_iter)
        while len(found) < MOST_BANDS and band <= LONGEST_RUN:
            found.append(int(band))
            band *= self.eta
        return tuple(found)


class Scheduler(Written):
    """The proposer of runs for ``method: custom``."""

    engine: Literal["optuna", "ax", "wandb"]
    source: Text | None = None
    """A Python file with the functions named below."""
    optimizer: Text | None = None
    """A function that returns the study."""
    search_space: Text | None = None
    """A define-by-run function: trial -> parameters."""


class Controller(BaseModel):
    """Where W&B runs its own search."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: Literal["local", "cloud"]


class SweepFile(Written):
    """One sweep file; ``to_plain`` gives back what was written."""

    apiVersion: Text | None = None
    kind: Literal["sweep"] | None = None
    """Both are accepted and ignored."""
    controller: Controller | None = None
    """Where W&B runs its own search."""
    description: Text | None = None
    program: Text | None = None
    """The program that the stock agent starts."""
    job: Text | None = None
    """A W&B Launch job."""
    image_uri: Text | None = None
    """A W&B Launch image."""
    entity: Text | None = None
    """The W&B user or team."""
    project: Text | None = None
    method: Literal["bayes", "random", "grid", "custom"]
    """How the next run is chosen."""
    command: Annotated[tuple[Any, ...], is_list] | None = None
    """The stock agent's command line, with macros."""
    name: Text | None = None
    """Shown in tables and on the W&B page."""
    run_cap: PositiveWhole | None = None
    """Maximum number of runs, over all agents."""
    metric: Metric | None = None
    """The objective."""
    metrics: Annotated[tuple[Metric, ...], is_list, Field(min_length=2)] | None = None
    """Several objectives, with method custom."""
    scheduler: Scheduler | None = None
    """With method custom."""
    early_terminate: EarlyTerminate | None = None
    """The rule that stops runs before their end."""
    parameters: Parameters | None = None
    """The search space; absent only if the scheduler has a search_space of its own."""

    @property
    def objectives(self) -> tuple[Metric, ...]:
        """The objectives, the most important first; empty if the file has none."""
        return self.metrics or ((self.metric,) if self.metric else ())

    @property
    def has_own_space(self) -> bool:
        """Whether the search space is the user's code, whose parameters are known only when it runs."""
        return self.scheduler is not None and self.scheduler.search_space is not None

    @property
    def has_own_code(self) -> bool:
        """Whether the user's code has a part in the search: its space, its study or both."""
        return self.scheduler is not None and self.scheduler.source is not None

    def to_plain(self) -> dict[str, Any]:
        """The file as it was written, in plain dictionaries and lists; ``parse_sweep`` reads it back."""
        plain: dict[str, Any] = _plain(self)
        return plain


def load_sweep_file(path: Path) -> tuple[SweepFile, dict[str, int]]:
    """Read and check a sweep file; also gives the line of every dotted key, for ``bind``.

    Raises:
        SweepFileError: With every problem found, each with its line and key.
    """
    document = read_document(path)
    return parse_sweep(document.data, source=str(path), lines=document.lines), document.lines


def parse_sweep(data: Any, *, source: str = "sweep", lines: Mapping[str, int] | None = None) -> SweepFile:
    """Check a sweep given as plain data; ``source`` names it in errors, ``lines`` has the line of every dotted key.

    >>> parse_sweep({"method": "random", "parameters": {"lr": {"min": 0.001, "max": 0.1}}}).method
    'random'

    Raises:
        SweepFileError: With every problem found.
    """
    if not isinstance(data, Mapping):
        what = "a list" if isinstance(data, list) else repr(data)
        hint = "it begins with lines such as method: random"
        raise SweepFileError(source, [Problem(f"is {what}, not a dictionary of settings", hint=hint)])
    problems = [*_contradictions(data)]
    try:
        sweep = SweepFile.model_validate(data)
    except ValidationError as error:
        if stranger := _stranger(data):
            raise SweepFileError(source, [stranger]) from None
        problems += _of_the_kind(data, problems_of(error, SweepFile))
    if problems:
        raise SweepFileError(source, in_file_order(problems, lines))
    return sweep


def as_written(value: Any, key: str = "") -> Any:
    """A sweep given in Python as a file would give it: tuples, ranges, arrays and numpy's numbers become plain.

    >>> as_written({"values": (1, 2)})
    {'values': [1, 2]}

    Raises:
        SweepFileError: A value that no file can hold; its key is named.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if key.count(".") > DEEPEST:
        raise SweepFileError("sweep", [Problem(f"is nested deeper than {DEEPEST} levels", key=key[:60])])
    if isinstance(value, Mapping):
        return {name: as_written(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [as_written(item, f"{key}.{place}".lstrip(".")) for place, item in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return str.__str__(value) if isinstance(value, str) else value  # a StrEnum is no text to YAML
    hint = "write numbers, text, True, False, lists and dictionaries"
    message = f"a value of type {type(value).__name__} cannot be part of a sweep"
    raise SweepFileError("sweep", [Problem(message, key=key, hint=hint)])


def _contradictions(data: Mapping[Any, Any]) -> Iterator[Problem]:
    """Problems of top-level keys that are valid by themselves but contradict each other."""
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


_LAUNCH = ("job", "num_workers", "resource", "resource_args", "queue", "project")
"""Settings of W&B Launch's own scheduler."""


def _stranger(data: Mapping[Any, Any]) -> Problem | None:
    """The one problem of a file that is for something else; None for a sweep file."""
    others = [str(key) for key in data if key not in SweepFile.model_fields]
    if data.get("kind") in ("local", "slurm", "ray"):
        return Problem(f"is a pool file (kind: {data['kind']}), not a sweep file", hint="fersweep agent --pool FILE")
    if {"method", "parameters", "metric", "metrics"} & data.keys() or not others:
        return None
    if any(hints.unknown_key(key) or suggest(key, list(SweepFile.model_fields)) for key in others):
        return None
    shown = ", ".join(others[:4]) + (" and others" if len(others) > 4 else "")
    return Problem(
        f"is not a sweep file: it has {shown}, but neither method nor parameters",
        hint="fersweep init copies sweep files to start from",
    )


def _of_the_kind(data: Mapping[Any, Any], problems: Sequence[Problem]) -> Iterator[Problem]:
    """The problems, with those of an anchor at the top and of Launch's scheduler told as such."""
    scheduler = data.get("scheduler")
    launch = isinstance(scheduler, Mapping) and "engine" not in scheduler and any(key in scheduler for key in _LAUNCH)
    if launch:
        hint = "remove scheduler:; fersweep agent --slots N and --per-gpu N set how many trials run at once"
        yield Problem("is W&B Launch's scheduler, which fersweep does not have", key="scheduler", hint=hint)
    for problem in problems:
        if launch and problem.key.startswith("scheduler."):
            continue
        given = data.get(problem.key)
        if problem.key not in SweepFile.model_fields and hints.anchored(problem.key, given, data.get("parameters")):
            hint = "W&B allows no such key: write the anchor (&name) where it is first used, under parameters:"
            problem = replace(problem, hint=hint)
        yield problem


def with_constants(sweep: SweepFile, values: Mapping[str, Any]) -> SweepFile:
    """Fix or add parameters by dotted name; ``augment.shift`` reaches into a nested one.

    Raises:
        SweepFileError: A name is not one a sweep file may hold.
    """
    plain = sweep.to_plain()
    for name, value in values.items():
        _fix(plain.setdefault("parameters", {}), name, value)
    return parse_sweep(plain)


def _fix(parameters: dict[str, Any], name: str, value: Any) -> None:
    group, dot, rest = name.partition(".")
    if name not in parameters and dot and "parameters" in parameters.get(group, {}):
        _fix(parameters[group]["parameters"], rest, value)
    else:
        parameters[name] = {"value": value}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(item) for name, item in value if name in value.model_fields_set}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
