"""The pool file, ``agents/*.yaml``: where agents run, as frozen models, with every problem reported at its line.

The values of a Slurm pool file become arguments of ``sbatch`` and words of a batch script, so each one is checked
against a pattern: none can end a line, a word or an option.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SkipValidation,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from fer_sweep.config.problems import in_file_order, problems_of
from fer_sweep.config.sweep_yaml import read_document
from fer_sweep.config.trial import suggest
from fer_sweep.config.values import NotNegative, Positive, Whole, Written, between, is_list, must, refusal
from fer_sweep.errors import PoolFileError, Problem, SweepFileError

NEEDS = "a pool file needs kind: local, kind: slurm or kind: ray"
MOST_AGENTS = 1000
"""Slurm's usual MaxArraySize is 1001."""
LONGEST_NOTICE_S = 65_535
"""Slurm's own limit on ``--signal``."""
MOST_GPUS = 64
"""GPUs of one agent, which runs on one node."""
SMALLEST_SHARE = 0.01
"""Of a GPU."""

_OWN = {
    "account": "account",
    "array": "agents and at_once",
    "cpus-per-task": "cpus",
    "gres": "gres",
    "mem": "memory",
    "partition": "partition",
    "qos": "qos",
    "signal": "notice_s",
    "time": "time",
}
"""Options of sbatch with a key of their own in a pool file."""
_RESERVED = [
    *("chdir", "error", "export", "export-file", "job-name", "no-requeue", "nodes", "ntasks", "open-mode", "output"),
    *("parsable", "requeue", "test-only", "wait", "wrap"),
]
"""Options of sbatch that fersweep sets to start, follow and requeue agents."""


def _text(pattern: str, what: str, hint: str) -> AfterValidator:
    return must(lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII), f"is not {what}", hint)


def _seconds(value: str) -> int:
    """A Slurm time limit in seconds.

    >>> _seconds("90"), _seconds("30:00"), _seconds("12:00:00"), _seconds("1-12")
    (5400, 1800, 43200, 129600)
    """
    days, dash, rest = value.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:  # minutes[:seconds]
        hours, minutes, seconds = 0, *(*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _words(value: Any) -> tuple[str, ...]:
    hint = "words as in a shell, without its operators: apptainer exec --nv /shared/fersweep.sif"
    if not isinstance(value, str) or not value.isprintable():
        raise refusal(f"{value!r} is not one line of text", hint)
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise refusal(f"{value!r} cannot be split into words: {str(error).lower()}", hint) from None
    if not words or not all(words):
        raise refusal(f"{value!r} has no words, or an empty one", hint)
    if operator := next((word for word in words if re.search(r"[;&|<>`$]", word)), None):
        raise refusal(f"{operator!r} would be passed on as it is: no shell reads it", hint)
    return words


def _is_amount(gpus: float) -> bool:
    return gpus == 0 or SMALLEST_SHARE <= gpus <= 1 or (gpus <= MOST_GPUS and gpus == int(gpus))


def _resource_names(value: Any) -> Any:
    hint = "names and amounts, as in resources: {accelerator_type:A100: 0.001}"
    if not isinstance(value, Mapping) or not value:
        raise refusal(f"{value!r} is not a dictionary of resources", hint)
    for name in value:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][\w.:-]*", name, re.ASCII):
            raise refusal(f"{name!r} is not the name of a resource", hint)
        if own := {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}.get(name):
            raise refusal(f"{name} has its own key", f"write {own}")
        if name == "object_store_memory":
            raise refusal(f"{name} is of no use to agents", "they do not use Ray's object store")
    return value


def _sbatch_option(value: Any) -> str:
    match = re.fullmatch(r"--([a-z][a-z-]*)(=.+)?", value) if isinstance(value, str) and value.isprintable() else None
    if match is None:
        raise refusal(f"{value!r} is not a long option of sbatch", "one option each, such as --constraint=a100")
    # sbatch accepts any unique prefix of an option's name.
    for option, key in _OWN.items():
        if option.startswith(match[1]):
            raise refusal(f"{value!r} has its own key", f"write {key}")
    if any(option.startswith(match[1]) for option in _RESERVED):
        raise refusal(f"{value!r} is set by fersweep", "to follow and requeue its agents")
    return str(value)


_NAME = r"[A-Za-z0-9][\w.+-]*"
_GRES = rf"{_NAME}(:{_NAME})?(:\d+)?"
_TIME = r"\d{1,4}-\d{1,2}(:\d{1,2}){0,2}|\d{1,6}(:\d{1,2}){0,2}"
_TIME_HINT = 'in quotes: time: "12:00:00" (hours, minutes, seconds) or "1-12:00:00" (with days)'

_Any = Annotated[str, SkipValidation]
Name = Annotated[_Any, _text(_NAME, "a name in Slurm", "letters, digits, _ . + and -")]
Names = Annotated[
    _Any, _text(f"{_NAME}(,{_NAME})*", "a partition", "its name as sinfo shows it; several: gpu,gpu-long")
]
Gres = Annotated[_Any, _text(rf"{_GRES}(,{_GRES})*", "a gres", "such as gpu:1, gpu:a100:2 or shard:4")]
Memory = Annotated[_Any, _text(r"\d{1,7}[KMGT]", "an amount of memory", "a number and K, M, G or T, such as 16G")]
Time = Annotated[
    _Any,
    must(lambda value: not isinstance(value, int), "is a number in YAML", _TIME_HINT),
    _text(_TIME, "a time limit", _TIME_HINT),
    must(lambda value: _seconds(value) >= 60, "is less than a minute", "Slurm counts whole minutes"),
]
_MODULE_HINT = "as shown by `module avail`, such as cuda/12.4"
Module = Annotated[_Any, _text(r"[A-Za-z0-9][\w./+-]*", "the name of a module", _MODULE_HINT)]
Address = Annotated[
    _Any,
    must(
        lambda value: not str(value).startswith("ray://"),
        "is an address for Ray Client, which ends agents when the network fails",
        "start on a node of the cluster with address: auto",
    ),
    _text(
        r"auto|[A-Za-z0-9][\w.-]*:[1-9]\d{0,4}",
        "an address of a Ray cluster",
        "auto on a node of the cluster, or HOST:PORT of `ray start`; leave it out for a Ray of this host alone",
    ),
]
Agents = Annotated[Whole, between(1, MOST_AGENTS)]
Cpus = Annotated[Whole, between(1, 1024)]
Gpus = Annotated[
    NotNegative,
    must(_is_amount, "is not a number of GPUs", f"a whole number up to {MOST_GPUS}, or a share such as 0.5"),
]
Words = Annotated[tuple[str, ...], PlainValidator(_words)]


class _Pool(Written):
    agents: Agents = 1
    """Number of agents; overridden by ``--agents`` on the command line."""


class LocalPool(_Pool):
    """Agents as processes on this host."""

    kind: Literal["local"]


class SlurmPool(_Pool):
    """Agents as the elements of a Slurm job array."""

    kind: Literal["slurm"]
    at_once: Agents | None = None
    """Maximum number of agents that run at the same time."""
    partition: Names | None = None
    """Partitions of the jobs; None for the cluster's default."""
    account: Name | None = None
    """Account that is charged."""
    qos: Name | None = None
    gres: Gres | None = None
    """GPUs of each agent: whole ones, or shards of one."""
    cpus: Cpus | None = None
    """CPU cores of each agent."""
    memory: Memory | None = None
    """Main memory of each agent."""
    time: Time | None = None
    """Time limit of each job, in the format of sbatch."""
    notice_s: Annotated[Whole, between(1, LONGEST_NOTICE_S), Field(validate_default=True)] = 120
    """Seconds before the time limit at which trials are checkpointed and the job is requeued."""
    modules: Annotated[tuple[Module, ...], is_list] = ()
    """Environment modules loaded before the agent starts."""
    container: Words | None = None
    """Prefix of the agent's command, such as ``apptainer exec --nv IMAGE``."""
    command: Words | None = None
    """The command of fersweep on a node; None for the Python of this command."""
    sbatch: Annotated[tuple[Annotated[str, PlainValidator(_sbatch_option)], ...], is_list] = ()
    """Further options of sbatch."""

    @field_validator("notice_s")
    @classmethod
    def _leaves_time_to_train(cls, notice_s: int, info: ValidationInfo) -> int:
        time = info.data.get("time")
        if time and notice_s >= _seconds(time):
            raise refusal(f"{notice_s} s leave no time to train", f"less than time, which is {_seconds(time)} s")
        return notice_s


class RayPool(_Pool):
    """Agents as actors of a Ray cluster."""

    kind: Literal["ray"]
    address: Address | None = None
    """``auto`` for the cluster that this host is a node of, or HOST:PORT; None for a cluster of this host alone, which
    ends with the command."""
    gpus: Gpus = 0.0
    """GPUs of each agent: whole ones, or a share of one."""
    cpus: Cpus = 1
    """CPU cores of each agent."""
    memory: Memory | None = None
    """Main memory of each agent."""
    resources: Annotated[dict[str, Positive], BeforeValidator(_resource_names)] = Field(default_factory=dict)
    """Further resources of each agent, by Ray's names."""
    command: Words | None = None
    """The command of fersweep on a node; None for the Python of this command."""


PoolFile = LocalPool | SlurmPool | RayPool
KINDS: Mapping[str, type[PoolFile]] = {"local": LocalPool, "slurm": SlurmPool, "ray": RayPool}
"""The model of each kind."""


def load_pool_file(path: Path) -> PoolFile:
    """Read and check a pool file.

    Raises:
        PoolFileError: With every problem found, each with its line and key.
    """
    try:
        document = read_document(path, needs=NEEDS)
    except SweepFileError as error:
        raise PoolFileError(error.source, error.problems) from None
    return parse_pool(document.data, source=str(path), lines=document.lines)


def parse_pool(data: Any, *, source: str = "pool", lines: Mapping[str, int] | None = None) -> PoolFile:
    """Check a pool given as plain data; ``source`` names it in errors, ``lines`` has the line of every dotted key.

    >>> parse_pool({"kind": "slurm", "partition": "gpu"}).agents
    1

    Raises:
        PoolFileError: With every problem found.
    """
    if not isinstance(data, Mapping):
        raise PoolFileError(source, [Problem("is not a dictionary of settings", hint=NEEDS)])
    if "apiVersion" in data:
        hint = f"Kubernetes starts these agents: kubectl apply -f {source}"
        raise PoolFileError(source, [Problem("is a manifest of Kubernetes, not a pool file", hint=hint)])
    kind = data.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        hint = suggest(str(kind), list(KINDS)) or f"one of {', '.join(KINDS)}"
        message = "missing" if "kind" not in data else f"unknown kind {kind!r}"
        raise PoolFileError(source, in_file_order([Problem(message, key="kind", hint=hint)], lines))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise PoolFileError(source, in_file_order(problems_of(error, model), lines)) from None
