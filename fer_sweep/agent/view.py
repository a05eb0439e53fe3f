"""An agent's progress: a live table in a terminal and in a notebook's own kernel, plain lines anywhere else.

The commands of a notebook's cells have no terminal: Jupyter, Colab and Kaggle give them a pseudo-terminal and set
FORCE_COLOR, but redraw nothing; a live table would print thousands of lines.
"""

import os
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fer_sweep.agent.live_cell import LiveCell, in_cell
from fer_sweep.errors import printable
from fer_sweep.files import drop_unwritten
from fer_sweep.formatting import duration
from fer_sweep.records import TrialOutcome, TrialRequest, TrialResult, TrialState, Verdict
from fer_sweep.sweeps.forecast import left_s
from fer_sweep.verdicts import OVERFIT_GAP

_NARROWEST_PARAMETERS = 20
"""Characters in which the parameters of a trial are worth a column."""

EPOCH_LINES_S = 5.0
"""Least seconds between two lines about the epochs of one slot: quick epochs would fill a notebook."""

NOTEBOOK = ("JPY_PARENT_PID", "COLAB_RELEASE_TAG", "COLAB_JUPYTER_IP", "KAGGLE_KERNEL_RUN_TYPE")
"""Environment variables of a kernel, which the commands of its cells inherit."""

_STATE_STYLE = {
    TrialState.PRUNED: "yellow",
    TrialState.PREEMPTED: "cyan",
    TrialState.PAUSED: "cyan",
    TrialState.FAILED: "bold red",
}
VERDICT_STYLE = {
    Verdict.BALANCED: "green",
    Verdict.OVERFIT: "yellow",
    Verdict.UNDERFIT: "yellow",
    Verdict.COLLAPSED: "bold red",
    Verdict.DIVERGED: "bold red",
}
"""Of a complete trial."""


@dataclass
class _Row:
    """The trial of one slot."""

    request: TrialRequest
    started: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of its last epoch."""
    share: float = 0.0
    """Of the present epoch's training steps that are done."""
    first: tuple[float, float] | None = None
    """When it made its first step in this attempt, and how many epochs it had then."""

    @property
    def epochs(self) -> float:
        """Epochs done, with the part of the present one."""
        return min(self.metrics.get("epoch", 0.0) + self.share, self.request.config.epochs)

    @property
    def turn(self) -> str:
        """Its turn, where trials are trained in turns, with a comma."""
        return "" if self.request.until is None else f"turn {self.request.attempt}, "

    def left_s(self, now: float) -> float | None:
        """Seconds until its last epoch is done at the speed so far; None before there is one, or if it may pause."""
        if self.first is None or self.epochs <= self.first[1] or self.request.until is not None:
            return None
        since, before = self.first
        return (self.request.config.epochs - self.epochs) * (now - since) / (self.epochs - before)


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
    paused: set[str] = field(default_factory=set)
    """Trials that wait for their next turn."""
    deadline: str = ""
    """When the agent ends, if that is set."""
    clock: Callable[[], float] = time.monotonic
    drained: Collection[str] = ()
    """Slots that take no trial."""
    _best: tuple[str, TrialResult] | None = None
    _rows: dict[str, _Row] = field(default_factory=dict)
    """By slot."""
    _durations: list[float] = field(default_factory=list)
    _shown: dict[str, float] = field(default_factory=dict)
    """When each slot's last epoch was shown in a line; a slot without one shows its next."""
    _last_line: str = ""
    _live: Live | LiveCell | None = None

    def __enter__(self) -> Self:
        in_notebook = any(os.environ.get(name) for name in NOTEBOOK)
        if in_cell():
            self._live = LiveCell(self.draw, lambda: (self.ended, self.planned))
        elif self.console.is_terminal and not in_notebook:
            self._live = Live(get_renderable=self.draw, console=self.console, refresh_per_second=4)
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with suppress(OSError):  # the terminal has closed
                self._live.__exit__(None, None, None)
        elif not self._last_line.startswith(headline := self._headline(0)):  # as the end of the last trial shows it
            self._say(headline)

    def trial_started(self, slot: str, request: TrialRequest) -> None:
        """A trial starts in a slot, or is resumed there."""
        self.paused.discard(request.trial_id)
        row = self._rows[slot] = _Row(request, self.clock())
        again = f" ({row.turn}until epoch {request.until})" if row.turn else ""
        again = again or (f" (attempt {request.attempt})" if request.attempt > 1 else "")
        self._say_unless_live(f"{slot}: trial {request.trial_id}{again}: {self._parameters(request)}")

    def progress(self, slot: str, share: float) -> None:
        """A trial has done this share of its present epoch's steps."""
        row = self._rows[slot]
        row.share = share
        if row.first is None:
            row.first = (self.clock(), row.epochs)
            if row.metrics:
                done = f"{row.metrics['epoch']:.0f}/{row.request.config.epochs}"
                self._say_unless_live(f"{slot}: trial {row.request.trial_id}: resumed after epoch {done}")

    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        """A trial has finished an epoch; shown in a line if EPOCH_LINES_S have passed since the slot's last one.

        Those that a resumed trial sends again, before its first step, are not shown.
        """
        row = self._rows[slot]
        row.metrics, row.share = metrics, 0.0
        now = self.clock()
        if row.first is None or now - self._shown.get(slot, -EPOCH_LINES_S) < EPOCH_LINES_S:
            return
        self._shown[slot] = now
        self._say_unless_live(
            f"{slot}: trial {trial_id}: {row.turn}epoch {metrics['epoch']:.0f}/{row.request.config.epochs} "
            f"val_acc {metrics['val_acc']:.1%} gap {100 * metrics['train_val_gap']:+.1f} "
            f"{metrics['images_per_second']:,.0f} images/s"
        )

    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        """An attempt at a trial has ended."""
        seconds = self.clock() - self._rows.pop(slot).started
        if outcome.state.has_ended:
            self.ended += 1
            self._durations.append(seconds)
        elif outcome.state is TrialState.PAUSED:
            self.paused.add(trial_id)
        line, style = f"trial {trial_id} {outcome.state}", _STATE_STYLE.get(outcome.state, "")
        if outcome.result is not None:
            self.compare(trial_id, outcome.result)
            line += f": {_described(outcome.result)}"
            style = style or VERDICT_STYLE[outcome.result.verdict]
        line += f" ({outcome.reason.removeprefix(f'{outcome.state} ')})" if outcome.reason else ""
        self._say(line if self._live else f"{slot}: {line}", style)
        self._say_unless_live(self._headline(self.slots))

    def compare(self, trial_id: str, result: TrialResult) -> None:
        """Keep a trial's result if it is the best so far and of use."""
        if result.verdict.may_win and (self._best is None or result.best_val_acc > self._best[1].best_val_acc):
            self._best = (trial_id, result)

    def note(self, text: str) -> None:
        """Show a message."""
        self._say(text, "bold")

    def _say_unless_live(self, text: str) -> None:
        if self._live is None:
            self._say(text)

    def _say(self, text: str, style: str = "") -> None:
        self._last_line = text
        line = Text(printable(text), style)
        try:
            if self._live is not None:
                self.console.print(line)
                return
            with self.console.capture() as lines:  # a console keeps what it could not write, and grows
                self.console.print(line, soft_wrap=True)
            self.console.file.write(lines.get())
            self.console.file.flush()
        except OSError:  # training continues while its log cannot be written, such as on a full disk
            drop_unwritten(self.console.file)

    def _headline(self, slots: int, *, with_best: bool = True) -> str:
        """One line: trials ended, the best so far, and the time left on so many slots (0 when the agent ends)."""
        waiting = f", {len(self.paused)} paused" if self.paused else ""
        parts = [(f"{self.ended}/{self.planned} trials" if self.planned else f"{self.ended} trials") + waiting]
        if self._best is not None and with_best:
            trial, result = self._best
            parts.append(f"best {result.best_val_acc:.1%} (gap {100 * result.train_val_gap:+.1f}) in trial {trial}")
        if slots and (speed := sum(row.metrics.get("images_per_second", 0.0) for row in list(self._rows.values()))):
            parts.append(f"{speed:,.0f} images/s")
        if slots and (left := self._left_s(slots)):
            parts.append(f"{duration(left)} left")
        if slots and self.deadline:
            parts.append(f"ends {self.deadline}")
        return " | ".join(parts)

    def _left_s(self, slots: int) -> float | None:
        """Seconds until the sweep has ended, if only this agent works on it.

        None if it has no end, too early, or if trials are trained in turns: most of them do not get all epochs.
        """
        now, rows = self.clock(), list(self._rows.values())
        if self.paused or any(row.turn for row in rows):
            return None
        running = [row.left_s(now) for row in rows]
        known = [now - row.started + left for row, left in zip(rows, running, strict=True) if left is not None]
        if self.planned is None or not (self._durations or known):
            return None
        mean = statistics.fmean(self._durations or known)
        rest = [
            max(0.0, mean - (now - row.started)) if left is None else left
            for row, left in zip(rows, running, strict=True)
        ]
        waiting = max(0, self.planned - self.ended - len(rows))
        return left_s(rest + waiting * [mean], slots)

    def _parameters(self, request: TrialRequest) -> str:
        """The values that vary between trials."""
        return " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in request.parameters.items()
            if name not in self.fixed
        )

    def draw(self) -> RenderableType:
        """The live view as it is now."""
        table = self._table()
        room = self.console.width - self.console.measure(table).maximum - 1
        if room >= _NARROWEST_PARAMETERS:
            table = self._table(room)
        lines = [Text(self._headline(self.slots, with_best=False))]
        if self._best is not None:
            trial, result = self._best
            style = VERDICT_STYLE[result.verdict]
            lines.insert(0, Text.assemble(f"leader: trial {trial}, ", (_described(result), style)))
        return Group(*([table] if table.row_count else []), *lines)

    def _table(self, room: int = 0) -> Table:
        """One row a slot, with the parameters if there is room for them."""
        title = Text(printable(f"sweep {self.sweep_id}"))
        table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in ("slot", "trial"):
            table.add_column(heading, no_wrap=True)
        for heading in ("epoch", "val_acc", "best", "gap", "images/s", "left"):
            table.add_column(heading, justify="right", no_wrap=True)
        if room:
            table.add_column("parameters", overflow="ellipsis", no_wrap=True, max_width=room)
        rows = dict(sorted(self._rows.items()))
        for slot, row in rows.items():
            cells = [*self._cells(row), Text(printable(self._parameters(row.request)))]
            trial = Text(", ".join(filter(None, (row.request.trial_id, row.turn.rstrip(", ")))))
            table.add_row(Text(slot), trial, *(cells if room else cells[:-1]))
        for slot in sorted(set(self.drained) - rows.keys()):
            table.add_row(Text(slot), Text("drained", "cyan"))
        return table

    def _cells(self, row: _Row) -> list[Text]:
        """What a trial has reached."""
        metrics, epochs, left = row.metrics, row.request.config.epochs, row.left_s(self.clock())
        done = metrics.get("epoch", 0.0)
        share = 1.0 if done == epochs else row.share
        cells = [Text(f"{min(done + 1, epochs):.0f}/{epochs} {share:4.0%}" if row.first else "starts")]
        if metrics:
            gap = metrics["train_val_gap"]
            cells += [Text(f"{metrics[name]:.1%}") for name in ("val_acc", "best_val_acc")]
            cells += [Text(f"{100 * gap:+.1f}", "yellow" if gap > OVERFIT_GAP else "")]
            cells += [Text(f"{metrics['images_per_second']:,.0f}")]
        else:
            cells += [Text("")] * 4
        return [*cells, Text("" if left is None else duration(left))]


def _described(result: TrialResult) -> str:
    return (
        f"best_val_acc {result.best_val_acc:.1%} at epoch {result.best_epoch}, "
        f"gap {100 * result.train_val_gap:+.1f}, {result.verdict}"
    )
