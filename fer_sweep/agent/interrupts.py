"""Signals to an agent: how often and how urgently it was asked to stop."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interrupts:
    """How urgently a user or a scheduler wants the agent to stop: 1 drain, 2 checkpoint, 3 kill."""

    level: int = 0
    heeded: int = 0
    """The level that the agent has acted on."""
    presses: int = 0
    """How often Ctrl-C was pressed."""

    @property
    def end_waiting(self) -> bool:
        """Whether to stop waiting for a server: the agent has to act on a signal, or was told to stop at once."""
        return self.level > self.heeded or self.level >= 2

    def ctrl_c(self, _signal: int, _frame: FrameType | None) -> None:
        """Each further one is more urgent."""
        self.presses += 1
        self.level = min(3, self.level + 1)

    def terminate(self, _signal: int, _frame: FrameType | None) -> None:
        """A scheduler's signal: checkpoint at once, since the scheduler may kill soon."""
        self.level = max(2, self.level)


@contextmanager
def handling_signals(interrupts: Interrupts) -> Iterator[int]:
    """Handle Ctrl-C and the schedulers' signals; yields a descriptor that becomes readable at each.

    Outside the main thread, where Python allows no handlers, nothing is handled.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handlers = dict.fromkeys((signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP), interrupts.terminate)
    handlers[signal.SIGINT] = interrupts.ctrl_c
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()} if is_main else {}
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False) if is_main else -1
    try:
        yield reader
    finally:
        if is_main:
            signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
