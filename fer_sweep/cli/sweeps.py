"""Commands that make sweeps, work on them and steer them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.pooling import HowMany, PoolPath, work_in_pool
from fer_sweep.cli.printing import (
    TRIAL_COLUMNS,
    print_json,
    print_table,
    print_text,
    say,
    trial_json,
    trial_rows,
)
from fer_sweep.cli.results import show_best
from fer_sweep.cli.working import (
    Gpus,
    HangAfter,
    MirrorFolder,
    OnOomWord,
    PerGpu,
    Slots,
    UploadModels,
    options_of,
    work,
)
from fer_sweep.errors import InputError, NothingToDo, ServerError

if TYPE_CHECKING:
    from fer_sweep.sweeps import Sweep

File = Annotated[
    Path,
    typer.Argument(
        help="A sweep file in W&B's format.", metavar="FILE", show_default=False, autocompletion=completing.sweep_files
    ),
]
SweepId = Annotated[
    str | None,
    typer.Argument(
        help="A sweep's id, ENTITY/PROJECT/ID or address on W&B; the last one created if left out.",
        autocompletion=completing.sweep_ids,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Data = Annotated[
    str | None,
    typer.Option(help="Data set to train on, whatever the file says.", autocompletion=completing.datasets),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Fix a parameter to a constant; repeatable.")
]
Cap = Annotated[int | None, typer.Option("--count", min=1, help="At most this many trials in the sweep.")]
SearchName = Annotated[
    str | None,
    typer.Option(
        "--search",
        help="What proposes the trials: wandb or optuna [default: wandb if you are logged in].",
        autocompletion=completing.words("wandb", "optuna"),
    ),
]
Entity = Annotated[str | None, typer.Option(help="W&B user or team, whatever environment and file say.")]
Project = Annotated[str | None, typer.Option(help="W&B project, whatever environment and file say.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where the search lives: sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE "
        "[default: FERSWEEP_STORAGE, or .fersweep/sweeps.db].",
    ),
]
MaxGap = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Largest train-val gap of a solution, such as 0.15.")
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of the embedded search [default: 0].", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (validate, create, agent, run, status, retry):
        app.command()(command)
    for name, state, effect in (
        ("pause", "paused", "Hand out no new trials for now; running ones finish."),
        ("resume", "running", "Hand out trials again, after pause or stop."),
        ("stop", "stopped", "Hand out no new trials; running ones finish."),
        ("cancel", "cancelled", "Stop for good: running trials checkpoint and end."),
    ):
        app.command(name, help=f"{effect}\n\nExample: fersweep {name}")(_state_command(state))


def validate(
    file: File,
    schema_only: Annotated[
        bool, typer.Option("--schema-only", help="Check W&B's schema alone, not that parameters can be trained with.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a sweep file and show every error at once.

    Example: fersweep validate sweeps/resnet.yaml
    """
    from fer_sweep.errors import SweepFileError

    try:
        if schema_only:
            from fer_sweep.config.sweep_file import load_sweep_file

            load_sweep_file(file)
        else:
            from fer_sweep.sweeps.creating import checked

            checked(file, note=_note)
    except SweepFileError as error:
        if as_json:
            problems = [{"line": p.line, "key": p.key, "message": p.message, "hint": p.hint} for p in error.problems]
            print_json({"file": str(file), "valid": False, "problems": problems})
        raise
    if as_json:
        print_json({"file": str(file), "valid": True, "problems": []})
    else:
        print_text(f"{file}: valid")
    say(f"next: fersweep create {file}")


def create(
    file: File,
    data: Data = None,
    fixed: Set = None,
    count: Cap = None,
    search: SearchName = None,
    storage: Storage = None,
    max_gap: MaxGap = None,
    seed: Seed = None,
    entity: Entity = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Make a sweep from a file and print its id.

    Example: fersweep create sweeps/simple_cnn.yaml --set epochs=10 --count 12
    """
    with _create(
        file,
        data,
        fixed,
        count=count,
        search=search,
        storage=storage,
        max_gap=max_gap,
        seed=seed,
        entity=entity,
        project=project,
    ) as made:
        url = made.entry.url
        if as_json:
            print_json({"sweep": made.id, "search": made.entry.search, "url": url})
        else:
            print_text(made.id)
    if url:
        say(f"its page: {url}")
    say(f"next: fersweep agent {made.argument}")


def agent(
    sweep: SweepId = None,
    gpus: Gpus = "auto",
    per_gpu: PerGpu = "1",
    slots: Slots = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after this many trials; one gone on with counts again.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Queue failed trials again first.")] = False,
    upload_models: UploadModels = False,
    on_oom: OnOomWord = "fail",
    hang_after: HangAfter = None,
    mirror: MirrorFolder = None,
    pool: PoolPath = None,
    agents: HowMany = None,
    as_json: Json = False,
) -> None:
    """Work on a sweep until it is exhausted, stopped or at its cap.

    Ctrl-C once: no new trials. Twice: checkpoint and stop. Three times: kill. Run the same command to go on.

    With --pool, agents are started elsewhere and followed. On Slurm they work on without this command: Ctrl-C ends the
    following, and a second one within five seconds ends the agents too, with checkpoints. On Ray they end with it.

    Example: fersweep agent --gpus 0,1 --per-gpu 2
    """
    from fer_sweep.sweeps import open_sweep

    if agents is not None and pool is None:
        raise InputError("--agents goes with --pool FILE", hint="on this host: --pool agents/local.yaml")
    if mirror is not None and pool is not None:
        raise InputError("--mirror is for an agent on this host", hint="leave one of --mirror and --pool out")
    care: dict[str, Any] = {"upload_models": upload_models, "on_oom": on_oom, "hang_after": hang_after}
    with open_sweep(sweep, note=_note) as opened:
        if retry_failed and (queued := opened.retry()):
            say(f"queued again: trial {', '.join(queued)}")
        if pool is not None:
            options = options_of(gpus, per_gpu, slots, count, **care)
            interrupted = work_in_pool(opened, pool, agents, options, as_json=as_json)
        else:
            interrupted = work(opened, gpus, per_gpu, slots, count, **care, mirror=mirror, as_json=as_json)
    if interrupted:
        resuming = f"agent {opened.id} resumes it"
        say(f"next: fersweep {resuming if pool is None else f'status {opened.id}'}")
        raise typer.Exit(130)
    say(f"next: fersweep {_choosing(opened)} {opened.id}")


def run(
    file: File,
    data: Data = None,
    fixed: Set = None,
    count: Cap = None,
    search: SearchName = None,
    storage: Storage = None,
    max_gap: MaxGap = None,
    seed: Seed = None,
    entity: Entity = None,
    project: Project = None,
    gpus: Gpus = "auto",
    per_gpu: PerGpu = "1",
    slots: Slots = None,
    upload_models: UploadModels = False,
    on_oom: OnOomWord = "fail",
    hang_after: HangAfter = None,
    mirror: MirrorFolder = None,
    as_json: Json = False,
) -> None:
    """Create a sweep, work on it and show the winner: create, agent and best in one.

    Example: fersweep run sweeps/simple_cnn.yaml --data synthetic --set epochs=4 --count 6
    """
    if mirror is not None:
        from fer_sweep.mirror.copying import check_mirrored
        from fer_sweep.mirror.mark import check_mirror

        # Before a sweep is made: in a home that has one, the mirror of a former machine is not restored any more.
        check_mirror(mirror)
        check_mirrored(storage)
    care: dict[str, Any] = {
        "upload_models": upload_models,
        "on_oom": on_oom,
        "hang_after": hang_after,
        "mirror": mirror,
    }
    with _create(
        file,
        data,
        fixed,
        count=count,
        search=search,
        storage=storage,
        max_gap=max_gap,
        seed=seed,
        entity=entity,
        project=project,
    ) as made:
        say(f"sweep {made.id}")
        if work(made, gpus, per_gpu, slots, None, **care, as_json=False, quiet=as_json):
            say(f"next: fersweep agent {made.id} resumes it")
            raise typer.Exit(130)
        show_best([made], as_json=as_json)


def status(sweep: SweepId = None, as_json: Json = False) -> None:
    """Show a sweep's trials and where each stands.

    Example: fersweep status
    """
    from fer_sweep.sweeps import open_sweep

    with open_sweep(sweep) as opened:
        records = opened.trials()
        try:
            state = opened.state
        except ServerError as error:
            state = "unknown"
            _note(str(error))
    if as_json:
        print_json({"sweep": opened.id, "state": state, "trials": [trial_json(record) for record in records]})
        return
    title = f"sweep {opened.id} ({opened.entry.name or 'no name'}): {state}"
    print_table(title, TRIAL_COLUMNS, trial_rows(records), key="trial")
    command = {"running": "agent", "paused": "resume", "stopped": "resume"}.get(state, _choosing(opened))
    say(f"next: fersweep {command} {opened.id}")


def retry(
    sweep: SweepId = None,
    trial: Annotated[list[str] | None, typer.Option(help="Only this trial; repeatable.")] = None,
) -> None:
    """Queue failed trials again, once their cause is mended; each resumes from its last checkpoint.

    A finished sweep runs again.

    Example: fersweep retry --trial 3
    """
    from fer_sweep.sweeps import open_sweep

    with open_sweep(sweep) as opened:
        queued = opened.retry(trial or ())
    if not queued:
        raise NothingToDo(f"no trial of sweep {opened.id} has failed", hint=f"see them: fersweep status {opened.id}")
    print_text(f"sweep {opened.id}: queued again: trial {', '.join(queued)}")
    say(f"next: fersweep agent {opened.id}")


def _choosing(sweep: "Sweep") -> str:
    return "best" if sweep.entry.confirms is None else "confirm"


def _create(file: Path, data: str | None, fixed: list[str] | None, **options: Any) -> "Sweep":
    from fer_sweep.sweeps import creating

    constants = dict(_constant(text) for text in fixed or [])
    if data is not None:
        constants["data"] = data
    return creating.create(file, constants=constants, note=_note, **options)


def _note(text: str) -> None:
    say(f"note: {text}")


def _constant(text: str) -> tuple[str, Any]:
    from fer_sweep.config.sweep_yaml import parse_document

    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise InputError(f"--set {text}: not KEY=VALUE", hint="such as --set epochs=2")
    return name.strip(), parse_document(value, source=f"--set {text}").data


def _state_command(state: str) -> Callable[[str | None], None]:
    def change(sweep: SweepId = None) -> None:
        from fer_sweep.sweeps import open_sweep

        with open_sweep(sweep) as opened:
            opened.set_state(state)
        print_text(f"sweep {opened.id}: {state}")
        say(f"next: fersweep {'agent' if state == 'running' else 'status'} {opened.id}")

    return change
