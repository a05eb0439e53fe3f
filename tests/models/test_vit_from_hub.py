"""Weights by a name: a hub on loopback gives out a small ViT in the hub's own layout, to the library that speaks to it.

In processes of their own: huggingface_hub reads its address, its cache and its switches when it is imported.
"""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.models.test_vit import saved

NAME = "someone/some-vit"
COMMIT = "c0ffee" * 6 + "cafe"
BUILD_TWICE = f"""
import os, urllib.request
from fer_sweep.config.trial import ViTConfig
from fer_sweep.models.vit import build

build(ViTConfig(pretrained={NAME!r}))
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/again").close()
build(ViTConfig(pretrained={NAME!r}))
"""


class Hub(ThreadingHTTPServer):
    """Serves the files of a folder as those of one commit, and remembers what it was asked for."""

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
    (folder / "again").touch()
    with Hub(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_weights_are_downloaded_once_and_the_hub_is_not_asked_about_them_again(hub: Hub, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{hub.server_port}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    built = subprocess.run([sys.executable, "-c", BUILD_TWICE], env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    again = hub.asked.index("/again")
    assert f"/{NAME}/resolve/main/model.safetensors" in hub.asked[:again]
    assert hub.asked[again + 1 :] == []
