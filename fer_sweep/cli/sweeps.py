"""Commands about sweeps: validate, create, agent, run, status, best, sync, pause, resume, stop, cancel."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli.printing import (
    RANKING_COLUMNS,
    TRIAL_COLUMNS,
    percent,
    points,
    print_json,
    print_table,
    print_text,
    ranking_rows,
    say,
    trial_json,
    trial_rows,
)
from fer_sweep.errors import FersweepError, InputError, NothingToDo, ServerError

if TYPE_CHECKING:
    from fer_sweep.search.registry import SweepEntry
    from fer_sweep.selection import Selection

File = Annotated[Path, typer.Argument(help="A sweep file in W&B's format.", metavar="FILE", show_default=False)]
Sweep = Annotated[
    str | None,
    typer.Argument(help="A sweep's id, ENTITY/PROJECT/ID or address on W&B; the last one created if left out."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Data = Annotated[str | None, typer.Option(help="Data set to train on, whatever the file says.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Fix a parameter to a constant; repeatable.")
]
Cap = Annotated[int | None, typer.Option("--count", min=1, help="At most this many trials in the sweep.")]
SearchName = Annotated[
    str | None,
    typer.Option("--search", help="What proposes the trials: wandb or optuna [default: wandb if you are logged in]."),
]
Entity = Annotated[str | None, typer.Option(help="W&B user or team, whatever environment and file say.")]
Project = Annotated[str | None, typer.Option(help="W&B project, whatever environment and file say.")]
UploadModels = Annotated[bool, typer.Option(help="Upload the best weights of complete trials to W&B.")]
Storage = Annotated[str | None, typer.Option(help="Database URL of the search [default: .fersweep/sweeps.db].")]
MaxGap = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Largest train-val gap of a solution, such as 0.15.")
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of the embedded search [default: 0].", show_default=False)
]
Gpus = Annotated[str, typer.Option(help="auto, none, or numbers and UUIDs such as 0,1.")]
PerGpu = Annotated[int, typer.Option(min=1, help="Slots sharing each GPU.")]
Slots = Annotated[str, typer.Option(help="Slots on the CPU, its cores divided among them: a number or auto.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (validate, create, agent, run, status, best, sync):
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
            from fer_sweep.search.registry import checked

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
    entry = _create(
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
    )
    if as_json:
        print_json({"sweep": entry.id, "search": entry.search, "url": entry.url})
    else:
        print_text(entry.id)
    if entry.url:
        say(f"its page: {entry.url}")
    say(f"next: fersweep agent {entry.path or entry.id}")


def agent(
    sweep: Sweep = None,
    gpus: Gpus = "auto",
    per_gpu: PerGpu = 1,
    slots: Slots = "auto",
    count: Annotated[
        int | None, typer.Option(min=1, help="End after this many trials; one gone on with counts again.")
    ] = None,
    upload_models: UploadModels = False,
    as_json: Json = False,
) -> None:
    """Work on a sweep until it is exhausted, stopped or at its cap.

    Ctrl-C once: no new trials. Twice: checkpoint and stop. Three times: kill. Run the same command to go on.

    Example: fersweep agent --gpus 0,1 --per-gpu 2
    """
    from fer_sweep.search.registry import find

    entry = find(sweep, note=_note)
    interrupted = _work(entry, gpus, per_gpu, slots, count, upload_models=upload_models, as_json=as_json)
    if interrupted:
        say(f"next: fersweep agent {entry.id} goes on where this one stopped")
        raise typer.Exit(130)
    say(f"next: fersweep best {entry.id}")


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
    per_gpu: PerGpu = 1,
    slots: Slots = "auto",
    upload_models: UploadModels = False,
    as_json: Json = False,
) -> None:
    """Create a sweep, work on it and show the winner: create, agent and best in one.

    Example: fersweep run sweeps/simple_cnn.yaml --data synthetic --set epochs=4 --count 6
    """
    entry = _create(
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
    )
    say(f"sweep {entry.id}")
    if _work(entry, gpus, per_gpu, slots, None, upload_models=upload_models, as_json=False, quiet=as_json):
        say(f"next: fersweep agent {entry.id} goes on where this one stopped")
        raise typer.Exit(130)
    best([entry.id], as_json=as_json)


def status(sweep: Sweep = None, as_json: Json = False) -> None:
    """Show a sweep's trials and where each stands.

    Example: fersweep status
    """
    from fer_sweep.search.registry import find, open_search, state_of

    entry = find(sweep)
    search = open_search(entry)
    try:
        records = search.records()
    finally:
        search.close()
    try:
        state = state_of(entry)
    except ServerError as error:
        state = "unknown"
        _note(str(error))
    if as_json:
        print_json({"sweep": entry.id, "state": str(state), "trials": [trial_json(record) for record in records]})
        return
    print_table(f"sweep {entry.id} ({entry.name or 'no name'}): {state}", TRIAL_COLUMNS, trial_rows(records))
    command = {"running": "agent", "paused": "resume", "stopped": "resume"}.get(state, "best")
    say(f"next: fersweep {command} {entry.id}")


def best(
    sweep: Annotated[list[str] | None, typer.Argument(help="Sweeps to choose from; the last one if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Rank the trials and name the winner: among those within one standard error of the best, the smallest gap.

    Example: fersweep best
    """
    from fer_sweep.search.registry import find

    entries = [find(name) for name in dict.fromkeys(sweep)] if sweep else [find(None)]
    selection = _select(entries)
    winner = selection.winner
    if winner is None:
        ids = ", ".join(entry.id for entry in entries)
        raise NothingToDo(f"{selection.reason}: {ids}", hint=f"train some: fersweep agent {entries[-1].id}")
    if as_json:
        print_json(
            {
                "winner": trial_json(winner.record, winner.sweep),
                "pareto": [trial_json(c.record, c.sweep) for c in selection.pareto],
                "ranking": [trial_json(c.record, c.sweep) for c in selection.ranking],
                "standard_error": selection.standard_error,
                "reason": selection.reason,
            }
        )
        return
    _print_selection(selection)


def sync(
    sweep: Annotated[list[str] | None, typer.Argument(help="Sweeps to bring up; the last one if left out.")] = None,
    upload_models: UploadModels = False,
    as_json: Json = False,
) -> None:
    """Bring runs that were tracked offline, or did not get through, up to the W&B server you are logged in to.

    Runs are rebuilt from fersweep's own records. What is there already is left alone, so it can be repeated at will.

    Example: fersweep sync
    """
    from fer_sweep.search.registry import find
    from fer_sweep.sync import Fate
    from fer_sweep.sync import sync as bring_up

    _log_warnings()
    documents = []
    failed = 0
    for entry in [find(name) for name in dict.fromkeys(sweep)] if sweep else [find(None)]:
        done = bring_up(entry, keep_models=upload_models, say=say)
        documents.append({"sweep": entry.id, "url": done.url, "runs": dict(done.fates)})
        failed += done.count(Fate.FAILED)
        if not as_json:
            counts = ", ".join(f"{done.count(fate)} {fate}" for fate in Fate if done.count(fate))
            print_text(f"sweep {entry.id}: {counts or 'no trials'}")
            print_text(f"page: {done.url}")
    if as_json:
        print_json({"sweeps": documents})
    if failed:
        raise FersweepError("some runs did not get through", hint="the same command goes on where this one stopped")


def _print_selection(selection: "Selection") -> None:
    from fer_sweep.files import trial_folder

    winner = selection.winner
    assert winner is not None
    title = "trials by best validation accuracy (> winner, * Pareto front of accuracy and gap)"
    print_table(title, RANKING_COLUMNS, ranking_rows(selection))
    result = winner.result
    folder = trial_folder(winner.sweep, winner.record.trial_id)
    print_text(
        f"winner: trial {winner.record.trial_id} of sweep {winner.sweep}: best_val_acc {percent(result.best_val_acc)}, "
        f"gap {points(result.train_val_gap)} points, {result.verdict}"
    )
    print_text(f"why: {selection.reason}")
    print_text(f"model: {folder / 'best.safetensors'}")
    print_text(f"config: {folder / 'config.json'}")
    print_text(f"history: {folder / 'history.jsonl'}")
    say(f"next: fersweep train --config {folder / 'config.json'} --seed 1 trains it again with another seed")


def _select(entries: "list[SweepEntry]") -> "Selection":
    from fer_sweep.search.registry import open_search
    from fer_sweep.selection import Candidate, select

    candidates = []
    for entry in entries:
        search = open_search(entry)
        try:
            candidates += [Candidate(entry.id, r, r.result) for r in search.records() if r.result is not None]
        finally:
            search.close()
    gaps = [entry.max_gap for entry in entries if entry.max_gap is not None]
    return select(candidates, max_gap=min(gaps) if gaps else None)


def _create(file: Path, data: str | None, fixed: list[str] | None, **options: Any) -> "SweepEntry":
    from fer_sweep.search import registry

    constants = dict(_constant(text) for text in fixed or [])
    if data is not None:
        constants["data"] = data
    return registry.create(file, constants=constants, note=_note, **options)


def _log_warnings() -> None:
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.ERROR)


def _note(text: str) -> None:
    say(f"note: {text}")


def _constant(text: str) -> tuple[str, Any]:
    from fer_sweep.config.sweep_yaml import parse_document

    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise InputError(f"--set {text}: not KEY=VALUE", hint="such as --set epochs=2")
    return name.strip(), parse_document(value, source=f"--set {text}").data


def _work(
    entry: "SweepEntry",
    gpus: str,
    per_gpu: int,
    slots: str,
    count: int | None,
    *,
    upload_models: bool,
    as_json: bool,
    quiet: bool = False,
) -> bool:
    """Run the agent; says whether a signal cut it short."""
    from fer_sweep.agent.session import slots_here, work_on
    from fer_sweep.cli.console import PatientConsole

    _log_warnings()
    number = None if slots == "auto" else _slot_count(slots)
    places = slots_here(gpus, per_gpu=per_gpu, slots=number)
    summary = work_on(
        entry, places, console=PatientConsole(stderr=as_json or quiet), count=count, keep_models=upload_models
    )
    if as_json:
        ended = {str(state): number for state, number in summary.ended.items()}
        print_json({"sweep": entry.id, "ended": ended, "interrupted": summary.interrupted})
    if summary.turnaround_s:
        waits = sorted(summary.turnaround_s)
        say(f"from one trial's end to the next one's first step: {waits[len(waits) // 2]:.2f} s (median)")
    return summary.interrupted


def _slot_count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--slots {text}: neither a number nor auto") from None


def _state_command(state: str) -> Callable[[str | None], None]:
    def change(sweep: Sweep = None) -> None:
        from fer_sweep.search.registry import find, set_state

        entry = find(sweep)
        set_state(entry, state)
        print_text(f"sweep {entry.id}: {state}")
        say(f"next: fersweep {'agent' if state == 'running' else 'status'} {entry.id}")

    return change
