"""How much memory there is, in control groups of both versions, and whether one more trial fits."""

import sys

import pytest

from fer_sweep.worker.resources import OomKills, free_host_mb, oom_kills, total_mb
from fer_sweep.worker.slots import CUDA_CONTEXT_MB, Admission, Slot, free_mb

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups and /proc as Linux has them")
CPU = Slot("cpu0", "cpu", 1, {"CUDA_VISIBLE_DEVICES": ""})
GPU = Slot("gpu0/1", "cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "GPU-nowhere"})

NAMES = {
    1: ("limit_in_bytes", f"{2**63 - 4096}", "usage_in_bytes", "total_inactive_file", "oom_control"),
    2: ("max", "max", "current", "inactive_file", "events"),
}
"""What a version calls the limit, none, what is used, the files among that, and the count of kills."""


def test_the_free_memory_of_this_host_is_told_and_that_of_an_unknown_gpu_is_not():
    free, total = free_mb(CPU), total_mb()
    assert free is not None and total is not None
    assert 0 < free <= total
    assert free_mb(GPU) is None


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_all_groups_around_and_the_own_count_of_kills_are_read(control_tree, version):
    # As on a node of Slurm's: the limit is the job's, and a process is two groups further down.
    job = control_tree.group(version, "memory", "slurm/job_1")
    own = control_tree.group(version, "memory", "slurm/job_1/step_0/task_0")
    control_tree.join(version, "memory", "/slurm/job_1/step_0/task_0")
    limit, unlimited, used, files, kills = NAMES[version]
    for group, has, uses, killed in ((job, 1000, 900, 7), (own, None, 100, 2)):
        (group / f"memory.{limit}").write_text(unlimited if has is None else f"{has * 2**20}\n")
        (group / f"memory.{used}").write_text(f"{uses * 2**20}\n")
        (group / "memory.stat").write_text(f"active_file 4\n{files} 0\n")
        (group / f"memory.{kills}").write_text(f"under_oom 0\noom_kill {killed}\n")
    assert total_mb() == 1000
    assert oom_kills() == 2
    assert free_host_mb() == 100
    (job / "memory.stat").write_text(f"{files} {50 * 2**20}\n")
    assert free_host_mb() == 150


def test_one_kernel_kill_explains_one_ended_trial(control_tree):
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
    assert kills.explain(before) and kills.explain(before)
    assert not kills.explain(kills.unexplained())


@pytest.mark.parametrize(
    ("free", "growing", "admitted"),
    [(1000.0, 0, True), (399.0, 0, False), (799.0, 1, False), (800.0, 1, True), (None, 5, True)],
)
def test_a_trial_is_admitted_if_the_largest_so_far_fits_beside_those_still_growing(free, growing, admitted):
    admission = Admission(free=lambda slot: free)
    admission.learn(CPU, 400.0)
    admission.learn(CPU, 100.0)
    refusal = admission.refusal(CPU, growing)
    assert refusal is None if admitted else "400" in (refusal or "")


def test_admission_knows_cpu_and_gpus_apart_and_refuses_nothing_before_a_first_trial():
    admission = Admission(free=lambda slot: 10.0)
    assert admission.refusal(CPU, 3) is None
    admission.learn(GPU, 100.0)
    assert admission.refusal(CPU, 0) is None
    assert f"{100 + CUDA_CONTEXT_MB:,.0f}" in (admission.refusal(GPU, 0) or "")
