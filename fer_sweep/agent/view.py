"""Views of an agent's progress: a live table in a terminal, plain lines anywhere else.

A notebook counts as no terminal: Jupyter, Colab and Kaggle give the commands of a cell a pseudo-terminal and set
FORCE_COLOR, but redraw nothing; a live table would print thousands of lines.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fer_sweep.errors import printable
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState

_WIDTH_WITHOUT_PARAMETERS = 68
"""Characters that the other columns take at their widest."""
_NARROWEST_PARAMETERS = 24

EPOCH_LINES_S = 5.0
"""Least seconds between two lines about the epochs of one slot: quick epochs would fill a notebook."""

NOTEBOOK = ("JPY_PARENT_PID", "COLAB_RELEASE_TAG", "COLAB_JUPYTER_IP", "KAGGLE_KERNEL_RUN_TYPE")
"""Environment variables of a kernel, which the commands of its cells inherit."""

_STATE_STYLE = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.PREEMPTED: "cyan",
    TrialState.FAILED: "bold red",
}


@dataclass
class Progress:
    """The state that both views show; accuracies in [0, 1]."""

    planned: int | None
    """Trials in the whole sweep; None if it has no end."""
    fixed: frozenset[str] = frozenset()
    """Parameters that are the same in every trial, and not shown."""
    ended: int = 0
    """Trials that have ended, before this agent started and since."""
    best: tuple[str, float, float] | None = None
    """Trial, best_val_acc and train_val_gap of the best one."""
    slots: dict[str, tuple[TrialRequest, Mapping[str, float]]] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)
    _durations: list[float] = field(default_factory=list)

    def start(self, slot: str, request: TrialRequest) -> None:
        """A trial takes a slot."""
        self.slots[slot] = (request, {})
        self._started[slot] = time.monotonic()

    def epoch(self, slot: str, metrics: Mapping[str, float]) -> None:
        """A trial has reported."""
        self.slots[slot] = (self.slots[slot][0], metrics)

    def end(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        """A slot falls free."""
        del self.slots[slot]
        seconds = time.monotonic() - self._started.pop(slot)
        if outcome.state is not TrialState.PREEMPTED:
            self.ended += 1
            self._durations.append(seconds)
        result = outcome.result
        if result is not None and (self.best is None or result.best_val_acc > self.best[1]):
            self.best = (trial_id, result.best_val_acc, result.train_val_gap)

    def time_left(self, slots: int) -> str:
        """Estimated time for the remaining trials; empty while unknown."""
        if self.planned is None or not self._durations:
            return ""
        mean = sum(self._durations) / len(self._durations)
        waiting = max(0, self.planned - self.ended - len(self.slots))
        running = sum(max(0.0, mean - (time.monotonic() - since)) for since in list(self._started.values()))
        return str(timedelta(seconds=round((waiting * mean + running) / max(1, slots))))

    def headline(self, slots: int) -> str:
        """One line: trials ended, the best so far, and the time left on so many slots (0 at the end)."""
        parts = [f"{self.ended}/{self.planned} trials" if self.planned else f"{self.ended} trials"]
        if self.best:
            trial, accuracy, gap = self.best
            parts.append(f"best {accuracy:.1%} (gap {100 * gap:+.1f}) in trial {trial}")
        if slots and (left := self.time_left(slots)):
            parts.append(f"{left} left")
        return " | ".join(parts)


def describe_epoch(request: TrialRequest, metrics: Mapping[str, float]) -> str:
    """One epoch in a line."""
    return (
        f"epoch {metrics['epoch']:.0f}/{request.config.epochs} val_acc {metrics['val_acc']:.1%} "
        f"gap {100 * metrics['train_val_gap']:+.1f} {metrics['images_per_second']:,.0f} images/s"
    )


def describe_end(trial_id: str, outcome: TrialOutcome) -> str:
    """How a trial ended, in a line."""
    line = f"trial {trial_id} {outcome.state}"
    if outcome.result is not None:
        result = outcome.result
        line += (
            f": best_val_acc {result.best_val_acc:.1%} at epoch {result.best_epoch}, "
            f"gap {100 * result.train_val_gap:+.1f}, {result.verdict}"
        )
    return f"{line} ({outcome.reason})" if outcome.reason else line


def describe_parameters(request: TrialRequest, fixed: frozenset[str]) -> str:
    """The values that vary between trials, in a line."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in request.parameters.items()
        if name not in fixed
    )


@dataclass
class PlainView:
    """A line for every event, for logs and pipes."""

    console: Console
    progress: Progress
    clock: Callable[[], float] = time.monotonic
    slots: int = 1
    _shown: dict[str, float] = field(default_factory=dict)
    """When each slot's last epoch was shown; a slot without one shows its next."""
    _last: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if (headline := self.progress.headline(0)) != self._last:  # the end of the last trial may have shown it
            self._say(headline)

    def trial_started(self, slot: str, request: TrialRequest) -> None:
        """Show a trial's parameters."""
        self.progress.start(slot, request)
        again = f" (attempt {request.attempt})" if request.attempt > 1 else ""
        self._say(f"{slot}: trial {request.trial_id}{again}: {describe_parameters(request, self.progress.fixed)}")

    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        """Show an epoch, unless one of this slot was shown less than EPOCH_LINES_S ago."""
        self.progress.epoch(slot, metrics)
        now = self.clock()
        if now - self._shown.get(slot, -EPOCH_LINES_S) < EPOCH_LINES_S:
            return
        self._shown[slot] = now
        self._say(f"{slot}: trial {trial_id}: {describe_epoch(self.progress.slots[slot][0], metrics)}")

    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        """Show a trial's end, and the progress of the sweep."""
        self.progress.end(slot, trial_id, outcome)
        self._say(f"{slot}: {describe_end(trial_id, outcome)}")
        self._say(self.progress.headline(self.slots))

    def note(self, text: str) -> None:
        """Show a message."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._last = text
        self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A table of the slots, redrawn four times a second, with ended trials above it."""

    def __init__(self, console: Console, progress: Progress, sweep_id: str, slots: int) -> None:
        self.progress = progress
        self._sweep_id = sweep_id
        self._slots = slots
        self._console = console
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def trial_started(self, slot: str, request: TrialRequest) -> None:
        """Fill a slot's row."""
        self.progress.start(slot, request)

    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        """Update a slot's row."""
        self.progress.epoch(slot, metrics)

    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        """Empty a slot's row and keep a line about the trial."""
        self.progress.end(slot, trial_id, outcome)
        self._live.console.print(Text(printable(describe_end(trial_id, outcome)), style=_STATE_STYLE[outcome.state]))

    def note(self, text: str) -> None:
        """Keep a message above the table."""
        self._live.console.print(Text(printable(text), style="bold"))

    def _draw(self) -> RenderableType:
        room = self._console.width - _WIDTH_WITHOUT_PARAMETERS
        table = Table(title=Text(printable(f"sweep {self._sweep_id}")), title_justify="left", box=box.SIMPLE)
        for heading in ("slot", "trial"):
            table.add_column(heading, no_wrap=True)
        for heading in ("epoch", "val_acc", "best", "gap", "images/s"):
            table.add_column(heading, justify="right", no_wrap=True)
        if room >= _NARROWEST_PARAMETERS:
            table.add_column("parameters", overflow="ellipsis", no_wrap=True, max_width=room)
        for slot, (request, metrics) in sorted(self.progress.slots.items()):
            row = ["", "", "", "", ""]
            if metrics:
                row = [
                    f"{metrics['epoch']:.0f}/{request.config.epochs}",
                    f"{metrics['val_acc']:.1%}",
                    f"{metrics['best_val_acc']:.1%}",
                    f"{100 * metrics['train_val_gap']:+.1f}",
                    f"{metrics['images_per_second']:,.0f}",
                ]
            if room >= _NARROWEST_PARAMETERS:
                row.append(printable(describe_parameters(request, self.progress.fixed)))
            table.add_row(*(Text(cell) for cell in (slot, request.trial_id, *row)))
        return Group(table, Text(self.progress.headline(self._slots)))


View = PlainView | LiveView


def make_view(console: Console, progress: Progress, *, sweep_id: str, slots: int) -> View:
    """A live table where ``console`` is a terminal, plain lines where it is not or in a notebook."""
    if console.is_terminal and not in_notebook():
        return LiveView(console, progress, sweep_id, slots)
    return PlainView(console, progress, slots=slots)


def in_notebook() -> bool:
    """Whether this is a notebook's kernel or a command of one of its cells."""
    return any(os.environ.get(name) for name in NOTEBOOK)
