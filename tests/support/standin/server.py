"""A stand-in W&B server for tests: in memory, on the loopback interface, for unmodified W&B clients.

    with StandIn() as server:
        subprocess.run(["wandb", "sweep", "sweep.yaml"], env={**os.environ, **server.environment})

Tests read `sweeps` and `runs`, wait with `wait_for`, and inject failures through `faults`.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from typing import Any

import yaml

from tests.support.standin import scheduler
from tests.support.standin.faults import Faults
from tests.support.standin.handler import Handler
from tests.support.standin.roots import Mutations, query
from tests.support.standin.runs import delete_run
from tests.support.standin.state import Request, Store, Sweep

FEATURES = ("MARK_RUN_FILES_UPLOADED", "SWEEPS_QUERY_FILTERING", "FILESTREAM_GZIP")


class HTTPServer(ThreadingHTTPServer):
    """Knows its open connections, so that closing leaves neither a thread nor a socket behind."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.connections: set[socket.socket] = set()
        self.guard = threading.Lock()
        self.workers: list[threading.Thread] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        worker = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self.guard:
            self.connections.add(request)
            self.workers = [thread for thread in self.workers if thread.is_alive()] + [worker]
            worker.start()

    def shutdown_request(self, request: Any) -> None:
        with self.guard:
            self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only reading and writing can fail here, and that means the client has gone: no news in these tests."""

    def cut(self) -> None:
        """End every open connection."""
        with self.guard:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # its client was first
                    continue

    def join(self) -> None:
        self.cut()
        with self.guard:
            workers = list(self.workers)
        for worker in workers:
            worker.join(timeout=10)
            assert not worker.is_alive(), "a connection of the stand-in server outlived it"


class StandIn:
    """The server. `start` and `close`, or a `with` block."""

    entity = "tester"

    def __init__(self) -> None:
        self.api_key = "local-" + secrets.token_hex(20)
        self.store = store = Store(self.entity, teams=("lab",))
        self.sweeps, self.runs, self.artifacts, self.views = store.sweeps, store.runs, store.artifacts, store.views
        self.faults = Faults()
        self.requests: list[Request] = []
        self.received: list[bytes] = []
        """Every request as it came, its body unpacked and the login's header left out."""
        self.errors: list[BaseException] = []
        """Exceptions of the stand-in itself; `close` raises the first, so that no test passes over one."""
        self.closing = threading.Event()
        self._http: HTTPServer | None = None
        self._thread: threading.Thread | None = None

    # life

    def start(self) -> StandIn:
        self._http = HTTPServer(self)
        self.store.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="standin", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        http, self._http = self._http, None
        if http is None or self._thread is None:
            return
        self.closing.set()
        self.faults.clear()
        http.shutdown()
        http.server_close()
        self._thread.join()
        http.join()
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    # what clients need

    @property
    def url(self) -> str:
        return self.store.url

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.api_key}

    @property
    def roots(self) -> dict[str, Any]:
        return {"query": query(self.store, FEATURES), "mutation": Mutations(self.store).fields()}

    def operations(self) -> list[str]:
        """The operations of all requests so far, in order."""
        return [request.operation for request in list(self.requests)]

    # what a person does in the UI

    def create_sweep(self, config: dict[str, Any], *, project: str = "faces") -> Sweep:
        """A sweep without going through a client."""
        with self.store.changed:
            sweep, _ = scheduler.create_sweep(self.store, self.entity, project, yaml.safe_dump(config))
            self.store.changed.notify_all()
            return sweep

    def set_sweep_state(self, sweep_id: str, state: str) -> None:
        with self.store.changed:
            scheduler.set_state(self.store, self.sweeps[sweep_id], state)
            self.store.changed.notify_all()

    def stop_run(self, run_id: str) -> None:
        with self.store.changed:
            self.runs[run_id].stopped = True
            self.store.changed.notify_all()

    def delete_sweep(self, sweep_id: str) -> None:
        with self.store.changed:
            del self.sweeps[sweep_id]
            self.store.changed.notify_all()

    def delete_run(self, run_id: str) -> None:
        with self.store.changed:
            delete_run(self.store, self.runs[run_id])
            self.store.changed.notify_all()

    def crash_silent_runs(self, *run_ids: str) -> None:
        """The server's five minutes without a sign of life have passed: for these runs, or for all that are live."""
        with self.store.changed:
            scheduler.crash_silent_runs(self.store, list(run_ids) or None)
            self.store.changed.notify_all()

    # waiting

    def wait_for(self, condition: Callable[[StandIn], bool], timeout_s: float = 30) -> None:
        """Return once the condition holds; it is asked again after every request and every change."""
        with self.store.changed:
            if not self.store.changed.wait_for(lambda: condition(self), timeout_s):
                raise AssertionError(f"not within {timeout_s} s:\n{self.dump()}")

    def dump(self) -> str:
        """Everything a failed test wants to see."""
        lines = [
            f"sweep {s.id}: {s.state}, exhausted {s.exhausted}, requeued {s.requeued}" for s in self.sweeps.values()
        ]
        for run in self.runs.values():
            ended = f"exit {run.exit_code}, stopped {run.stopped}, {len(run.history)} rows"
            lines.append(f"run {run.id}: {run.state}, {ended}, sweep {run.sweep_id}, config {run.config}")
        start = self.requests[0].at if self.requests else time.monotonic()
        lines += [f"{r.at - start:8.3f} {r.status} {r.operation} {str(r.variables)[:160]}" for r in self.requests[-60:]]
        return "\n".join(lines)
