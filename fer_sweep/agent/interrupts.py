"""Signals to an agent and its deadline: how often and how urgently it was asked to stop."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from fer_sweep.agent.deadline import Deadline
from fer_sweep.host_processes import STOP_SIGNALS


@dataclass
class Interrupts:
    """How urgently a user, a scheduler or a deadline wants the agent to stop: 1 drain, 2 checkpoint, 3 kill."""

    level: int = 0
    heeded: int = 0
    """The level that the agent has acted on."""
    presses: int = 0
    """How often Ctrl-C was pressed."""
    deadline: Deadline | None = None
    by_signal: bool = False
    """Whether a signal came, from a user or a scheduler."""

    @property
    def end_waiting(self) -> bool:
        """Whether to stop waiting for a server: the agent has to act on a signal, or was told to stop at once."""
        self.read_clock()
        return self.level > self.heeded or self.level >= 2

    @property
    def no_new_trials(self) -> bool:
        """Whether the agent starts no more trials."""
        return self.level > 0 or (self.deadline is not None and self.deadline.is_too_near)

    @property
    def timed_out(self) -> bool:
        """Whether the deadline stopped the agent."""
        return self.deadline is not None and (self.deadline.is_too_near or self.deadline.level > 0)

    def read_clock(self) -> None:
        """Raise the level if the deadline is near or has passed."""
        if self.deadline is not None:
            self.level = max(self.level, self.deadline.level)

    def ctrl_c(self, _signal: int, _frame: FrameType | None) -> None:
        """Each further one is more urgent."""
        self.presses += 1
        self.by_signal = True
        self.level = min(3, self.level + 1)

    def terminate(self, _signal: int, _frame: FrameType | None) -> None:
        """A scheduler's signal: checkpoint at once, since the scheduler may kill soon."""
        self.by_signal = True
        self.level = max(2, self.level)

    def note(self, running: int, *, may_pause: bool = False) -> str:
        """What the agent does at this level, while so many trials run, each to its end or that of its turn."""
        if self.level == 1:
            until = "finish or pause" if may_pause else "finish"
            again = f"{running} running will {until}. Ctrl-C again: checkpoint and stop; a third time: kill"
            return f"no new trials; {again}" if running else "stopping"
        why = "" if self.deadline is None or not self.deadline.level else f"the deadline is {self.deadline}: "
        if self.level == 2:
            return f"{why}writing checkpoints and stopping; Ctrl-C{' again' if self.presses else ''}: kill"
        return f"{why}killing the trials; run the agent again to resume each from its last checkpoint"


@contextmanager
def handling_signals(interrupts: Interrupts) -> Iterator[socket.socket]:
    """Handle Ctrl-C and the schedulers' signals; yields a socket that becomes readable at each.

    Outside the main thread, where Python allows no handlers, nothing is handled.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handlers = dict.fromkeys(STOP_SIGNALS, interrupts.terminate)
    handlers[signal.SIGINT] = interrupts.ctrl_c
    reader, writer = socket.socketpair()  # not a pipe, for which Windows cannot wait
    writer.setblocking(False)
    reader.setblocking(False)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()} if is_main else {}
    wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False) if is_main else -1
    try:
        yield reader
    finally:
        if is_main:
            signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()
