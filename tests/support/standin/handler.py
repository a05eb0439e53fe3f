"""The HTTP side: authentication, routing, faults, and the log of requests."""

from __future__ import annotations

import base64
import gzip
import json
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.support.standin.faults import Fault
from tests.support.standin.graphql import execute, operation_name
from tests.support.standin.runs import file_stream
from tests.support.standin.state import Request

if TYPE_CHECKING:
    from tests.support.standin.server import StandIn

Answer = tuple[int, Any]


class Handler(BaseHTTPRequestHandler):
    """One connection of one client; answers its requests one after another."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer

    @property
    def stand_in(self) -> StandIn:
        found: StandIn = self.server.stand_in  # type: ignore[attr-defined]
        return found

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: `StandIn.requests` is the log."""

    def serve(self) -> None:
        server = self.stand_in
        arrived = time.monotonic()
        body = self.body()
        server.received.append(b"%s\n%s\n%s" % (self.path.encode(), self.heading(), body))
        path = unquote(urlsplit(self.path).path)
        payload = parsed(body) if path.endswith(("/graphql", "/file_stream")) else {}
        operation = self.operation(path, payload)
        seen = payload.get("variables") or {} if path == "/graphql" else payload
        request = Request(operation, seen, arrived, path=path)
        if server.faults.is_offline or server.closing.is_set():
            return self.drop(request)
        if path.startswith("/sdk/otel/"):  # wandb's telemetry about itself: no part of the protocol, so not in the log
            return self.reply(200, {})
        fault = server.faults.take(operation)
        if fault is not None and not fault.after:
            fault.wait()
            if fault.kind == "drop" or server.closing.is_set():
                return self.drop(request)
        if fault is not None and fault.kind in ("fail", "error"):
            status, content = faulty(fault)
        else:
            with server.store.changed:
                status, content = self.carried_out(path, payload, body)
        if fault is not None and fault.after:
            with server.store.changed:  # what was carried out is visible before its late or lost answer
                server.store.changed.notify_all()
            fault.wait()
            if fault.kind == "drop" or server.closing.is_set():
                return self.drop(request)
        retry_after = fault.retry_after if fault is not None else None
        self.note(request, status)
        self.reply(status, content, retry_after)

    do_GET = do_POST = do_PUT = serve

    def body(self) -> bytes:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" and raw else raw

    def heading(self) -> bytes:
        """The headers but for the one that is there to hold the key."""
        return "\n".join(f"{k}: {v}" for k, v in self.headers.items() if k != "Authorization").encode()

    def operation(self, path: str, payload: dict[str, Any]) -> str:
        if path == "/graphql":
            return operation_name(payload)
        if path.endswith("/file_stream"):
            return "file_stream"
        if path.startswith("/storage/"):
            return "upload" if self.command == "PUT" else "download"
        return path

    def note(self, request: Request, status: int) -> None:
        """Log the request and wake whoever waits."""
        request.status = status
        with self.stand_in.store.changed:
            self.stand_in.requests.append(request)
            self.stand_in.store.changed.notify_all()

    def drop(self, request: Request) -> None:
        self.close_connection = True
        self.note(request, 0)

    def reply(self, status: int, content: Any, retry_after: float | str | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    # answers

    def unauthorised(self) -> Answer | None:
        given = self.headers.get("Authorization", "")
        wanted = base64.b64encode(f"api:{self.stand_in.api_key}".encode()).decode()
        if given == f"Basic {wanted}" or given == f"Bearer {self.stand_in.api_key}":
            return None
        if not given:
            return 403, {"errors": [{"message": "permission denied", "extensions": {"code": "PERMISSION_ERROR"}}]}
        return 401, {"errors": [{"message": "user is not logged in", "extensions": {"code": "PERMISSION_ERROR"}}]}

    def carried_out(self, path: str, payload: dict[str, Any], body: bytes) -> Answer:
        """The answer; what goes wrong inside the stand-in is kept for `close` to raise."""
        try:
            return self.answer(path, payload, body)
        except Exception as error:
            self.stand_in.errors.append(error)
            return 500, {"error": f"the stand-in failed: {error!r}"}

    def answer(self, path: str, payload: dict[str, Any], body: bytes) -> Answer:
        store = self.stand_in.store
        if path.startswith("/storage/"):  # signed addresses: they carry their own permission
            return self.storage(path, body)
        refused = self.unauthorised()
        if refused:
            return refused
        if path == "/graphql":
            return execute(payload, self.stand_in.roots)
        parts = path.strip("/").split("/")
        if len(parts) == 5 and parts[0] == "files" and parts[4] == "file_stream":
            run = store.runs.get(parts[3])
            if run is None:
                return 404, {"error": f"run {parts[3]} not found"}
            return 200, file_stream(store, run, payload)
        return 404, {"error": f"{self.command} {path}: not in the stand-in"}

    def storage(self, path: str, body: bytes) -> Answer:
        """`/storage/runs/ID/NAME` and `/storage/artifacts/ID/NAME`."""
        store = self.stand_in.store
        _, _, kind, owner_id, name = path.split("/", 4)
        owner = store.runs.get(owner_id) if kind == "runs" else store.artifacts.get(owner_id)
        if owner is None or (self.command != "PUT" and name not in owner.files):
            return 404, {"error": f"{path} not found"}
        if self.command == "PUT":
            owner.files[name] = body
            return 200, b""
        return 200, owner.files[name]


def parsed(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body or b"{}")
    except ValueError:
        return {}
    return payload if isinstance(payload, dict) else {}


def faulty(fault: Fault) -> Answer:
    if fault.kind == "error":
        return 200, {"errors": [{"message": fault.message}], "data": None}
    body = fault.body if fault.body is not None else {"errors": [{"message": f"injected {fault.status}"}]}
    return fault.status, body.encode() if isinstance(body, str) else body
