"""The kernel's own kill for want of memory: the trial goes, the agent and the other trials stay."""

import json
from pathlib import Path

import pytest

from fer_sweep.worker.slots import usable_cores
from tests.support.control_groups import memory_group, run_in, taken_in
from tests.support.processes import COMMAND, fersweep

LIMIT_MB = 1200
OTHERS_MB = 550
"""What other processes take of it. Agent, forkserver and small trials take 200 to 500 beside it, and so less is left
than the slot's share: half the limit, beyond which a trial would run out of memory by itself."""
LARGE, *SMALL = 128, 4, 6, 8
"""Channels; with 128 the feature maps of a batch take 600 MB."""
CONSTANTS = {"model": "simple_cnn", "data": "tiny", "epochs": 2, "hidden": 8, "batch_size": 128, "precision": "fp32"}


@pytest.mark.process
def test_the_kernel_ends_the_trial_that_is_too_large_and_nobody_else(tiny_data: str) -> None:
    parameters = {name: {"value": value} for name, value in CONSTANTS.items()}
    parameters["channels"] = {"values": [LARGE, *SMALL]}
    Path("sweep.yaml").write_text(json.dumps({"method": "grid", "parameters": parameters}))  # JSON is YAML
    assert fersweep("create", "sweep.yaml").returncode == 0
    slots = str(min(2, usable_cores()))
    with memory_group(LIMIT_MB) as group, taken_in(group, OTHERS_MB):
        done = run_in(group, [*COMMAND, "agent", "--gpus", "none", "--slots", slots])
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(fersweep("status", "--json").stdout)
    trials = {trial["config"]["channels"]: trial for trial in status["trials"]}
    assert trials[LARGE]["state"] == "failed"
    assert trials[LARGE]["reason"].startswith("ended by SIGKILL, by the kernel: out of memory")
    assert [trials[channels]["state"] for channels in SMALL] == ["complete"] * 3
    assert "(attempt 2)" not in done.stdout
