"""Commands that manage the sweeps of this home: list, rename, delete, logs."""

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from fer_sweep.cli.options import Json, sweep_ids
from fer_sweep.cli.printing import has_reader, note, print_json, print_prose, print_table, print_text, say
from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.formatting import duration, percent, short, size

if TYPE_CHECKING:
    from fer_sweep.records import TrialRecord
    from fer_sweep.sweeps import Sweep, SweepEntry
    from fer_sweep.sweeps.managing import Overview

Name = Annotated[str, typer.Argument(help="Its new name.", metavar="NAME")]
One = Annotated[
    str, typer.Argument(help="Sweep: its name, or its id or the beginning of it.", autocompletion=sweep_ids)
]
Several = Annotated[
    list[str], typer.Argument(help="Sweeps: names, or ids or their beginnings.", autocompletion=sweep_ids)
]

FOLLOW_S = 0.5
"""Seconds between two looks at a log that is followed."""


def list_sweeps(as_json: Json = False) -> None:
    """List the sweeps of this folder, newest first.

    Example: fersweep list
    """
    from fer_sweep.sweeps.entries import no_sweeps
    from fer_sweep.sweeps.managing import overviews

    found = list(overviews())
    if as_json:
        print_json([_overview_json(one) for one in found])
        return
    if not found:
        raise no_sweeps()
    columns = ("name", "id", "state", "agents", "trials", "best", "data", "age")
    print_table("sweeps, newest first", columns, [_row(one) for one in found], key="id")
    for one in found:
        if one.error:
            note(f"sweep {one.id}: {one.error}")
    if any(one.state is None and not one.error for one in found):
        note("unknown: the W&B server that searches it was not reached; the trials known here are counted")
    readable = next((one.id for one in found if not one.error), None)
    if readable:
        say(f"next: fersweep status {readable}")


def _row(one: "Overview") -> list[object]:
    entry = one.entry
    name = entry.name if entry and entry.name != one.id else None  # a confirmation is named by its id
    age = duration(time.time() - entry.created) if entry else ""
    if one.error:
        return [name or "", one.id, "unreadable", "", "", "", "", age]
    trials = f"{one.ended}/{one.planned}" if one.planned is not None else f"{one.ended}"
    best, data = percent(one.best_val_acc, 1), ", ".join(one.data)
    return [name or "", one.id, one.state or "unknown", one.agents, trials, best, data, age]


def _overview_json(one: "Overview") -> dict[str, object]:
    kept = {key: getattr(one.entry, key, None) for key in ("name", "search", "created", "confirms")}
    return {"sweep": one.id, **kept, **{key: value for key, value in vars(one).items() if key not in ("id", "entry")}}


def rename(sweep: One, name: Name) -> None:
    """Give a sweep another name; on W&B it keeps the former one.

    Example: fersweep rename simple_cnn small-batches
    """
    from fer_sweep.sweeps import entries

    entry = entries.rename(_entry(sweep), name)
    print_text(f"sweep {entry.id}: {entry.name}")
    say(f"next: fersweep status {shlex.quote(name)}")


def delete(
    sweep: Several,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, in a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Delete sweeps with their trials, files and confirmations.

    Refused while an agent trains one of them. Pages on W&B stay.

    Example: fersweep delete simple_cnn --yes
    """
    from fer_sweep.sweeps.managing import delete as delete_sweeps
    from fer_sweep.sweeps.managing import with_confirmations

    entries = with_confirmations([_entry(one) for one in sweep])
    names = ", ".join(f"{entry.id} ({entry.name or 'no name'})" for entry in entries)
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Delete {names} with all trials?", err=True):
        again = shlex.join(entry.id for entry in entries)
        raise NothingToDo("nothing was deleted", hint=f"to delete without a question: fersweep delete {again} --yes")
    done = []
    for one in delete_sweeps(entries):
        done.append(one)
        if not as_json:
            where = " and ".join(str(folder) for folder in one.folders) or "no files"
            print_prose(f"sweep {one.id} ({one.name or 'no name'}) deleted: {size(one.bytes)} in {where}")
        if one.page:
            say(f"its page on W&B stays: {one.page}")
    if as_json:
        print_json(done)
    say("next: fersweep list")


def _entry(sweep: str) -> "SweepEntry":
    from fer_sweep.sweeps.entries import find_entry, refuse_sweep_file, unknown_sweep

    if (entry := find_entry(sweep)) is None:
        refuse_sweep_file(sweep)
        raise unknown_sweep(sweep)
    return entry


def logs(
    trial: Annotated[str, typer.Argument(help="A trial's id, or SWEEP/TRIAL.", metavar="TRIAL")],
    sweep: Annotated[
        str | None, typer.Option(help="Its sweep [default: the last one searched].", autocompletion=sweep_ids)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print what is added, until the trial ends or Ctrl-C.")
    ] = False,
) -> None:
    """Print the log of a trial and, if it failed, the reason.

    Example: fersweep logs 0
    """
    from fer_sweep.sweeps import open_sweep

    given, _, trial_id = trial.rpartition("/")
    if given and sweep is not None:
        raise InputError(f"{trial} names its sweep already", hint=f"fersweep logs {trial}")
    with open_sweep(given or sweep) as opened:
        record = show_log(opened, trial_id, follow=follow)
        if record.reason:
            print_prose(f"trial {trial_id} {record.state}: {record.reason.removeprefix(f'{record.state} ')}")
        retry = "retry" if record.state == "failed" else "status"
        say(f"next: fersweep {retry} {opened.id}")


def show_log(
    sweep: "Sweep", trial_id: str, *, follow: bool, wait: Callable[[float], None] = time.sleep
) -> "TrialRecord":
    """Print a trial's epochs and trial.log and, to follow it, what is added until it has ended; returns the trial.

    Raises:
        InputError: The sweep has no such trial.
    """
    from fer_sweep.sweeps.managing import host_of_trial

    record = sweep.trial(trial_id)
    log = sweep.trial_folder(trial_id) / "trial.log"
    epochs = written = 0
    while True:
        # Read after the state: what an ended trial wrote is then complete.
        reports = sweep.reports(trial_id)
        for metrics in reports[epochs:]:
            print_prose(_epoch(metrics))
        epochs = len(reports)
        if log.is_file():
            with log.open("rb") as stream:
                stream.seek(written)
                added = stream.read()
            written += len(added)
            if added:
                print_text(added.decode(errors="replace").rstrip("\n"))
        if not follow or record.state.has_ended or not has_reader():
            break
        wait(FOLLOW_S)
        # A W&B server is not asked again: it knows no more of a trial whose log is here.
        record = next((r for r in sweep.glance(ask_server=False)[1] if r.trial_id == trial_id), record)
    if not log.is_file():
        host = host_of_trial(sweep, trial_id)
        note(f"no log in {log.parent}" + (f": the trial was trained on {host}" if host else ""))
    elif not written:
        note(f"{log} is empty: the trial printed nothing")
    return record


def _epoch(metrics: Mapping[str, float]) -> str:
    shown = (f"{name} {short(value)}" for name, value in metrics.items() if name != "epoch")
    return f"epoch {metrics.get('epoch', 0):.0f}: {', '.join(shown)}"
