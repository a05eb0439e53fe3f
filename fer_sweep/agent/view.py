"""An agent's progress: a live table in a terminal and in a notebook's own kernel, plain lines anywhere else.

The commands of a notebook's cells have no terminal: Jupyter, Colab and Kaggle give them a pseudo-terminal and set
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

from fer_sweep.agent.live_cell import LiveCell, in_cell
from fer_sweep.errors import printable
from fer_sweep.records import TrialOutcome, TrialRequest, TrialResult, TrialState

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
class View:
    """Shows an agent's progress on a console."""

    console: Console
    sweep_id: str
    slots: int
    """Of the agent."""
    planned: int | None
    """Trials in the whole sweep; None if it has no end."""
    fixed: frozenset[str] = frozenset()
    """Parameters that are the same in every trial, and not shown."""
    ended: int = 0
    """Trials that have ended, before this agent started and since."""
    clock: Callable[[], float] = time.monotonic
    _best: tuple[str, TrialResult] | None = None
    _running: dict[str, tuple[TrialRequest, Mapping[str, float]]] = field(default_factory=dict)
    """By slot, its trial and the metrics of its last epoch."""
    _started: dict[str, float] = field(default_factory=dict)
    """By slot, when its trial started."""
    _durations: list[float] = field(default_factory=list)
    _shown: dict[str, float] = field(default_factory=dict)
    """When each slot's last epoch was shown in a line; a slot without one shows its next."""
    _last_line: str = ""
    _live: Live | LiveCell | None = None

    def __enter__(self) -> Self:
        in_notebook = any(os.environ.get(name) for name in NOTEBOOK)
        if in_cell():
            self._live = LiveCell(self._draw, lambda: (self.ended, self.planned))
        elif self.console.is_terminal and not in_notebook:
            self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=4)
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
        elif (headline := self._headline(0)) != self._last_line:  # the end of the last trial may have shown it
            self._say(headline)

    def trial_started(self, slot: str, request: TrialRequest) -> None:
        """A trial starts in a slot, or is resumed there."""
        self._running[slot] = (request, {})
        self._started[slot] = self.clock()
        again = f" (attempt {request.attempt})" if request.attempt > 1 else ""
        self._say_unless_live(f"{slot}: trial {request.trial_id}{again}: {self._parameters(request)}")

    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        """A trial has finished an epoch; shown in a line if EPOCH_LINES_S have passed since the slot's last one."""
        request, _ = self._running[slot]
        self._running[slot] = (request, metrics)
        now = self.clock()
        if now - self._shown.get(slot, -EPOCH_LINES_S) < EPOCH_LINES_S:
            return
        self._shown[slot] = now
        self._say_unless_live(
            f"{slot}: trial {trial_id}: epoch {metrics['epoch']:.0f}/{request.config.epochs} "
            f"val_acc {metrics['val_acc']:.1%} gap {100 * metrics['train_val_gap']:+.1f} "
            f"{metrics['images_per_second']:,.0f} images/s"
        )

    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        """An attempt at a trial has ended."""
        del self._running[slot]
        seconds = self.clock() - self._started.pop(slot)
        if outcome.state is not TrialState.PREEMPTED:
            self.ended += 1
            self._durations.append(seconds)
        line = f"trial {trial_id} {outcome.state}"
        if outcome.result is not None:
            self.compare(trial_id, outcome.result)
            line += (
                f": best_val_acc {outcome.result.best_val_acc:.1%} at epoch {outcome.result.best_epoch}, "
                f"gap {100 * outcome.result.train_val_gap:+.1f}, {outcome.result.verdict}"
            )
        line += f" ({outcome.reason})" if outcome.reason else ""
        self._say(line if self._live else f"{slot}: {line}", _STATE_STYLE[outcome.state])
        self._say_unless_live(self._headline(self.slots))

    def compare(self, trial_id: str, result: TrialResult) -> None:
        """Keep a trial's result if it is the best so far."""
        if self._best is None or result.best_val_acc > self._best[1].best_val_acc:
            self._best = (trial_id, result)

    def note(self, text: str) -> None:
        """Show a message."""
        self._say(text, "bold")

    def _say_unless_live(self, text: str) -> None:
        if self._live is None:
            self._say(text)

    def _say(self, text: str, style: str = "") -> None:
        self._last_line = text
        self.console.print(Text(printable(text), style), soft_wrap=self._live is None)

    def _headline(self, slots: int) -> str:
        """One line: trials ended, the best so far, and the time left on so many slots (0 at the end)."""
        parts = [f"{self.ended}/{self.planned} trials" if self.planned else f"{self.ended} trials"]
        if self._best is not None:
            trial, result = self._best
            parts.append(f"best {result.best_val_acc:.1%} (gap {100 * result.train_val_gap:+.1f}) in trial {trial}")
        if slots and self.planned is not None and self._durations:
            mean = sum(self._durations) / len(self._durations)
            waiting = max(0, self.planned - self.ended - len(self._running))
            running = sum(max(0.0, mean - (self.clock() - since)) for since in list(self._started.values()))
            parts.append(f"{timedelta(seconds=round((waiting * mean + running) / slots))} left")
        return " | ".join(parts)

    def _parameters(self, request: TrialRequest) -> str:
        """The values that vary between trials."""
        return " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in request.parameters.items()
            if name not in self.fixed
        )

    def _draw(self) -> RenderableType:
        room = self.console.width - _WIDTH_WITHOUT_PARAMETERS
        table = Table(title=Text(printable(f"sweep {self.sweep_id}")), title_justify="left", box=box.SIMPLE)
        for heading in ("slot", "trial"):
            table.add_column(heading, no_wrap=True)
        for heading in ("epoch", "val_acc", "best", "gap", "images/s"):
            table.add_column(heading, justify="right", no_wrap=True)
        if room >= _NARROWEST_PARAMETERS:
            table.add_column("parameters", overflow="ellipsis", no_wrap=True, max_width=room)
        for slot, (request, metrics) in sorted(self._running.items()):
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
                row.append(printable(self._parameters(request)))
            table.add_row(*(Text(cell) for cell in (slot, request.trial_id, *row)))
        return Group(table, Text(self._headline(self.slots)))
