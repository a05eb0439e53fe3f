"""Weights by name, from a hub on loopback that serves a small ViT.

In a process of its own: huggingface_hub reads its address, cache and switches when it is imported.
"""

import hashlib
import multiprocessing
import os
import threading
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fer_sweep.config.trial import ViTConfig
from fer_sweep.models.vit import build
from tests.models.test_vit import saved

NAME = "someone/some-vit"
COMMIT = "c0ffee" * 6 + "cafe"
AGAIN = "/again"
"""What is requested between the first use of the weights and the second."""
pytestmark = pytest.mark.process


def build_twice() -> None:
    build(ViTConfig(pretrained=NAME))
    urllib.request.urlopen(os.environ["HF_ENDPOINT"] + AGAIN).close()
    build(ViTConfig(pretrained=NAME))


class Hub(ThreadingHTTPServer):
    """Serves the files of a folder as those of one commit, and records every request."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[str] = []


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def translate_path(self, path: str) -> str:
        return str(self.server.folder / path.removeprefix("/"))

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
        super().end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        self.server.asked.append(self.path)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "hub"
    saved(folder / NAME / "resolve" / "main")
    (folder / AGAIN[1:]).touch()
    with Hub(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_weights_are_downloaded_once_and_then_taken_from_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    process = multiprocessing.get_context("spawn").Process(target=build_twice)
    process.start()
    process.join()
    assert process.exitcode == 0
    again = hub.asked.index(AGAIN)
    assert f"/{NAME}/resolve/main/model.safetensors" in hub.asked[:again]
    assert hub.asked[again + 1 :] == []
