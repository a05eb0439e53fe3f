"""A sweep with secrets in its environment, hostile names and no umask: what it writes, prints and sends."""

import base64
import contextlib
import gzip
import os
import re
import subprocess
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from fer_sweep.records import TrialOutcome, TrialState
from tests.support.processes import COMMAND
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter, train_all
from tests.support.shell import Shell

SECRETS = {
    "HF_TOKEN": "hf_zPq7Lw3nVx9RkTb2",
    "AWS_SECRET_ACCESS_KEY": "wJalr/Xu+nFEMI-K7MDENG",
    "PGPASSWORD": "p@ss\"w%rd&in'db",
    "GITHUB_TOKEN": "ghp_Q2r5T8v1Y4b7E0h3",
    "SOME_PASSWORD": "correct horse battery staple",
}
URL_PASSWORD = "s3cr3t-of-the-url"
WRONG_KEY = "local-" + "0123456789abcdef" * 2 + "wrong"
VIT = {"model": "vit", "data": "tiny", "epochs": 1, "dim": 16, "head_dim": 4, "depth": 1, "patch_size": 24}
WEIGHTS = ["none", "no\x1b[31m\x07such\u202e[red]weights[/red]"]
SWEEP = {
    "method": "grid",
    "name": "evil \x1b]0;title\x07 \x1b[2J [bold]name[/bold] <script>alert(1)</script> \u202e\x7f",
    "description": "\x1b[31mred",
    "metric": {"name": "best_val_acc", "goal": "maximize"},
    "parameters": {name: {"value": value} for name, value in VIT.items()} | {"pretrained": {"values": WEIGHTS}},
}
COMMANDS = (
    "create sweep.yaml --search optuna",
    "agent --gpus none --upload-models",
    "sync",
    "report --wandb",
    "report -o report.html",
    "status",
    "best",
    "doctor",
)
TRAIN = "train --data tiny --epochs 1 --channels 4 --hidden 8 --model simple_cnn"


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def run_process(words: str) -> str:
    done = subprocess.run([*COMMAND, *words.split()], capture_output=True, check=False)
    return (done.stdout + done.stderr).decode()


def second_fails(trial: PlayedTrial) -> TrialOutcome:
    if trial.trial_id == "0":
        return train_all(trial)
    return TrialOutcome(TrialState.FAILED, reason=f"no weights {trial.job.config.model_dump()['pretrained']}")


@pytest.mark.usefixtures("no_umask", "tiny_data")
@pytest.mark.parametrize("is_real", [False, pytest.param(True, marks=[pytest.mark.process, pytest.mark.stock])])
def test_secrets_are_kept_and_hostile_names_and_open_umasks_do_no_harm(
    is_real: bool,
    request: pytest.FixtureRequest,
    shell: Shell,
    played_trials: ScriptedStarter,
    own_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once all in this process, and once with processes and a W&B server."""
    server = request.getfixturevalue("online") if is_real else None
    played_trials.script = second_fails
    run: Callable[[str], str] = run_process if is_real else lambda words: "".join(shell(*words.split())[1:])
    given = {**SECRETS, "DATABASE_URL": f"postgresql://fer:{URL_PASSWORD}@db.example/fer"}
    for name, value in {**given, "WANDB_DATA_DIR": str(own_folders / "wandb-data")}.items():
        monkeypatch.setenv(name, value)
    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    said = {words: run(words) for words in (*COMMANDS, *([TRAIN] if is_real else []))}
    monkeypatch.setenv("WANDB_API_KEY", WRONG_KEY)
    said["sync with a wrong key"] = run("sync")
    assert "failed" in said["status"] and "complete" in said["status"], said
    assert not [text for text in said.values() if "Traceback" in text]

    secrets = [*SECRETS.values(), URL_PASSWORD, WRONG_KEY]
    places = {str(path): path.read_bytes() for path in own_folders.rglob("*") if path.is_file()}
    assert len(places) > 10
    places |= {command: text.encode() for command, text in said.items()}
    if server is not None:
        secrets.append(server.api_key)
        assert "API key" in said["sync with a wrong key"]
        places["the server"] = b"\n".join(server.received)
        assert b"best_val_acc" in places["the server"] and b"model-" in places["the server"]
    assert [(place, secret) for place, content in places.items() for secret in leaks(content, secrets)] == []

    for command, text in said.items():
        assert all(character.isprintable() or character == "\n" for character in text), command
    assert "[red]weights[/red]" in said["agent --gpus none --upload-models"].replace("\n", "")
    assert "[bold]name[/bold]" in said["status"]

    # wandb's own cache of artifacts is left out: wandb opens its files to everybody, whatever the umask.
    made = [path for name in (".fersweep", "wandb") for path in Path(name).rglob("*") if not path.is_symlink()]
    assert len(made) > 10
    assert [path for path in made if path.stat().st_mode & 0o002] == []


def leaks(content: bytes, secrets: Collection[str]) -> list[str]:
    """The secrets in some bytes: as they are, quoted, in base64 or in hexadecimal, and in what gzip has packed."""
    parts = [content, *unpacked(content)]
    return [secret for secret in secrets if any(form in part for form in forms(secret) for part in parts)]


def forms(secret: str) -> set[bytes]:
    plain = secret.encode()
    found = {form.encode() for form in (secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], plain.hex())}
    for shift in range(3):  # base64 depends on where a text begins, and its ends on what is beside it
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * shift + plain)[4 if shift else 0 : -4])
    return found


def unpacked(content: bytes) -> Iterator[bytes]:
    """What is packed by gzip or zlib anywhere in some bytes."""
    for start in re.finditer(rb"\x1f\x8b\x08|\x78[\x01\x9c\xda]", content):
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(content[start.start() :])


def test_a_leak_would_be_found() -> None:
    secret = SECRETS["HF_TOKEN"]
    for hidden in (secret.encode(), base64.b64encode(f"token={secret};".encode()), gzip.compress(secret.encode())):
        assert leaks(b"..." + hidden, [secret, "another-secret-of-ours"]) == [secret]
