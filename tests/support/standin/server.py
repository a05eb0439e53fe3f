"""A stand-in W&B server for tests: in memory, on the loopback interface, for clients with its `environment`.

Tests read `sweeps` and `runs`, wait with `wait_for`, and inject failures through `faults`.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tests.support.standin import scheduler
from tests.support.standin.faults import Faults
from tests.support.standin.graphql import execute, operation_name
from tests.support.standin.roots import mutations, query
from tests.support.standin.runs import file_stream
from tests.support.standin.state import Request, Store, Sweep


class Handler(BaseHTTPRequestHandler):
    """One connection of one client; answers its requests one after another."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer

    server: StandIn

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: `StandIn.requests` is the log."""

    def serve(self) -> None:
        server, arrived = self.server, time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        headers = "\n".join(f"{name}: {value}" for name, value in self.headers.items() if name != "Authorization")
        server.received.append(f"{self.path}\n{headers}\n".encode() + body)
        path = unquote(urlsplit(self.path).path)
        payload = json.loads(body) if path.endswith(("/graphql", "/file_stream")) else {}
        if path == "/graphql":
            request = Request(operation_name(payload), payload.get("variables") or {}, arrived)
        else:
            request = Request("file_stream" if path.endswith("/file_stream") else path, payload, arrived)
        if path.startswith("/sdk/otel/") and not server.faults.is_offline:
            return self.reply(200, {})  # wandb's telemetry about itself: no part of the protocol, so not in the log
        fault = server.faults.take(request.operation)
        answer = fault.answer
        if answer is None and fault.is_carried_out:
            with server.store.change():  # visible before a late or lost answer
                answer = self.carried_out(path, payload, body)
        fault.released.wait(fault.late_s)
        is_lost = answer is None or not fault.is_answered or server.closing.is_set()
        with server.store.change():
            request.status = 0 if is_lost else answer[0]
            server.requests.append(request)
        if is_lost:
            self.close_connection = True
        else:
            self.reply(*answer, fault.retry_after)

    do_GET = do_POST = do_PUT = serve

    def reply(self, status: int, content: Any, retry_after: float | str | None = None) -> None:
        is_raw = isinstance(content, bytes)
        data = content if is_raw else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if is_raw else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def carried_out(self, path: str, payload: dict[str, Any], body: bytes) -> tuple[int, Any]:
        """The answer; what goes wrong inside the stand-in is kept for `close` to raise."""
        try:
            return self.answer(path, payload, body)
        except Exception as error:
            self.server.errors.append(error)
            return 500, {"error": f"the stand-in failed: {error!r}"}

    def answer(self, path: str, payload: dict[str, Any], body: bytes) -> tuple[int, Any]:
        store = self.server.store
        parts = path.strip("/").split("/")
        if parts[0] == "storage" and self.command == "PUT":  # to /storage/KIND/ID/NAME, signed, so without a login
            getattr(store, parts[1])[parts[2]].files["/".join(parts[3:])] = body
            return 200, b""
        login = base64.b64encode(f"api:{self.server.api_key}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {login}":
            return 401, {"errors": [{"message": "user is not logged in", "extensions": {"code": "PERMISSION_ERROR"}}]}
        if path == "/graphql":
            return execute(payload, self.server.roots)
        if len(parts) == 5 and parts[0] == "files" and parts[4] == "file_stream":
            run = store.runs.get(parts[3])
            return (200, file_stream(store, run, payload)) if run else (404, {"error": f"run {parts[3]} not found"})
        return 404, {"error": f"{self.command} {path}: not in the stand-in"}


class StandIn(ThreadingHTTPServer):
    """The server, which closes without leaving a thread or a socket. `start` and `close`, or a `with` block."""

    daemon_threads = False  # closing waits for them
    request_queue_size = 128
    entity = "tester"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api_key = "local-" + secrets.token_hex(20)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.api_key}
        self.store = store = Store(self.url, self.entity, teams=("lab",))
        self.sweeps, self.runs, self.artifacts, self.views = store.sweeps, store.runs, store.artifacts, store.views
        self.roots = {"query": query(store), "mutation": mutations(store)}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.received: list[bytes] = []
        """Every request as it came, its body unpacked and the login's header left out."""
        self.errors: list[BaseException] = []
        """Exceptions of the stand-in itself; `close` raises the first, so that no test passes over one."""
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="standin", daemon=True)

    def start(self) -> StandIn:
        self._thread.start()
        return self

    def close(self) -> None:
        if self.closing.is_set():
            return
        self.closing.set()
        self.faults.clear()
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # its client was first
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only reading and writing can fail here, and that means the client has gone: no news in these tests."""

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
            for run in map(self.runs.__getitem__, run_ids):
                run.state, run.preempting = "preempted" if run.preempting else "crashed", False
                scheduler.progressed(self.store, run)

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
