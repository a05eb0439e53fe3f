"""Failures on demand: errors, late answers, cut connections."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class Fault:
    """One failure that waits for its request. `operation` is a GraphQL operation's name, `file_stream`, `upload`,
    `download`, or `*` for whichever request comes next."""

    operation: str
    kind: str
    """`fail` (an HTTP status), `error` (200 with GraphQL errors), `hang` (a late answer), `drop` (no answer)."""
    status: int = 500
    retry_after: float | str | None = None
    body: Any = None
    message: str = ""
    seconds: float = 0.0
    after: bool = False
    """Whether the request is carried out before its answer is lost."""
    released: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Hold the request up as long as the fault says; not at all if it is none that does."""
        self.released.wait(self.seconds)


class Faults:
    """Queued failures, each used up by one request, in the order they were given."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: list[Fault] = []
        self._offline = threading.Event()
        self._released = threading.Event()

    def _add(self, times: int, fault: Fault) -> None:
        with self._lock:
            self._queue += [replace(fault) for _ in range(times)]

    def fail(
        self,
        operation: str,
        *,
        status: int = 500,
        times: int = 1,
        retry_after: float | str | None = None,
        body: Any = None,
    ) -> None:
        """Answer with an HTTP error; nothing is carried out."""
        self._add(times, Fault(operation, "fail", status=status, retry_after=retry_after, body=body))

    def error(self, operation: str, message: str, *, times: int = 1) -> None:
        """Answer 200 with GraphQL `errors`; nothing is carried out."""
        self._add(times, Fault(operation, "error", message=message))

    def hang(self, operation: str, seconds: float = 600.0, times: int = 1, *, after: bool = True) -> None:
        """Answer after so long or at `clear`. The request is carried out at once (`after`) or only then."""
        self._add(times, Fault(operation, "hang", seconds=seconds, after=after))

    def drop(self, operation: str, times: int = 1, *, after: bool = False) -> None:
        """Close the connection without an answer; `after`: once the request is carried out, so its answer is lost."""
        self._add(times, Fault(operation, "drop", after=after))

    def offline(self) -> None:
        """Cut the network: every connection is dropped until `online`."""
        self._offline.set()

    def online(self) -> None:
        self._offline.clear()

    @property
    def is_offline(self) -> bool:
        return self._offline.is_set()

    def clear(self) -> None:
        """Inject no more failures, and let late answers come now."""
        with self._lock:
            self._queue.clear()
            self._released.set()
            self._released = threading.Event()
        self.online()

    def take(self, operation: str) -> Fault | None:
        """The failure for this request, if one waits."""
        with self._lock:
            for index, fault in enumerate(self._queue):
                if fault.operation in ("*", operation):
                    fault.released = self._released
                    return self._queue.pop(index)
        return None
