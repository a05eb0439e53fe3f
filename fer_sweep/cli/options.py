"""The options that several commands share, and their completions in the shell.

Completions come from file names alone, because a person waits: no heavy import, no database, no server. Unreadable
files are skipped, since a message would appear in the middle of the command line. Typer drops those that do not begin
with what is typed.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fer_sweep.config.samplers import Sampler
from fer_sweep.errors import InputError
from fer_sweep.files import data_folder, home, read_json


def sweep_ids(incomplete: str) -> list[tuple[str, str]]:
    """Sweeps of this home by id and by name, newest first; as ENTITY/PROJECT/ID once a slash is typed."""
    found = []
    for path in (home() / "sweeps").glob("*/sweep.json"):
        with contextlib.suppress(OSError, ValueError):
            entry = read_json(path)
            word = entry.get("path") if "/" in incomplete else path.parent.name
            if isinstance(word, str):
                found.append((path.stat().st_mtime, word, str(entry.get("name") or "")))
    ids = {word: name for _, word, name in sorted(found, reverse=True)}
    given = list(ids.values())
    # A name with a space would have to be quoted as the user's shell does.
    names = {name: word for word, name in ids.items() if given.count(name) == 1 and len(name.split()) == 1}
    return [*ids.items(), *({} if "/" in incomplete else names).items()]


def datasets() -> list[str]:
    """The prepared data sets and `synthetic`."""
    with contextlib.suppress(OSError):
        return [*sorted(path.stem for path in data_folder().glob("*.json")), "synthetic"]
    return []


def sweep_files(incomplete: str) -> list[str]:
    """YAML files in the folder that is typed, or here and in `sweeps/`; without any, the shell completes paths."""
    folder, separator, _ = incomplete.rpartition("/")
    if folder.startswith("~"):
        return []  # the completion would have to replace the ~
    found = []
    for place in [folder + separator] if separator else ["", "sweeps/"]:
        with contextlib.suppress(OSError):
            found += [place + path.name for path in Path(place or ".").iterdir() if path.suffix in (".yaml", ".yml")]
    return sorted(found)


def parameter_names() -> list[str]:
    """The fields of all architectures, to be followed by their values."""
    from fer_sweep.config.trial import FIELDS  # only here: pydantic takes a tenth of a second

    return [f"{name}=" for name in FIELDS]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
SweepId = Annotated[
    str | None,
    typer.Argument(
        metavar="SWEEP",
        help="Sweep: name, id or its beginning, or on W&B ENTITY/PROJECT/ID [default: the last one searched].",
        autocompletion=sweep_ids,
    ),
]
SweepIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SWEEP",
        help="Sweeps: names, ids or their beginnings, or on W&B ENTITY/PROJECT/ID [default: the last one searched].",
        autocompletion=sweep_ids,
    ),
]
OF_WINNER = "Sweep whose winner to use [default: the last sweep searched]."
Winner = Annotated[str | None, typer.Argument(metavar="SWEEP", help=OF_WINNER, autocompletion=sweep_ids)]
Trial = Annotated[str | None, typer.Option(metavar="ID", help="Use this trial instead of the winner.")]
Trials = Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this trial; repeatable.")]
Folder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Use the model in this folder instead of a sweep's.")
]
Data = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Data set to use instead of the configured one.", autocompletion=datasets),
]
Device = Annotated[
    str,
    typer.Option(metavar="auto|cpu|mps|GPU", help="auto, cpu, mps (Apple's GPU), or an NVIDIA GPU's number or UUID."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all cores].")]
UploadModels = Annotated[bool, typer.Option(help="Upload the best weights of complete trials to W&B.")]
File = Annotated[
    Path,
    typer.Argument(
        help="A sweep file in W&B's format.", metavar="FILE", show_default=False, autocompletion=sweep_files
    ),
]


@dataclass(frozen=True)
class SweepOptions:
    """The options of a new sweep; ``expanded`` makes each field an option of a command."""

    name: Annotated[str | None, typer.Option(help="Name of the sweep [default: that of its file].")] = None
    data: Data = None
    fixed: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Fix a parameter to a constant; repeatable.",
            autocompletion=parameter_names,
        ),
    ] = None
    count: Annotated[int | None, typer.Option(min=1, help="Largest number of trials in the sweep.")] = None
    search: Annotated[
        Literal["wandb", "optuna"] | None,
        typer.Option(
            help="What proposes the trials: the W&B server or the embedded search "
            "[default: wandb if you are logged in]."
        ),
    ] = None
    sampler: Annotated[
        Sampler | None,
        typer.Option(
            help="What searches a sweep of method bayes "
            "[default: freeze-thaw without early_terminate in the file, where it fits; else tpe]."
        ),
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database of the embedded search: sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE "
            "[default: FERSWEEP_STORAGE, or .fersweep/sweeps.db].",
        ),
    ] = None
    max_gap: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Largest train-val gap the winner may have, such as 0.15.")
    ] = None
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of the embedded search [default: 0].")
    ] = None
    budget_epochs: Annotated[
        int | None, typer.Option(min=1, help="Start no new trial once all trials have trained so many epochs.")
    ] = None
    until_converged: Annotated[
        bool,
        typer.Option(
            "--until-converged",
            help="Finish once as many epochs again would hardly gain more than one standard error.",
        ),
    ] = False
    start_from: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="SWEEP",
            help="Begin with the best configurations of this sweep, and learn from its trials; repeatable.",
            autocompletion=sweep_ids,
        ),
    ] = None
    entity: Annotated[str | None, typer.Option(help="W&B user or team; overrides environment and file.")] = None
    project: Annotated[str | None, typer.Option(help="W&B project; overrides environment and file.")] = None


@dataclass(frozen=True)
class AgentOptions:
    """The options of an agent."""

    gpus: Annotated[
        str,
        typer.Option(
            metavar="auto|none|mps|GPU,...",
            help="auto, none, mps (Apple's GPU), or numbers and UUIDs of NVIDIA GPUs such as 0,1.",
            autocompletion=lambda: ["auto", "none", "mps"],
        ),
    ] = "auto"
    per_gpu: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Slots per GPU: a number, or auto to measure the best one.",
            autocompletion=lambda: ["auto"],
        ),
    ] = "1"
    slots: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Slots on the CPU, which share its cores: a number, or auto to measure the best one "
            "[default: one per four cores].",
            autocompletion=lambda: ["auto"],
        ),
    ] = None
    upload_models: UploadModels = False
    on_oom: Annotated[
        Literal["fail", "smaller_micro_batch", "fewer_slots"],
        typer.Option(help="What to do with a trial that runs out of memory."),
    ] = "fail"
    hang_after: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Seconds without a step after which a trial is killed [default: measured, at least 300].",
        ),
    ] = None
    hours: Annotated[
        float | None,
        typer.Option(min=0.01, max=8760, help="End after this many hours, with checkpoints of what is still running."),
    ] = None
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="End at this time: 18:30, or 2026-12-01T08:00.")
    ] = None
    mirror: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Copy all sweeps to this folder of a mounted drive, for `fersweep restore` on the next machine.",
        ),
    ] = None

    @property
    def slot_counts(self) -> tuple[int | None, int | None]:
        """Slots per GPU and on the CPU; None for one that is measured or not given.

        Raises:
            InputError: One is neither a number nor auto.
        """
        return _slot_count("--per-gpu", self.per_gpu), _slot_count("--slots", self.slots)

    def check_slots(self) -> None:
        """Raise ``InputError`` if this host does not have the slots that they ask for."""
        from fer_sweep.agent.session import check_slots

        per_gpu, slots = self.slot_counts
        check_slots(self.gpus, per_gpu=per_gpu, slots=slots)

    def words(self, count: int | None) -> tuple[str, ...]:
        """The options as words of a command line with ``--count``, without those left at their defaults."""
        _ = self.slot_counts  # refused here rather than by every agent
        given = {**vars(self), "count": count}
        changed = {name: value for name, value in given.items() if value != getattr(AgentOptions, name, None)}
        return tuple(
            f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in changed.items()
        )


def _slot_count(option: str, text: str | None) -> int | None:
    try:
        return None if text is None or text == "auto" else int(text)
    except ValueError:
        raise InputError(f"{option} {text}: not a number or auto") from None


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a dataclass, such as AgentOptions, by its fields, for typer to read."""
    records: dict[str, Any] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(parameter.annotation):
            records[name] = parameter.annotation
            flat += [
                parameter.replace(name=option.name, default=option.default, annotation=option.type)
                for option in fields(parameter.annotation)
            ]
        else:
            flat.append(parameter)

    @functools.wraps(command)
    def call(**given: Any) -> None:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in records.items()}
        command(**given, **made)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in flat]
    vars(call)["__signature__"] = inspect.Signature(keyword_only)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return call
