"""The HTTP side: authentication, routing, faults, and the log of requests."""

import base64
import gzip
import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.standin.graphql import execute, operation_name
from tests.support.standin.runs import file_stream
from tests.support.standin.state import Request

Answer = tuple[int, Any]


class Handler(BaseHTTPRequestHandler):
    """One connection of one client; answers its requests one after another."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer

    @property
    def stand_in(self) -> Any:
        return self.server.stand_in  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: `StandIn.requests` is the log."""

    def serve(self) -> None:
        server, arrived = self.stand_in, time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        headers = "\n".join(f"{name}: {value}" for name, value in self.headers.items() if name != "Authorization")
        server.received.append(f"{self.path}\n{headers}\n".encode() + body)
        path = unquote(urlsplit(self.path).path)
        payload = json.loads(body) if path.endswith(("/graphql", "/file_stream")) else {}
        seen = payload.get("variables") or {} if path == "/graphql" else payload
        request = Request(self.operation(path, payload), seen, arrived, path)
        if server.faults.is_offline or server.closing.is_set():
            return self.drop(request)
        if path.startswith("/sdk/otel/"):  # wandb's telemetry about itself: no part of the protocol, so not in the log
            return self.reply(200, {})
        fault = server.faults.take(request.operation)
        answer = fault.answer
        if answer is None and fault.is_carried_out:
            with server.store.change():  # visible before a late or lost answer
                answer = self.carried_out(path, payload, body)
        if fault.late_s:
            fault.released.wait(fault.late_s)
        if answer is None or not fault.is_answered or server.closing.is_set():
            return self.drop(request)
        request.status = answer[0]
        self.note(request)
        self.reply(*answer, fault.retry_after)

    do_GET = do_POST = do_PUT = serve

    def operation(self, path: str, payload: dict[str, Any]) -> str:
        if path == "/graphql":
            return operation_name(payload)
        if path.startswith("/storage/"):
            return "upload" if self.command == "PUT" else "download"
        return "file_stream" if path.endswith("/file_stream") else path

    def note(self, request: Request) -> None:
        with self.stand_in.store.change():
            self.stand_in.requests.append(request)

    def drop(self, request: Request) -> None:
        self.close_connection = True
        self.note(request)

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

    def carried_out(self, path: str, payload: dict[str, Any], body: bytes) -> Answer:
        """The answer; what goes wrong inside the stand-in is kept for `close` to raise."""
        try:
            return self.answer(path, payload, body)
        except Exception as error:
            self.stand_in.errors.append(error)
            return 500, {"error": f"the stand-in failed: {error!r}"}

    def answer(self, path: str, payload: dict[str, Any], body: bytes) -> Answer:
        store = self.stand_in.store
        parts = path.strip("/").split("/")
        if parts[0] == "storage":  # signed addresses, which need no login: /storage/KIND/ID/NAME
            files = getattr(store, parts[1])[parts[2]].files
            name = "/".join(parts[3:])
            if self.command == "PUT":
                files[name] = body
                return 200, b""
            return (200, files[name]) if name in files else (404, {"error": f"{path} not found"})
        login = base64.b64encode(f"api:{self.stand_in.api_key}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {login}":
            return 401, {"errors": [{"message": "user is not logged in", "extensions": {"code": "PERMISSION_ERROR"}}]}
        if path == "/graphql":
            return execute(payload, self.stand_in.roots)
        if len(parts) == 5 and parts[0] == "files" and parts[4] == "file_stream":
            run = store.runs.get(parts[3])
            return (200, file_stream(store, run, payload)) if run else (404, {"error": f"run {parts[3]} not found"})
        return 404, {"error": f"{self.command} {path}: not in the stand-in"}
