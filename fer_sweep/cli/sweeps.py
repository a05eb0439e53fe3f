"""Commands that create sweeps, show them and change their state."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli.options import AgentOptions, File, Json, SweepId, SweepOptions, Trials
from fer_sweep.cli.printing import (
    console,
    has_reader,
    note,
    print_json,
    print_prose,
    print_text,
    print_trials,
    say,
    trial_json,
)
from fer_sweep.errors import InputError, LoginError, NothingToDo, ServerError, SweepFileError
from fer_sweep.formatting import counted, percent

if TYPE_CHECKING:
    from fer_sweep.records import TrialRecord
    from fer_sweep.sweeps import Sweep
    from fer_sweep.sweeps.managing import Agents

WATCH_S = 2.0
"""Seconds between two looks of ``status --watch``."""


def init() -> None:
    """Copy the shipped sweep and pool files here, to edit them.

    They are written into the folders sweeps/ and agents/.

    Example: fersweep init
    """
    from fer_sweep.shipped import copy_shipped

    for folder in copy_shipped(Path()):
        print_prose(f"{folder}/: {', '.join(sorted(path.name for path in folder.glob('*.yaml')))}")
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
            print_json({"sweep": made.id, "search": made.entry.search, "sampler": made.sampler, "url": url})
        else:
            print_text(made.id)
    if url:
        say(f"page: {url}")
    say(f"next: fersweep agent {made.argument}")


def new_sweep(file: Path, options: SweepOptions, agent: AgentOptions | None = None) -> "Sweep":
    """Create a sweep and open it; for an agent on this host, only if that can train it."""
    from fer_sweep.sweeps import opening

    if agent is not None:
        agent.check_slots()
    given = vars(options).copy()
    fixed = constants(given.pop("fixed"))
    return opening.create(file, constants=fixed, to_train=agent is not None, note=note, **given)


def constants(fixed: list[str] | None) -> dict[str, Any]:
    """The parameters that ``--set`` fixes, by dotted name."""
    from fer_sweep.config.sweep_yaml import parse_document

    found = {}
    for text in fixed or ():
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise InputError(f"--set {text}: not KEY=VALUE", hint="for example --set epochs=2")
        found[name] = parse_document(value, source=f"--set {text}").data
    return found


def status(
    sweep: SweepId = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again every two seconds, until it ends or Ctrl-C.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every parameter that differs.")] = False,
    as_json: Json = False,
) -> None:
    """Show a sweep's state, its agents and its trials.

    Example: fersweep status
    """
    from fer_sweep.sweeps import OPEN_STATES, open_sweep
    from fer_sweep.sweeps.expectation import expectation
    from fer_sweep.sweeps.forecast import forecast
    from fer_sweep.sweeps.next_steps import next_command, outlook

    if watch and (as_json or show_all):
        raise InputError("--watch cannot be combined with --json or --all", hint="remove one of them")
    with open_sweep(sweep) as opened:
        if watch:
            seen = watch_sweep(opened)
        else:
            try:
                state = opened.state
            except (ServerError, LoginError) as error:
                state = None
                note(str(error))
            seen = Glance.of(opened, state, opened.trials())
            if as_json:
                trials = [trial_json(record) for record in seen.records]
                count = {"agents": len(seen.agents), "waiting": len(seen.agents.waiting)}
                about = {"sweep": opened.id, "state": seen.state, "sampler": opened.sampler}
                print_json({**about, **count, "trials": trials})
                return
            print_trials(seen.title(opened), seen.records, show_all=show_all)
        if seen.state in OPEN_STATES:
            print_prose(str(forecast(seen.records, planned=opened.planned)))
            if said := expectation(opened, seen.records):
                print_prose(said)
        paused = sum(record.state == "paused" for record in seen.records)
        print_prose(f"search: {opened.searched_by}" + (f"; {paused} paused" if paused else ""))
        for line in outlook(opened):
            print_prose(line)
        say(f"next: fersweep {next_command(opened, seen.state, seen.records)}")


@dataclass(frozen=True)
class Glance:
    """A sweep at one moment."""

    state: str
    agents: "Agents"
    records: "Sequence[TrialRecord]"

    @classmethod
    def of(cls, sweep: "Sweep", state: str | None, records: "Sequence[TrialRecord]") -> "Glance":
        """A sweep of this state, None if it is not known, with the agents that work on it now."""
        from fer_sweep.sweeps.managing import live_agents

        return cls(state or "unknown", live_agents(sweep), records)

    def words(self, sweep: "Sweep") -> str:
        """The state, and the agents that work on it."""
        training, waiting = len(self.agents.training), len(self.agents.waiting)
        if waiting:
            waits = f"{waiting} more waiting" if training else f"{counted(waiting, 'agent')} waiting"
            return ", ".join([self.state, *([counted(training, "agent")] if training else []), waits])
        if training:
            return f"{self.state}, {counted(training, 'agent')}"
        alone = "no agent known here" if sweep.searched_by_server else "no agent"
        return f"{self.state}, {alone}" if self.state == "running" else self.state

    def title(self, sweep: "Sweep") -> str:
        """The line above its trials."""
        return f"sweep {sweep.id} ({sweep.entry.name or 'no name'}): {self.words(sweep)}"

    def summary(self, sweep: "Sweep") -> str:
        """The sweep in one line."""
        from fer_sweep.sweeps.managing import best_of

        ended = sum(record.state.has_ended for record in self.records)
        of = "" if sweep.planned is None else f" of {sweep.planned}"
        running = sum(record.state == "running" for record in self.records)
        best = best_of(self.records)
        shown = f"; best_val_acc {percent(best)}" if best is not None else ""
        return f"{self.title(sweep)}; {ended}{of} trials ended, {running} running{shown}"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state not in ("running", "paused", "unknown") and not self.agents


def watch_sweep(sweep: "Sweep", wait: Callable[[float], None] = time.sleep) -> Glance:
    """Show a sweep every two seconds until it is over or stdout is no longer read.

    A terminal shows a table; anything else gets a line where the sweep has changed.
    """
    screen = console()
    shown = ""
    while True:
        seen = Glance.of(sweep, *sweep.glance())
        if screen.is_terminal:
            screen.clear()
            rows = max(3, screen.height - 8)
            print_trials(seen.title(sweep), seen.records[-rows:])
            if len(seen.records) > rows:
                print_text(f"and {len(seen.records) - rows} earlier trials: fersweep status {sweep.id}")
        elif (line := seen.summary(sweep)) != shown:
            print_text(line)
            shown = line
        if seen.is_over or not has_reader():
            return seen
        wait(WATCH_S)


def retry(sweep: SweepId = None, trial: Trials = None) -> None:
    """Queue failed trials again, once their cause is fixed.

    Each resumes from its last checkpoint. A finished sweep runs again.

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
        say(f"next: fersweep status {opened.id}")

    return change
