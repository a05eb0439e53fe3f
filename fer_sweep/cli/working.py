"""The options of an agent, and the agent they start: for every command that trains a sweep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.printing import log_warnings, print_json, say
from fer_sweep.errors import InputError

if TYPE_CHECKING:
    from fer_sweep.agent.failures import OnOom
    from fer_sweep.sweeps import Sweep

Gpus = Annotated[
    str,
    typer.Option(help="auto, none, or numbers and UUIDs such as 0,1.", autocompletion=completing.words("auto", "none")),
]
PerGpu = Annotated[
    str,
    typer.Option(
        help="Slots sharing each GPU: a number, or auto to measure how many pay.",
        autocompletion=completing.words("auto"),
    ),
]
Slots = Annotated[
    str | None,
    typer.Option(
        help="Slots on the CPU, its cores divided among them: a number, or auto to measure how many pay "
        "[default: one for every four cores].",
        show_default=False,
        autocompletion=completing.words("auto"),
    ),
]
OnOomWord = Annotated[
    str,
    typer.Option(
        "--on-oom",
        help="A trial out of memory: fail, smaller_micro_batch or fewer_slots.",
        autocompletion=completing.words("fail", "smaller_micro_batch", "fewer_slots"),
    ),
]
HangAfter = Annotated[
    float | None,
    typer.Option(
        min=1.0,
        help="End a trial that has made no step for so many seconds [default: learnt, five minutes at least].",
        show_default=False,
    ),
]
MirrorFolder = Annotated[
    Path | None,
    typer.Option(
        "--mirror",
        metavar="FOLDER",
        help="Keep a copy of all sweeps in a folder of a mounted drive, for `fersweep restore` on the next machine.",
    ),
]
UploadModels = Annotated[bool, typer.Option(help="Upload the best weights of complete trials to W&B.")]


def work(
    sweep: "Sweep",
    gpus: str,
    per_gpu: str,
    slots: str | None,
    count: int | None,
    *,
    upload_models: bool,
    on_oom: str,
    hang_after: float | None,
    mirror: Path | None = None,
    as_json: bool,
    quiet: bool = False,
) -> bool:
    """Run an agent on a sweep as its options say; returns whether a signal cut it short."""
    from fer_sweep.agent.session import slots_here, work_on
    from fer_sweep.cli.console import PatientConsole

    when_oom = _when_oom(on_oom)
    log_warnings()
    places = slots_here(
        sweep,
        gpus,
        per_gpu=_slot_count("--per-gpu", per_gpu),
        slots=_slot_count("--slots", slots),
        measure_cpu=slots == "auto",
        say=say,
    )
    summary = work_on(
        sweep,
        places,
        console=PatientConsole(stderr=as_json or quiet),
        count=count,
        keep_models=upload_models,
        on_oom=when_oom,
        hang_after_s=hang_after,
        mirror=mirror,
    )
    if as_json:
        ended = {str(state): number for state, number in summary.ended.items()}
        print_json({"sweep": sweep.id, "ended": ended, "interrupted": summary.interrupted})
    if summary.turnaround_s:
        waits = sorted(summary.turnaround_s)
        say(f"from one trial's end to the next one's first step: {waits[len(waits) // 2]:.2f} s (median)")
    return summary.interrupted


def options_of(
    gpus: str,
    per_gpu: str,
    slots: str | None,
    count: int | None,
    *,
    upload_models: bool,
    on_oom: str,
    hang_after: float | None,
) -> tuple[str, ...]:
    """The options of an agent as words of a command line, those left at their defaults left out.

    Raises:
        InputError: One that an agent would refuse.
    """
    from fer_sweep.agent.failures import OnOom

    _slot_count("--per-gpu", per_gpu)
    _slot_count("--slots", slots)
    _when_oom(on_oom)
    given = {
        "--gpus": gpus if gpus != "auto" else None,
        "--per-gpu": per_gpu if per_gpu != "1" else None,
        "--slots": slots,
        "--count": count,
        "--on-oom": on_oom if on_oom != OnOom.FAIL else None,
        "--hang-after": hang_after,
    }
    words = [f"{name}={value}" for name, value in given.items() if value is not None]
    return (*words, *(["--upload-models"] if upload_models else []))


def _when_oom(word: str) -> "OnOom":
    from fer_sweep.agent.failures import OnOom

    if word not in list(OnOom):
        raise InputError(f"--on-oom {word}: not known", hint=f"one of {', '.join(OnOom)}")
    return OnOom(word)


def _slot_count(option: str, text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{option} {text}: neither a number nor auto") from None
