"""A sweep with secrets in its environment, hostile names and no umask: what it leaves, says and sends."""

import base64
import contextlib
import gzip
import os
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.processes import COMMAND
from tests.support.standin.server import StandIn

SECRETS = {
    "HF_TOKEN": "hf_zPq7Lw3nVx9RkTb2",
    "HUGGING_FACE_HUB_TOKEN": "hf_mB4cYt8sKd1WqJz6",
    "AWS_SECRET_ACCESS_KEY": "wJalr/Xu+nFEMI-K7MDENG",
    "PGPASSWORD": "p@ss\"w%rd&in'db",
    "GITHUB_TOKEN": "ghp_Q2r5T8v1Y4b7E0h3",
    "DATABASE_URL": "postgresql://fer:s3cr3t-of-the-url@db.example/fer",
    "SOME_PASSWORD": "correct horse battery staple",
}
EVIL = "no\x1b[31m\x07such\u202e[red]weights[/red]"
SWEEP = """\
method: grid
name: "evil \\e]0;title\\a \\e[2J [bold]name[/bold] <script>alert(1)</script> \\u202e\\x7f"
description: "\\e[31mred"
metric: {name: best_val_acc, goal: maximize}
parameters:
  model: {value: vit}
  data: {value: tiny}
  epochs: {value: 1}
  dim: {value: 16}
  head_dim: {value: 4}
  depth: {value: 1}
  patch_size: {value: 24}
  batch_size: {value: 64}
  pretrained: {values: [none, "no\\e[31m\\asuch\\u202e[red]weights[/red]"]}
"""


@dataclass(frozen=True)
class Evening:
    """What an agent and the other commands left behind."""

    folder: Path
    said: Mapping[str, str]
    """By command, stdout and stderr."""
    received: bytes
    """By the W&B server."""
    secrets: tuple[str, ...]


@pytest.fixture(scope="module")
def evening(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evening]:
    """A sweep with a complete and a failed trial, online, made and looked at under umask 0."""
    folder = tmp_path_factory.mktemp("evening")
    said: dict[str, str] = {}
    with StandIn() as server:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        environment = {
            **inherited,
            **SECRETS,
            **server.environment,
            "FERSWEEP_HOME": str(folder / ".fersweep"),
            "FERSWEEP_CACHE": str(tiny_cache),
            "HF_HUB_OFFLINE": "1",
            "WANDB_CONFIG_DIR": str(folder / "wandb-config"),
            "WANDB_CACHE_DIR": str(folder / "wandb-cache"),
            "WANDB_DATA_DIR": str(folder / "wandb-data"),
            "NETRC": str(folder / "netrc"),
        }

        def run(*words: str) -> None:
            done = subprocess.run(
                [*COMMAND, *words], cwd=folder, env=environment, capture_output=True, umask=0, check=False
            )
            assert b"Traceback" not in done.stderr, done.stderr.decode()
            said[words[0]] = said.get(words[0], "") + (done.stdout + done.stderr).decode()

        (folder / "sweep.yaml").write_text(SWEEP)
        run("create", "sweep.yaml", "--search", "optuna")
        run("agent", "--gpus", "none", "--upload-models")
        run("sync")
        run("report", "--wandb")
        run("status")
        run("best")
        run("doctor")
        run("train", "--data", "tiny", "--epochs", "1", "--channels", "4", "--hidden", "8", "--model", "simple_cnn")
        wrong = environment["WANDB_API_KEY"] = "local-" + "0123456789abcdef" * 2 + "wrong"
        run("sync")
        assert "API key" in said["sync"]
        received = b"\n".join(server.received)
        secrets = (*SECRETS.values(), "s3cr3t-of-the-url", server.api_key, wrong)
    yield Evening(folder, said, received, secrets)


def test_the_sweep_was_one_to_look_into(evening: Evening) -> None:
    assert "failed" in evening.said["status"] and "complete" in evening.said["status"], evening.said
    assert b"best_val_acc" in evening.received and b"model-" in evening.received
    assert (evening.folder / "wandb").is_dir()


def test_no_secret_is_written_said_or_sent(evening: Evening) -> None:
    places = {str(path): path.read_bytes() for path in evening.folder.rglob("*") if path.is_file()}
    assert len(places) > 10
    places |= {f"fersweep {command}": text.encode() for command, text in evening.said.items()}
    places["the server"] = evening.received
    assert [(place, secret) for place, content in places.items() for secret in leaks(content, evening.secrets)] == []


def test_nothing_that_is_said_steers_a_terminal(evening: Evening) -> None:
    for command, text in evening.said.items():
        assert all(c.isprintable() or c == "\n" for c in text), command
    assert "[red]weights[/red]" in evening.said["agent"].replace("\n", "")
    assert "[bold]name[/bold]" in evening.said["status"]


def test_nothing_can_be_written_by_others_whatever_the_umask(evening: Evening) -> None:
    # wandb's own cache of artifacts is left out: wandb opens its files to everybody, whatever the umask.
    made = [path for name in (".fersweep", "wandb") for path in (evening.folder / name).rglob("*")]
    assert len(made) > 20
    assert [path for path in made if not path.is_symlink() and path.stat().st_mode & 0o002] == []


def leaks(content: bytes, secrets: tuple[str, ...]) -> list[str]:
    """The secrets in some bytes: as they are, quoted, in base64 or in hexadecimal, and in what gzip has packed."""
    parts = [content, *unpacked(content)]
    return [secret for secret in secrets if any(form in part for form in forms(secret) for part in parts)]


def forms(secret: str) -> set[bytes]:
    plain = secret.encode()
    found = {
        plain,
        quote(secret).encode(),
        quote(secret, safe="").encode(),
        plain.hex().encode(),
        repr(secret)[1:-1].encode(),
    }
    for shift in range(3):  # base64 depends on where a text begins, and its ends on what is beside it
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * shift + plain)[4 if shift else 0 : -4])
    return found


def unpacked(content: bytes) -> list[bytes]:
    """What is packed by gzip or zlib anywhere in some bytes."""
    found = []
    for magic, kind in ((b"\x1f\x8b\x08", 31), (b"\x78\x9c", 15), (b"\x78\x01", 15), (b"\x78\xda", 15)):
        place = content.find(magic)
        while place >= 0:
            with contextlib.suppress(zlib.error):
                found.append(zlib.decompressobj(kind).decompress(content[place:]))
            place = content.find(magic, place + 1)
    return found


@pytest.mark.parametrize(
    "hidden",
    [
        b"key: hf_zPq7Lw3nVx9RkTb2",
        b"..." + base64.b64encode(b"token=hf_zPq7Lw3nVx9RkTb2;"),
        b"head" + gzip.compress(b"a" * 99 + b"hf_zPq7Lw3nVx9RkTb2"),
        gzip.compress(base64.b64encode(b"xy" + b"hf_zPq7Lw3nVx9RkTb2" + b"z")),
    ],
    ids=["plain", "base64", "gzip", "base64 in gzip"],
)
def test_a_leak_would_be_found(hidden: bytes) -> None:
    assert leaks(hidden, ("hf_zPq7Lw3nVx9RkTb2",)) == ["hf_zPq7Lw3nVx9RkTb2"]
    assert leaks(hidden, ("another-secret-of-ours",)) == []
