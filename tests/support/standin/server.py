"""A stand-in W&B server for tests: in memory, on the loopback interface, for unmodified W&B clients.

    with StandIn() as server:
        subprocess.run(["wandb", "sweep", "sweep.yaml"], env={**os.environ, **server.environment})

Tests read `sweeps` and `runs`, wait with `wait_for`, and inject failures through `faults`.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from typing import Any

import yaml

from tests.support.standin import scheduler
from tests.support.standin.faults import Faults
from tests.support.standin.handler import Handler
from tests.support.standin.roots import Mutations, query
from tests.support.standin.state import Request, Store, Sweep


class HTTPServer(ThreadingHTTPServer):
    """Knows its open connections, so that closing leaves neither a thread nor a socket behind."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only reading and writing can fail here, and that means the client has gone: no news in these tests."""

    def server_close(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # its client was first
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()  # waits for the threads


class StandIn:
    """The server. `start` and `close`, or a `with` block."""

    entity = "tester"

    def __init__(self) -> None:
        self.api_key = "local-" + secrets.token_hex(20)
        self.store = store = Store(self.entity, teams=("lab",))
        self.sweeps, self.runs, self.artifacts, self.views = store.sweeps, store.runs, store.artifacts, store.views
        self.roots = {"query": query(store), "mutation": Mutations(store).fields()}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.received: list[bytes] = []
        """Every request as it came, its body unpacked and the login's header left out."""
        self.errors: list[BaseException] = []
        """Exceptions of the stand-in itself; `close` raises the first, so that no test passes over one."""
        self.closing = threading.Event()
        self._http = HTTPServer(self)
        self.url = store.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.api_key}
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="standin", daemon=True)

    # life

    def start(self) -> StandIn:
        self._thread.start()
        return self

    def close(self) -> None:
        if self.closing.is_set():
            return
        self.closing.set()
        self.faults.clear()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    # what a person does in the UI, and what time does

    def create_sweep(self, config: dict[str, Any], *, project: str = "faces") -> Sweep:
        """A sweep without going through a client."""
        with self.store.change():
            return scheduler.create_sweep(self.store, self.entity, project, yaml.safe_dump(config))[0]

    def set_sweep_state(self, sweep_id: str, state: str) -> None:
        with self.store.change():
            scheduler.set_state(self.store, self.sweeps[sweep_id], state)

    def stop_run(self, run_id: str) -> None:
        with self.store.change():
            self.runs[run_id].stopped = True

    def delete_sweep(self, sweep_id: str) -> None:
        with self.store.change():
            del self.sweeps[sweep_id]

    def delete_run(self, run_id: str) -> None:
        with self.store.change():
            del self.runs[run_id]

    def crash_silent_runs(self, *run_ids: str) -> None:
        """The server's five minutes without a sign of life of these runs have passed."""
        with self.store.change():
            scheduler.crash_silent_runs(self.store, run_ids)

    # what has happened

    def operations(self) -> list[str]:
        """The operations of all requests so far, in order."""
        return [request.operation for request in list(self.requests)]

    def wait_for(self, condition: Callable[[StandIn], bool], timeout_s: float = 30) -> None:
        """Return once the condition holds; it is asked again after every request and every change."""
        with self.store.changed:
            assert self.store.changed.wait_for(lambda: condition(self), timeout_s), self.dump()

    def dump(self) -> str:
        """Everything a failed test wants to see."""
        records = map(str, [*self.sweeps.values(), *self.runs.values()])
        return "\n".join([*records, *(str(request)[:240] for request in self.requests[-60:])])
