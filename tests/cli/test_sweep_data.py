"""The data of a sweep on several hosts: here, folders that FERSWEEP_CACHE names, with one home among them."""

import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_sweep.data.cache import open_dataset, prepare
from fer_sweep.data.sharing import share
from fer_sweep.records import CLASSES
from fer_sweep.search.registry import find
from fer_sweep.search.sweep_data import _pin, _pinned
from tests.cli.conftest import Shell
from tests.support.processes import COMMAND, SWEEP, until

pytestmark = pytest.mark.usefixtures("tiny_data", "one_core")

ARRAYS = ("images", "labels", "splits", "groups")


@pytest.fixture
def file() -> str:
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "1").replace("run_cap: 1", "run_cap: 4"))
    return "sweep.yaml"


@pytest.fixture
def other_host(tmp_path: Path) -> Path:
    """A cache with nothing in it."""
    return tmp_path / "other"


def draw(folder: Path, seed: int) -> Path:
    """A data set of its own, as image folders."""
    rng = np.random.default_rng(seed)
    for split, prefix, count in (("train", "Training", 8), ("test", "PublicTest", 4)):
        for code, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                face = rng.integers(0, 256, (48, 48), dtype=np.uint8)
                Image.fromarray(face).save(folder / split / name / f"{prefix}_{code}{number}.png")
    return folder


def test_a_host_without_the_data_takes_it_from_the_home_that_it_shares(
    shell: Shell, file: str, postgres: str, other_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("create", file, "--storage", postgres)
    there = open_dataset("tiny")
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    code, out, err = shell("agent", "--gpus", "none", "--count", "1")
    assert code == 0, err
    assert "tiny is not prepared on this host" in out and "copying 210 images from faces" in out
    here = open_dataset("tiny")
    assert here.info == there.info
    assert all(np.array_equal(getattr(here, name), getattr(there, name)) for name in ARRAYS)
    assert "copying" not in shell("agent", "--gpus", "none", "--count", "1")[1], "once is enough"


def test_without_a_shared_copy_it_says_what_to_run_here_and_there(
    shell: Shell, file: str, tiny_cache: Path, other_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("create", file)
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    code, _, err = shell("agent", "--gpus", "none")
    assert code == 2
    assert "fersweep data prepare faces --name tiny" in err and "fersweep data share tiny" in err
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))
    assert "copied to" in shell("data", "share", "tiny")[2]
    assert "shared already" in shell("data", "share", "tiny")[2]
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    assert shell("agent", "--gpus", "none", "--count", "1")[0] == 0


def test_other_content_of_the_same_name_is_trained_by_no_host(
    shell: Shell, file: str, other_host: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shell("create", file)
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    prepare(draw(tmp_path / "others", 5), "tiny")
    code, _, err = shell("agent", "--gpus", "none")
    assert code == 2
    assert "84 images from others" in err and "in place of 210 images from faces" in err and "--replace" in err
    assert shell.json("status")["trials"] == []


def test_a_name_given_to_other_content_while_an_agent_works_is_trained_by_no_trial(
    shell: Shell, file: str, tiny_cache: Path, other_host: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(tiny_cache, other_host)
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    Path(file).write_text(SWEEP.replace("EPOCHS", "60").replace("run_cap: 1", "run_cap: 2"))
    sweep = shell.json("create", file)["sweep"]
    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stderr=subprocess.PIPE, text=True) as agent:
        until(lambda: Path(f".fersweep/sweeps/{sweep}/trials/0/last.ckpt").exists())
        prepare(draw(tmp_path / "others", 5), "tiny", replace=True)
        said = agent.communicate(timeout=120)[1]
    assert agent.returncode == 1
    assert "data set tiny has been replaced" in said and "others" in said
    prepare(tiny_cache.parent / "faces", "tiny", replace=True)
    states = [trial["state"] for trial in shell.json("status")["trials"]]
    assert states[0] == "complete" and set(states[1:]) == {"preempted"}, "it had its images before that"
    code, _, err = shell("agent", "--gpus", "none")
    assert code == 0, err
    assert [trial["state"] for trial in shell.json("status")["trials"]] == ["complete"] * 2


def test_what_a_name_means_is_settled_by_the_first_agent_if_not_by_create(
    shell: Shell, file: str, tiny_cache: Path, other_host: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    shell("create", file)
    code, _, err = shell("agent", "--gpus", "none")
    assert code == 2 and "no data set 'tiny' has been prepared" in err
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))
    assert shell("agent", "--gpus", "none", "--count", "1")[0] == 0
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    prepare(draw(tmp_path / "others", 5), "tiny")
    assert "is not what sweep" in shell("agent", "--gpus", "none")[2]


def test_what_a_model_was_trained_on_is_not_told_from_what_its_name_means_by_now(
    shell: Shell, file: str, tiny_cache: Path, other_host: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    began_with = open_dataset("tiny").info.fingerprint
    shell("create", file)
    shell("agent", "--gpus", "none", "--count", "1")
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    other = prepare(draw(tmp_path / "others", 5), "tiny").fingerprint
    code, _, err = shell("export", "-o", "out")
    assert code == 1 and began_with[:12] in err and other[:12] in err and "--replace" in err
    assert not Path("out").exists()
    assert shell("report", "-o", "report.html", "--faces")[0] == 0
    report = Path("report.html").read_text()
    assert began_with in report and other not in report
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))
    assert shell("export", "-o", "out")[0] == 0
    assert began_with[:12] in Path("out/README.md").read_text()
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    assert shell("export", "--folder", "out", "-o", "again")[0] == 1, "the copy knows it too"


def test_a_confirmation_is_trained_on_what_its_sweep_was(
    shell: Shell, file: str, other_host: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shell("create", file)
    shell("agent", "--gpus", "none", "--count", "2")
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    prepare(draw(tmp_path / "others", 5), "tiny")
    code, _, err = shell("confirm", "--seeds", "2", "--gpus", "none")
    assert code == 2 and "is not what sweep confirm-" in err


def test_a_damaged_copy_is_taken_by_nobody_and_put_there_anew(
    shell: Shell, file: str, tiny_cache: Path, other_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("create", file)
    shell("data", "share", "tiny")
    (copy,) = Path(".fersweep/data").glob("[!.]*")
    images = bytearray((copy / "images.npy").read_bytes())
    images[-1] ^= 1
    (copy / "images.npy").write_bytes(images)
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    code, _, err = shell("agent", "--gpus", "none")
    assert code == 2 and "does not match its fingerprint" in err and f"remove {copy.absolute()}" in err
    assert not (other_host / "data" / "tiny.json").exists()
    shutil.rmtree(copy)
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))
    shell("data", "share", "tiny")
    monkeypatch.setenv("FERSWEEP_CACHE", str(other_host))
    assert shell("agent", "--gpus", "none", "--count", "1")[0] == 0


def test_a_pin_that_cannot_be_read_is_named(shell: Shell, file: str) -> None:
    sweep = shell.json("create", file)["sweep"]
    pin = Path(f".fersweep/sweeps/{sweep}/data-tiny.json").absolute()
    pin.write_text(json.dumps({"name": "tiny"}))
    code, _, err = shell("agent", "--gpus", "none")
    assert code == 2 and str(pin) in err


def test_drawn_faces_are_not_shared_for_nobody(shell: Shell) -> None:
    code, _, err = shell("data", "share", "synthetic")
    assert code == 2 and "every host" in err
    assert not Path(".fersweep/data").exists()


def test_of_two_that_pin_at_once_one_is_right(shell: Shell, file: str, other_host: Path) -> None:
    sweep = shell.json("create", file)["sweep"]
    entry = find(sweep)
    first = _pinned(entry.id, "tiny")
    assert first is not None
    assert _pin(entry, first.model_copy(update={"fingerprint": "ab" * 32})) == first


def test_many_that_share_at_once_share_once(tmp_path: Path) -> None:
    dataset = open_dataset("tiny")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: share(dataset, tmp_path / "shared"), range(8)))
    assert done.count(True) == 1
    (copy,) = (tmp_path / "shared").glob("[!.]*")
    assert sorted(path.name for path in copy.iterdir()) == sorted(f"{name}.npy" for name in ARRAYS)


def test_what_a_killed_one_left_unfinished_is_removed_by_the_next_that_shares(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from fer_sweep.data import sharing
from fer_sweep.data.cache import open_dataset
save = sharing.np.save
def save_one_and_die(path, *arguments, **options):
    save(path, *arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
sharing.np.save = save_one_and_die
sharing.share(open_dataset("tiny"), Path({str(tmp_path / "shared")!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert list((tmp_path / "shared").glob(".*/images.npy"))
    assert share(open_dataset("tiny"), tmp_path / "shared")
    assert [path.name for path in (tmp_path / "shared").iterdir() if path.is_dir()] == [
        open_dataset("tiny").info.fingerprint
    ]


def test_a_host_that_cannot_read_a_checkpoint_begins_other_trials_first(
    shell: Shell, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path(file).write_text(SWEEP.replace("EPOCHS", "100").replace("run_cap: 1", "run_cap: 2"))
    sweep = shell.json("create", file)["sweep"]
    trials = Path(f".fersweep/sweeps/{sweep}/trials")
    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", str(tmp_path / "scratch of here"))
    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.DEVNULL) as agent:
        until(lambda: (trials / "0" / "history.jsonl").exists())
        agent.send_signal(signal.SIGTERM)
    assert agent.returncode == 130
    checkpoint = tmp_path / "scratch of here" / sweep / "0" / "last.ckpt"
    assert checkpoint.is_file() and not (trials / "0" / "last.ckpt").exists()
    before = (trials / "0" / "history.jsonl").read_text().splitlines()
    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", str(tmp_path / "scratch of there"))
    code, out, err = shell("agent", "--gpus", "none")
    assert code == 0, err
    begun = [line.split(":")[1].strip() for line in out.splitlines() if " trial " in line and "lr=" in line]
    assert begun == ["trial 1", "trial 0 (attempt 2)"]
    rows = [json.loads(line) for line in (trials / "0" / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 101))
    assert [row["val_acc"] for row in rows[: len(before)]] == [json.loads(line)["val_acc"] for line in before]
    assert checkpoint.is_file(), "that host's own"
    assert list((tmp_path / "scratch of there").rglob("*")) == []


def test_a_mirror_of_the_home_without_its_checkpoints_is_refused(
    shell: Shell, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shell("create", file)
    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", str(tmp_path / "scratch"))
    code, _, err = shell("agent", "--gpus", "none", "--mirror", str(tmp_path / "drive"))
    assert code == 2 and "FERSWEEP_CHECKPOINTS" in err
