"""Killed with all that is below it, and the same command again: from the last checkpoint that can be read."""

import io
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from fer_sweep.config.trial import parse_trial
from fer_sweep.training.loop import train
from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until

EPOCHS = 80
CLOCKED = {"seconds", "images_per_second", "peak_memory_mb"}
pytestmark = pytest.mark.usefixtures("tiny_data")


def cut_short(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])


def one_bit_turned(checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)


def epochs_in(checkpoint: Path) -> int:
    content = checkpoint.read_bytes().partition(b"\n")[2]
    return len(torch.load(io.BytesIO(content), weights_only=True)["state"]["history"])


def lines_of(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [{name: value for name, value in row.items() if name not in CLOCKED} for row in rows]


def what_stays(folder: Path) -> tuple[object, ...]:
    result = json.loads((folder / "result.json").read_text())
    kept = {name: value for name, value in result.items() if name not in CLOCKED}
    return kept, lines_of(folder / "history.jsonl"), (folder / "best.safetensors").read_bytes()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """Two trials at once, whose newest checkpoints are damaged in two ways."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    text = SWEEP.replace("EPOCHS", str(EPOCHS)).replace("run_cap: 1", f"run_cap: {len(cores)}")
    (tmp_path / "sweep.yaml").write_text(text)
    sweep = fersweep("create", "sweep.yaml").stdout.strip()
    trials = tmp_path / ".fersweep" / "sweeps" / sweep / "trials"
    folders = [trials / str(number) for number in range(len(cores))]
    words = [*COMMAND, "agent", "--gpus", "none", "--slots", str(len(cores))]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # a thread a trial
    try:
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, process_group=0) as agent:
            until(lambda: all((folder / "previous.ckpt").is_file() for folder in folders))
            family = {agent.pid} | descendants(agent.pid)
            os.killpg(agent.pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in family))
        reached = [epochs_in(folder / "previous.ckpt") for folder in folders]
        assert all(0 < before < EPOCHS for before in reached)
        for folder, damage in zip(folders, (cut_short, one_bit_turned), strict=False):
            if (folder / "last.ckpt").exists():  # not in the moment of its replacement
                damage(folder / "last.ckpt")
            (folder / "history.jsonl").unlink()  # what is in the checkpoint counts
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, process_group=0) as agent:
            until(lambda: all((folder / "history.jsonl").is_file() for folder in folders))
            began_with = [len(lines_of(folder / "history.jsonl")) for folder in folders]
            assert agent.wait(timeout=300) == 0
    finally:
        os.sched_setaffinity(0, before)
    # A resumed trial first writes the history of its checkpoint, whole; an epoch or two may have followed by now.
    assert all(lines >= epochs for lines, epochs in zip(began_with, reached, strict=True))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for folder in folders:
            alone = tmp_path / "alone" / folder.name
            alone.mkdir(parents=True)
            train(parse_trial(json.loads((folder / "config.json").read_text())), alone)
            assert what_stays(folder) == what_stays(alone)
    finally:
        torch.set_num_threads(threads)
