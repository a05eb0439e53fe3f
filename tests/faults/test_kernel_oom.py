"""The kernel's own kill for want of memory: the trial goes, the agent and the other trials stay."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep.records import TrialState
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.database import default_storage
from fer_sweep.worker.slots import usable_cores
from tests.support.control_groups import memory_group, run_in, taken_in
from tests.support.processes import COMMAND, fersweep

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="control groups as Linux has them"),
]

LIMIT_MB = 1200
OTHERS_MB = 550
"""What somebody else has of it. Agent, forkserver and small trials take 200 to 500 beside it, and so less is left than
the slot's share: half the limit, beyond which a trial would run out of memory by itself."""
LARGE = 128
"""Channels with which the feature maps of a batch take 600 MB."""
SMALL = (4, 6, 8)
SWEEP = f"""\
program: fersweep
method: grid
metric: {{name: best_val_acc, goal: maximize}}
parameters:
  model: {{value: simple_cnn}}
  data: {{value: tiny}}
  epochs: {{value: 2}}
  channels: {{values: {[LARGE, *SMALL]}}}
  hidden: {{value: 8}}
  batch_size: {{value: 128}}
  precision: {{value: fp32}}
  lr: {{value: 0.001}}
"""


def kills_in(group: Path) -> int:
    (counts,) = [group / name for name in ("memory.events", "memory.oom_control") if (group / name).exists()]
    return int(dict(line.split() for line in counts.read_text().splitlines())["oom_kill"])


def test_the_kernel_ends_the_trial_that_is_too_large_and_nobody_else(tiny_data: str) -> None:
    Path("sweep.yaml").write_text(SWEEP)
    sweep = fersweep("create", "sweep.yaml").stdout.strip()
    slots = str(min(2, usable_cores()))
    with memory_group(LIMIT_MB) as group:
        with taken_in(group, OTHERS_MB):
            done = run_in(group, [*COMMAND, "agent", sweep, "--gpus", "none", "--slots", slots])
        kills = kills_in(group)
    assert done.returncode == 0, done.stdout + done.stderr
    with closing(OptunaSearch(sweep, storage=default_storage())) as search:
        trials = {record.config["channels"]: record for record in search.records()}
    assert kills == 1
    assert trials[LARGE].state is TrialState.FAILED
    assert (trials[LARGE].reason or "").startswith("ended by SIGKILL, by the kernel: out of memory")
    for channels in SMALL:
        assert (trials[channels].state, trials[channels].attempt) == (TrialState.COMPLETE, 1)
