"""Commands that create sweeps, show them and change their state."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli.options import File, Json, SweepId, SweepOptions, Trials
from fer_sweep.cli.printing import TRIAL_COLUMNS, note, print_json, print_table, print_text, say, trial_json, trial_rows
from fer_sweep.errors import InputError, NothingToDo, ServerError, SweepFileError

if TYPE_CHECKING:
    from fer_sweep.sweeps import Sweep


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
    try:
        if schema_only:
            from fer_sweep.config.sweep_file import load_sweep_file
            from fer_sweep.shipped import resolve

            load_sweep_file(resolve("sweeps", file))
        else:
            from fer_sweep.sweeps.opening import checked

            checked(file, note=note)
    except SweepFileError as error:
        if as_json:
            print_json({"file": file, "valid": False, "problems": error.problems})
        raise
    if as_json:
        print_json({"file": file, "valid": True, "problems": []})
    else:
        print_text(f"{file}: valid")
    say(f"next: fersweep create {file}")


def create(file: File, options: SweepOptions, as_json: Json = False) -> None:
    """Create a sweep from a file and print its id.

    Example: fersweep create simple_cnn --set epochs=10 --count 12
    """
    with new_sweep(file, options) as made:
        url = made.entry.url
        if as_json:
            print_json({"sweep": made.id, "search": made.entry.search, "url": url})
        else:
            print_text(made.id)
    if url:
        say(f"page: {url}")
    say(f"next: fersweep agent {made.argument}")


def new_sweep(file: Path, options: SweepOptions) -> "Sweep":
    """Create a sweep and open it."""
    from fer_sweep.sweeps import opening

    given = vars(options).copy()
    return opening.create(file, constants=constants(given.pop("fixed")), note=note, **given)


def constants(fixed: list[str] | None) -> dict[str, Any]:
    """The parameters that ``--set`` fixes, by dotted name."""
    return dict(_constant(text) for text in fixed or [])


def _constant(text: str) -> tuple[str, Any]:
    from fer_sweep.config.sweep_yaml import parse_document

    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise InputError(f"--set {text}: not KEY=VALUE", hint="for example --set epochs=2")
    return name.strip(), parse_document(value, source=f"--set {text}").data


def status(sweep: SweepId = None, as_json: Json = False) -> None:
    """Show a sweep's state and its trials.

    Example: fersweep status
    """
    from fer_sweep.sweeps import open_sweep

    with open_sweep(sweep) as opened:
        records, outlook = opened.trials(), opened.outlook()
        try:
            state = opened.state
        except ServerError as error:
            state = "unknown"
            note(str(error))
    if as_json:
        print_json({"sweep": opened.id, "state": state, "trials": [trial_json(record) for record in records]})
        return
    title = f"sweep {opened.id} ({opened.entry.name or 'no name'}): {state}"
    print_table(title, TRIAL_COLUMNS, trial_rows(records), key="trial")
    for line in outlook:
        print_text(line)
    say(f"next: fersweep {opened.next_command(state, records)}")


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


STATE_COMMANDS = (
    ("pause", "paused", "Start no new trials for now; running ones finish."),
    ("stop", "stopped", "Start no new trials; running ones finish."),
    ("cancel", "cancelled", "Stop for good: running trials write a checkpoint and end."),
)
"""Names of commands, the state that each sets, and its effect."""


def state_command(state: str) -> Callable[[str | None], None]:
    """The command that sets a sweep's state."""

    def change(sweep: SweepId = None) -> None:
        from fer_sweep.sweeps import open_sweep

        with open_sweep(sweep) as opened:
            opened.set_state(state)
        print_text(f"sweep {opened.id}: {state}")
        say(f"next: fersweep {'agent' if state == 'running' else 'status'} {opened.id}")

    return change
