"""Commands that create sweeps, work on them and change their state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.options import AgentOptions, Data, Json, SweepId, Trials, expanded, work
from fer_sweep.cli.pooling import HowMany, PoolPath, work_in_pool
from fer_sweep.cli.printing import TRIAL_COLUMNS, print_json, print_table, print_text, say, trial_json, trial_rows
from fer_sweep.cli.results import show_best
from fer_sweep.errors import InputError, NothingToDo, ServerError

if TYPE_CHECKING:
    from fer_sweep.records import TrialRecord
    from fer_sweep.sweeps import Sweep

File = Annotated[
    Path,
    typer.Argument(
        help="A sweep file in W&B's format.", metavar="FILE", show_default=False, autocompletion=completing.sweep_files
    ),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Fix a parameter to a constant; repeatable.")
]
Cap = Annotated[int | None, typer.Option("--count", min=1, help="Largest number of trials in the sweep.")]
SearchName = Annotated[
    Literal["wandb", "optuna"] | None,
    typer.Option(
        "--search",
        help="What proposes the trials: the W&B server or the embedded search [default: wandb if you are logged in].",
        show_default=False,
    ),
]
Entity = Annotated[str | None, typer.Option(help="W&B user or team; overrides environment and file.")]
Project = Annotated[str | None, typer.Option(help="W&B project; overrides environment and file.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database of the embedded search: sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE "
        "[default: FERSWEEP_STORAGE, or .fersweep/sweeps.db].",
    ),
]
MaxGap = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Largest train-val gap the winner may have, such as 0.15.")
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of the embedded search [default: 0].", show_default=False)
]


@dataclass(frozen=True)
class SweepOptions:
    """The options of a new sweep."""

    data: Data = None
    fixed: Set = None
    count: Cap = None
    search: SearchName = None
    storage: Storage = None
    max_gap: MaxGap = None
    seed: Seed = None
    entity: Entity = None
    project: Project = None


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (init, validate, create, agent, run, status, retry):
        app.command()(expanded(command))
    for name, state, effect in (
        ("pause", "paused", "Start no new trials for now; running ones finish."),
        ("resume", "running", "Start trials again, after pause or stop."),
        ("stop", "stopped", "Start no new trials; running ones finish."),
        ("cancel", "cancelled", "Stop for good: running trials write a checkpoint and end."),
    ):
        app.command(name, help=f"{effect}\n\nExample: fersweep {name}")(_state_command(state))


def init() -> None:
    """Copy the shipped sweep files and pool files into sweeps/ and agents/ of this folder, to edit them.

    Example: fersweep init
    """
    from fer_sweep.shipped import copy_shipped

    for folder in copy_shipped(Path()):
        print_text(f"{folder}/: {', '.join(sorted(path.name for path in folder.glob('*.yaml')))}")
    say("next: fersweep run sweeps/simple_cnn.yaml --data synthetic --set epochs=4 --count 6")


def validate(
    file: File,
    schema_only: Annotated[
        bool, typer.Option("--schema-only", help="Check only W&B's schema, not the parameters of the trials.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a sweep file and show every error at once.

    Example: fersweep validate resnet
    """
    from fer_sweep.errors import SweepFileError

    try:
        if schema_only:
            from fer_sweep.config.sweep_file import load_sweep_file
            from fer_sweep.shipped import resolve

            load_sweep_file(resolve("sweeps", file))
        else:
            from fer_sweep.sweeps.opening import checked

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


def create(file: File, options: SweepOptions, as_json: Json = False) -> None:
    """Create a sweep from a file and print its id.

    Example: fersweep create simple_cnn --set epochs=10 --count 12
    """
    with _create(file, options) as made:
        url = made.entry.url
        if as_json:
            print_json({"sweep": made.id, "search": made.entry.search, "url": url})
        else:
            print_text(made.id)
    if url:
        say(f"page: {url}")
    say(f"next: fersweep agent {made.argument}")


def agent(
    sweep: SweepId = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after this many attempts, resumed trials included.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Queue failed trials again first.")] = False,
    *,
    options: AgentOptions,
    pool: PoolPath = None,
    agents: HowMany = None,
    as_json: Json = False,
) -> None:
    """Train the trials of a sweep until none is left or the sweep is stopped.

    Ctrl-C once: no new trials. Twice: checkpoint and stop. Three times: kill. The same command resumes the sweep.

    With --pool, agents are started elsewhere and followed. On Slurm, Ctrl-C ends only the following, and a second one
    within five seconds ends the agents with checkpoints. On Ray the agents end with this command.

    Example: fersweep agent --gpus 0,1 --per-gpu 2
    """
    from fer_sweep.sweeps import open_sweep

    if agents is not None and pool is None:
        raise InputError("--agents needs --pool FILE", hint="on this host: --pool agents/local.yaml")
    if options.mirror is not None and pool is not None:
        raise InputError("--mirror is for an agent on this host", hint="remove --mirror or --pool")
    with open_sweep(sweep, note=_note) as opened:
        if retry_failed and (queued := opened.retry()):
            say(f"queued again: trial {', '.join(queued)}")
        if pool is not None:
            interrupted, states = work_in_pool(opened, pool, agents, options.words(count), as_json=as_json), set[str]()
        else:
            summary = work(opened, options, count=count, as_json=as_json)
            interrupted, states = summary.interrupted, set(map(str, summary.ended))
    if interrupted:
        say(f"next: fersweep {f'agent {opened.id} resumes it' if pool is None else f'status {opened.id}'}")
        raise typer.Exit(130)
    say(f"next: fersweep {'retry' if states == {'failed'} else _choosing(opened)} {opened.id}")


def run(file: File, options: SweepOptions, agent: AgentOptions, as_json: Json = False) -> None:
    """Create a sweep, train it and show the winner: create, agent and best in one.

    Example: fersweep run simple_cnn --data synthetic --set epochs=4 --count 6
    """
    if agent.mirror is not None:
        from fer_sweep.mirror.copying import check_mirror

        # Before a sweep is made: a home that has a sweep refuses to restore the mirror of a former machine.
        check_mirror(agent.mirror, options.storage)
    with _create(file, options) as made:
        say(f"sweep {made.id}")
        if work(made, agent, quiet=as_json).interrupted:
            say(f"next: fersweep agent {made.id} resumes it")
            raise typer.Exit(130)
        show_best([made], as_json=as_json)


def status(sweep: SweepId = None, as_json: Json = False) -> None:
    """Show a sweep's state and its trials.

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
    command = {"running": "agent", "unknown": "agent", "paused": "resume", "stopped": "resume"}.get(state)
    say(f"next: fersweep {f'{command} {opened.id}' if command else _closing(opened, state, records)}")


def retry(sweep: SweepId = None, trial: Trials = None) -> None:
    """Queue failed trials again once their cause is fixed; each resumes from its last checkpoint.

    A finished sweep runs again.

    Example: fersweep retry --trial 3
    """
    from fer_sweep.sweeps import open_sweep

    with open_sweep(sweep) as opened:
        queued = opened.retry(trial or ())
    if not queued:
        raise NothingToDo(f"no failed trials in sweep {opened.id}", hint=f"list them all: fersweep status {opened.id}")
    print_text(f"sweep {opened.id}: queued again: trial {', '.join(queued)}")
    say(f"next: fersweep agent {opened.id}")


def _closing(sweep: "Sweep", state: str, records: "Sequence[TrialRecord]") -> str:
    """The command that leads on from a sweep that is finished or cancelled."""
    if any(record.result is not None for record in records):
        return f"{_choosing(sweep)} {sweep.id}"
    if state == "finished" and any(record.state == "failed" for record in records):
        return f"retry {sweep.id}"
    return f"create {sweep.folder / 'sweep.yaml'}"


def _choosing(sweep: "Sweep") -> str:
    return "best" if sweep.entry.confirms is None else "confirm"


def _create(file: Path, options: SweepOptions) -> "Sweep":
    from fer_sweep.sweeps import opening

    given = vars(options).copy()
    constants = dict(_constant(text) for text in given.pop("fixed") or [])
    if (data := given.pop("data")) is not None:
        constants["data"] = data
    return opening.create(file, constants=constants, note=_note, **given)


def _note(text: str) -> None:
    say(f"note: {text}")


def _constant(text: str) -> tuple[str, Any]:
    from fer_sweep.config.sweep_yaml import parse_document

    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise InputError(f"--set {text}: not KEY=VALUE", hint="for example --set epochs=2")
    return name.strip(), parse_document(value, source=f"--set {text}").data


def _state_command(state: str) -> Callable[[str | None], None]:
    def change(sweep: SweepId = None) -> None:
        from fer_sweep.sweeps import open_sweep

        with open_sweep(sweep) as opened:
            opened.set_state(state)
        print_text(f"sweep {opened.id}: {state}")
        say(f"next: fersweep {'agent' if state == 'running' else 'status'} {opened.id}")

    return change
