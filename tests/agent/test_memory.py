"""How much memory there is, in control groups of both versions, and whether one more trial fits."""

import os
import sys
from typing import NamedTuple

import pytest

from fer_sweep.worker.memory import CUDA_CONTEXT_MB, Admission, OomKills, free_mb, oom_kills, shortage, total_mb
from fer_sweep.worker.slots import Slot
from tests.support.control_groups import ControlTree

CPU = Slot("cpu0", "cpu", 1, {"CUDA_VISIBLE_DEVICES": ""})
GPU = Slot("gpu0/1", "cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "GPU-nowhere"})


class Names(NamedTuple):
    """What a version of control groups calls things."""

    limit: str
    unlimited: str
    used: str
    files: str
    kills: str


_NAMES = {
    1: Names(
        "memory.limit_in_bytes", f"{2**63 - 4096}", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"
    ),
    2: Names("memory.max", "max", "memory.current", "inactive_file", "memory.events"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says")
def test_the_free_memory_of_this_host_is_told() -> None:
    free, total = free_mb(CPU), total_mb()
    assert free is not None and total is not None
    assert 0 < free <= total


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says")
@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_all_groups_around_and_the_own_count_of_kills_are_read(
    control_tree: ControlTree, version: int
) -> None:
    # As on a node of Slurm's: the limit is the job's, and a process is two groups further down.
    job = control_tree.group(version, "memory", "slurm/job_1")
    own = control_tree.group(version, "memory", "slurm/job_1/step_0/task_0")
    control_tree.join(version, "memory", "/slurm/job_1/step_0/task_0")
    names = _NAMES[version]
    for group, limit, used, kills in ((job, 1000, 900, 7), (own, None, 100, 2)):
        (group / names.limit).write_text(names.unlimited if limit is None else f"{limit * 2**20}\n")
        (group / names.used).write_text(f"{used * 2**20}\n")
        (group / "memory.stat").write_text(f"active_file 4\n{names.files} 0\n")
        (group / names.kills).write_text(f"under_oom 0\noom_kill {kills}\n")
    assert total_mb() == 1000
    assert oom_kills() == 2
    assert shortage(os.getpid()) is None
    (job / names.used).write_text(f"{990 * 2**20}\n")
    said = shortage(os.getpid())
    assert said is not None
    assert said.startswith("10 of 1,000 MB were free, and it held ")
    assert int(said.rpartition(" ")[2].replace(",", "")) > 10
    (job / "memory.stat").write_text(f"{names.files} {500 * 2**20}\n")
    assert shortage(os.getpid()) is None


def test_one_kernel_kill_explains_one_ended_trial(control_tree: ControlTree) -> None:
    counts = control_tree.group(2, "memory", "job") / "memory.events"
    control_tree.join(2, "memory", "/job")
    counts.write_text("oom_kill 3\n")
    kills = OomKills()
    before = kills.unexplained()
    assert not kills.explain(before)
    counts.write_text("oom_kill 4\n")
    assert kills.explain(before)  # the one that was killed
    assert not kills.explain(before)  # another that ran beside it, and was killed from outside some time later
    counts.write_text("oom_kill 6\n")
    assert kills.explain(before)
    assert kills.explain(before)
    assert not kills.explain(kills.unexplained())


def test_the_free_memory_of_an_unknown_gpu_is_none() -> None:
    assert free_mb(GPU) is None


@pytest.mark.parametrize(
    ("free", "growing", "admitted"),
    [(1000.0, 0, True), (399.0, 0, False), (799.0, 1, False), (800.0, 1, True), (None, 5, True)],
)
def test_a_trial_is_admitted_if_the_largest_so_far_fits_beside_those_still_growing(
    free: float | None, growing: int, admitted: bool
) -> None:
    admission = Admission(free=lambda slot: free)
    admission.learn(CPU, 400.0)
    admission.learn(CPU, 100.0)
    refusal = admission.refusal(CPU, growing)
    assert (refusal is None) is admitted
    if refusal:
        assert "400" in refusal


def test_admission_knows_cpu_and_gpus_apart_and_refuses_nothing_before_a_first_trial() -> None:
    admission = Admission(free=lambda slot: 10.0)
    assert admission.refusal(CPU, 3) is None
    admission.learn(GPU, 100.0)
    assert admission.refusal(CPU, 0) is None
    assert f"{100 + CUDA_CONTEXT_MB:,.0f}" in (admission.refusal(GPU, 0) or "")
