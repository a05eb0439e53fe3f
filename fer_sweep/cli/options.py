"""The options that several commands share, and the agent that those of an agent start."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.printing import console, log_warnings, print_json, say
from fer_sweep.errors import InputError

if TYPE_CHECKING:
    from fer_sweep.agent.loop import AgentSummary
    from fer_sweep.sweeps import Sweep

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
SweepId = Annotated[
    str | None,
    typer.Argument(
        help="Sweep id, ENTITY/PROJECT/ID, or address on W&B [default: the last sweep created].",
        autocompletion=completing.sweep_ids,
    ),
]
Winner = Annotated[
    str | None,
    typer.Argument(
        help="Sweep whose winner to use [default: the last sweep searched].", autocompletion=completing.sweep_ids
    ),
]
SweepIds = Annotated[
    list[str] | None,
    typer.Argument(
        help="Sweep ids, ENTITY/PROJECT/ID or addresses on W&B [default: the last sweep].",
        autocompletion=completing.sweep_ids,
    ),
]
Trial = Annotated[str | None, typer.Option(help="Use this trial instead of the winner.")]
Trials = Annotated[list[str] | None, typer.Option(help="Only this trial; repeatable.")]
Folder = Annotated[Path | None, typer.Option(help="Use the model in this folder instead of a sweep's.")]
Data = Annotated[
    str | None,
    typer.Option(help="Data set to use instead of the configured one.", autocompletion=completing.datasets),
]
Device = Annotated[str, typer.Option(help="auto, cpu, or a GPU's number or UUID.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all cores].")]
Gpus = Annotated[
    str,
    typer.Option(
        help="auto, none, or GPU numbers and UUIDs such as 0,1.", autocompletion=completing.words("auto", "none")
    ),
]
PerGpu = Annotated[
    str,
    typer.Option(
        help="Slots per GPU: a number, or auto to measure the best one.", autocompletion=completing.words("auto")
    ),
]
Slots = Annotated[
    str | None,
    typer.Option(
        help="Slots on the CPU, which share its cores: a number, or auto to measure the best one "
        "[default: one per four cores].",
        show_default=False,
        autocompletion=completing.words("auto"),
    ),
]
OnOomWord = Literal["fail", "smaller_micro_batch", "fewer_slots"]
OnOomOption = Annotated[OnOomWord, typer.Option("--on-oom", help="What to do with a trial that runs out of memory.")]
HangAfter = Annotated[
    float | None,
    typer.Option(
        min=1.0,
        help="Seconds without a step after which a trial is killed [default: measured, at least 300].",
        show_default=False,
    ),
]
MirrorFolder = Annotated[
    Path | None,
    typer.Option(
        "--mirror",
        metavar="FOLDER",
        help="Copy all sweeps to this folder of a mounted drive, for `fersweep restore` on the next machine.",
    ),
]
UploadModels = Annotated[bool, typer.Option(help="Upload the best weights of complete trials to W&B.")]


@dataclass(frozen=True)
class AgentOptions:
    """The options of an agent; ``expanded`` makes each field an option of a command."""

    gpus: Gpus = "auto"
    per_gpu: PerGpu = "1"
    slots: Slots = None
    upload_models: UploadModels = False
    on_oom: OnOomOption = "fail"
    hang_after: HangAfter = None
    mirror: MirrorFolder = None

    def words(self, count: int | None) -> tuple[str, ...]:
        """The options as words of a command line, without those left at their defaults and without --mirror.

        Args:
            count: The agent's --count.

        Raises:
            InputError: An agent would refuse one.
        """
        _slot_count("--per-gpu", self.per_gpu)
        _slot_count("--slots", self.slots)
        given = {
            "--gpus": self.gpus if self.gpus != "auto" else None,
            "--per-gpu": self.per_gpu if self.per_gpu != "1" else None,
            "--slots": self.slots,
            "--count": count,
            "--on-oom": self.on_oom if self.on_oom != "fail" else None,
            "--hang-after": self.hang_after,
        }
        words = [f"{name}={value}" for name, value in given.items() if value is not None]
        return (*words, *(["--upload-models"] if self.upload_models else []))


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a dataclass, such as AgentOptions, by its fields, for typer to read."""
    parameters = inspect.signature(command).parameters
    records: dict[str, Any] = {name: p.annotation for name, p in parameters.items() if is_dataclass(p.annotation)}
    flat: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        options = fields(records[name]) if name in records else ()
        flat += [
            parameter.replace(name=option.name, default=option.default, annotation=option.type) for option in options
        ] or [parameter]
    flat = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in flat]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in records.items()}
        command(**given, **made)

    vars(call)["__signature__"] = inspect.Signature(flat)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return call


def work(
    sweep: "Sweep", options: AgentOptions, *, count: int | None = None, as_json: bool = False, quiet: bool = False
) -> "AgentSummary":
    """Run an agent on a sweep.

    Args:
        sweep: The sweep.
        options: The agent's.
        count: Its --count.
        as_json: Print one JSON document at the end.
        quiet: Leave stdout to the calling command.
    """
    from fer_sweep.agent.failures import OnOom
    from fer_sweep.agent.session import slots_here, work_on

    log_warnings()
    places = slots_here(
        sweep,
        options.gpus,
        per_gpu=_slot_count("--per-gpu", options.per_gpu),
        slots=_slot_count("--slots", options.slots),
        measure_cpu=options.slots == "auto",
        say=say,
    )
    summary = work_on(
        sweep,
        places,
        console=console(stderr=as_json or quiet),
        count=count,
        keep_models=options.upload_models,
        on_oom=OnOom(options.on_oom),
        hang_after_s=options.hang_after,
        mirror=options.mirror,
    )
    if as_json:
        ended = {str(state): number for state, number in summary.ended.items()}
        print_json({"sweep": sweep.id, "ended": ended, "interrupted": summary.interrupted})
    if summary.turnaround_s:
        waits = sorted(summary.turnaround_s)
        say(f"from the end of a trial to the next one's first step: {waits[len(waits) // 2]:.2f} s (median)")
    return summary


def _slot_count(option: str, text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{option} {text}: not a number or auto") from None
