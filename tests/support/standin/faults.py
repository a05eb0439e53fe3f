"""Failures on demand: errors, late answers, cut connections."""

import threading
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class Fault:
    """What goes wrong with one request; nothing, if nothing more is said.

    Its operation is a GraphQL operation's name, `file_stream`, or `*` for any request.
    """

    operation: str = "*"
    answer: tuple[int, Any] | None = None
    """The HTTP status and the body that are sent in place of carrying it out."""
    retry_after: float | str | None = None
    late_s: float = 0.0
    """How long its answer is held back after it is carried out."""
    is_carried_out: bool = True
    is_answered: bool = True
    released: threading.Event = field(default_factory=threading.Event)
    """Late answers come now."""


class Faults:
    """Queued failures, each used up by one request, in the order they were given."""

    def __init__(self) -> None:
        self.is_offline = False
        self._lock = threading.Lock()
        self._queue: list[Fault] = []
        self._released = threading.Event()

    def _add(self, fault: Fault, times: int) -> None:
        self._queue += [replace(fault, released=self._released) for _ in range(times)]

    def fail(
        self, operation: str, *, status: int, times: int = 1, retry_after: float | str | None = None, body: str = "{}"
    ) -> None:
        """Answer with an HTTP error; nothing is carried out."""
        self._add(Fault(operation, (status, body.encode()), retry_after), times)

    def error(self, operation: str, message: str) -> None:
        """Answer 200 with GraphQL `errors`; nothing is carried out."""
        self._add(Fault(operation, (200, {"errors": [{"message": message}], "data": None})), 1)

    def hang(self, operation: str, seconds: float = 600.0, times: int = 1) -> None:
        """Carry the request out at once, and answer after so long or at `clear`."""
        self._add(Fault(operation, late_s=seconds), times)

    def drop(self, operation: str, times: int = 1, *, after: bool = False) -> None:
        """Close the connection without an answer; `after`: once the request is carried out, so its answer is lost."""
        self._add(Fault(operation, is_carried_out=after, is_answered=False), times)

    def offline(self) -> None:
        """Cut the network: every connection is dropped until `online`."""
        self.is_offline = True

    def online(self) -> None:
        self.is_offline = False

    def clear(self) -> None:
        """Inject no more failures, and let late answers come now."""
        self._queue.clear()
        self._released.set()
        self._released = threading.Event()
        self.online()

    def take(self, operation: str) -> Fault:
        """What goes wrong with this request."""
        if self.is_offline:
            return Fault(is_carried_out=False, is_answered=False)
        with self._lock:  # several connections ask at a time
            for index, fault in enumerate(self._queue):
                if fault.operation in ("*", operation):
                    return self._queue.pop(index)
        return Fault()
