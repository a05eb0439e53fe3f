"""W&B runs, offline for real: wandb's own files are written and read back."""

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.tracking import RunLabels, Tracker


def test_disabled_tracking_takes_everything_and_writes_nothing(tmp_path: Path) -> None:
    run = Tracker().start(RunLabels(name="a", group="g"), {"lr": 0.1})
    run.log({"epoch": 1, "val_acc": 0.5})
    run.finish(TrialOutcome(TrialState.COMPLETE))
    assert run.run is None
    assert not (tmp_path / "wandb").exists()


OFFLINE = """
import glob, os
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.tracking import RunLabels, Tracker

config = {"lr": 0.1, "augment": {"flip": True}}
runs = [Tracker().start(RunLabels(name=f"trial-{n}", group="sweep1", tags=("vit",)), config, run_id=f"sweep1-{n}")
        for n in range(2)]
for epoch in (1, 2):
    for run in runs:  # both open at once, as in an agent with two slots
        run.log({"epoch": epoch, "val_acc": epoch / 10})
runs[0].finish(TrialOutcome(TrialState.COMPLETE))
runs[1].finish(TrialOutcome(TrialState.FAILED, reason="out of patience"))
"""


def _transaction_log(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format after a header of 7 bytes, in blocks of 32 KiB."""
    block, position, record = 32768, 7, b""
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block
            continue
        _crc, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def test_offline_runs_hold_config_history_and_how_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto import wandb_internal_pb2 as pb

    monkeypatch.setenv("WANDB_MODE", "offline")
    # A process of its own: wandb's service outlives the run that starts it and ends with its process.
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for file in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        records = [pb.Record.FromString(data) for data in _transaction_log(file.read_bytes())]
        found[next(r.run.run_id for r in records if r.HasField("run"))] = records
    assert set(found) == {"sweep1-0", "sweep1-1"}
    for name, code in (("sweep1-0", 0), ("sweep1-1", 1)):
        records = found[name]
        run = next(r.run for r in records if r.HasField("run"))
        assert run.run_group == "sweep1"
        assert run.job_type == "trial"
        assert {update.key for update in run.config.update} >= {"lr", "augment"}
        assert sum(r.HasField("history") for r in records) == 2
        assert [r.exit.exit_code for r in records if r.HasField("exit")] == [code]
