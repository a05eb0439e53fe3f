"""A sweep with secrets in its environment, hostile names and no umask: what it writes, prints and sends."""

import base64
import contextlib
import gzip
import io
import os
import subprocess
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from fer_sweep.cli import main
from fer_sweep.records import TrialOutcome, TrialState
from tests.support.processes import COMMAND
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter, train_all
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
COMMANDS = (
    "create sweep.yaml --search optuna",
    "agent --gpus none --upload-models",
    "sync",
    "report --wandb",
    "report -o report.html",
    "status",
    "best",
    "doctor",
    "train --data tiny --epochs 1 --channels 4 --hidden 8 --model simple_cnn",  # in real processes alone
)


@dataclass(frozen=True)
class Evening:
    """What an agent and the other commands left behind."""

    folder: Path
    said: Mapping[str, str]
    """By command, stdout and stderr."""
    received: bytes | None
    """By the W&B server; None where there is none."""
    secrets: tuple[str, ...]


@pytest.fixture(scope="module", params=["played", pytest.param("real", marks=[pytest.mark.process, pytest.mark.stock])])
def evening(request: pytest.FixtureRequest, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Evening:
    """A sweep with a complete and a failed trial, created and looked at under umask 0.

    Either in this process with played trials and no login, or with every command and trial a process and a server.
    """
    folder = tmp_path_factory.mktemp("evening")
    (folder / "sweep.yaml").write_text(SWEEP)
    is_real = request.param == "real"
    run = _as_process if is_real else _in_process
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(StandIn()) if is_real else None
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.chdir(folder)
        patch.setattr(sys, "argv", [])
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        places = ("FERSWEEP_HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "NETRC")
        given = {**SECRETS, **{name: str(folder / f".{name}") for name in places}, "FERSWEEP_CACHE": str(tiny_cache)}
        for name, value in {**given, **(server.environment if server else {"WANDB_MODE": "disabled"})}.items():
            patch.setenv(name, value)
        starter = ScriptedStarter(_first_trains_second_fails)
        patch.setattr("fer_sweep.agent.session.TrialStarter", lambda models: starter)
        said = {words: run(words) for words in COMMANDS[: None if is_real else -1]}
        keys = ["local-" + "0123456789abcdef" * 2 + "wrong"]
        patch.setenv("WANDB_API_KEY", keys[0])
        said["sync with a wrong key"] = run("sync")
        keys += [server.api_key] if server else []
        received = b"\n".join(server.received) if server else None
    return Evening(folder, said, received, (*SECRETS.values(), "s3cr3t-of-the-url", *keys))


def _as_process(words: str) -> str:
    done = subprocess.run([*COMMAND, *words.split()], capture_output=True, umask=0, check=False)
    return (done.stdout + done.stderr).decode()


def _in_process(words: str) -> str:
    umask = os.umask(0)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        sys.argv = ["fersweep", *words.split()]
        main()
    os.umask(umask)
    return out.getvalue()


def _first_trains_second_fails(trial: PlayedTrial) -> TrialOutcome:
    if trial.trial_id == "0":
        return train_all(trial)
    trial.begin()
    return TrialOutcome(TrialState.FAILED, reason=f"no weights {trial.job.config.model_dump()['pretrained']}")


def test_there_is_something_to_look_into(evening: Evening) -> None:
    assert "failed" in evening.said["status"] and "complete" in evening.said["status"], evening.said
    assert not [text for text in evening.said.values() if "Traceback" in text]
    if evening.received is not None:
        assert "API key" in evening.said["sync with a wrong key"]
        assert b"best_val_acc" in evening.received and b"model-" in evening.received


def test_no_secret_is_written_printed_or_sent(evening: Evening) -> None:
    places = {str(path): path.read_bytes() for path in evening.folder.rglob("*") if path.is_file()}
    assert len(places) > 10
    places |= {f"fersweep {command}": text.encode() for command, text in evening.said.items()}
    places["the server"] = evening.received or b""
    assert [(place, secret) for place, content in places.items() for secret in leaks(content, evening.secrets)] == []


def test_no_output_steers_a_terminal(evening: Evening) -> None:
    for command, text in evening.said.items():
        assert all(c.isprintable() or c == "\n" for c in text), command
    assert "[red]weights[/red]" in evening.said["agent --gpus none --upload-models"].replace("\n", "")
    assert "[bold]name[/bold]" in evening.said["status"]


def test_no_file_is_writable_by_others_whatever_the_umask(evening: Evening) -> None:
    # wandb's own cache of artifacts is left out: wandb opens its files to everybody, whatever the umask.
    made = [path for name in (".FERSWEEP_HOME", "wandb") for path in (evening.folder / name).rglob("*")]
    assert len(made) > 10
    assert [path for path in made if not path.is_symlink() and path.stat().st_mode & 0o002] == []


def leaks(content: bytes, secrets: tuple[str, ...]) -> list[str]:
    """The secrets in some bytes: as they are, quoted, in base64 or in hexadecimal, and in what gzip has packed."""
    parts = [content, *unpacked(content)]
    return [secret for secret in secrets if any(form in part for form in forms(secret) for part in parts)]


def forms(secret: str) -> set[bytes]:
    plain = secret.encode()
    quoted = (quote(secret), quote(secret, safe=""), repr(secret)[1:-1])
    found = {plain, plain.hex().encode(), *(form.encode() for form in quoted)}
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


def test_a_leak_would_be_found() -> None:
    secret = SECRETS["HF_TOKEN"]
    for hidden in (secret.encode(), base64.b64encode(f"token={secret};".encode()), gzip.compress(secret.encode())):
        assert leaks(b"..." + hidden, (secret, "another-secret-of-ours")) == [secret]
