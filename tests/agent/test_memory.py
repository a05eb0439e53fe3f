import os
import sys
from pathlib import Path

import pytest

from fer_sweep.agent.memory import CUDA_CONTEXT_MB, Admission, free_mb, oom_kills, shortage
from fer_sweep.agent.slots import Slot
from tests.processes import until

CPU = Slot("cpu0", "cpu", 1, {"CUDA_VISIBLE_DEVICES": ""})
GPU = Slot("gpu0/1", "cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "GPU-nowhere"})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says")
def test_free_memory_of_this_host_is_told_and_follows_what_is_taken() -> None:
    before = free_mb(CPU)
    assert before is not None
    block = b"x" * 2**30

    def is_seen() -> bool:
        while_taken = free_mb(CPU)
        assert while_taken is not None and block
        return before - while_taken > 256

    until(is_seen, limit_s=30.0)  # some systems look once a second, and other processes give memory back meanwhile


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says")
def test_a_containers_own_limit_says_what_is_short_and_its_own_count_who_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.agent.memory._GROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{1000 * 2**20}\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills() == 2
    (tmp_path / "memory.current").write_text(f"{900 * 2**20}\n")
    assert shortage(os.getpid()) is None
    (tmp_path / "memory.current").write_text(f"{990 * 2**20}\n")
    said = shortage(os.getpid())
    assert said is not None
    assert said.startswith("10 of 1,000 MB were free, and it held ")
    assert int(said.rpartition(" ")[2].replace(",", "")) > 10


def test_a_gpu_that_cannot_be_asked_has_no_figure() -> None:
    assert free_mb(GPU) is None


@pytest.mark.parametrize(
    ("free", "growing", "admitted"),
    [(1000.0, 0, True), (399.0, 0, False), (799.0, 1, False), (800.0, 1, True), (None, 5, True)],
)
def test_a_trial_is_admitted_where_the_largest_so_far_would_fit_beside_those_that_still_grow(
    free: float | None, growing: int, admitted: bool
) -> None:
    admission = Admission(free=lambda slot: free)
    admission.learn(CPU, 400.0)
    admission.learn(CPU, 100.0)
    refusal = admission.refusal(CPU, growing)
    assert (refusal is None) is admitted
    if refusal:
        assert "400" in refusal


def test_nothing_is_refused_before_anything_is_known_and_devices_do_not_mix() -> None:
    admission = Admission(free=lambda slot: 10.0)
    assert admission.refusal(CPU, 3) is None
    admission.learn(GPU, 100.0)
    assert admission.refusal(CPU, 0) is None
    assert f"{100 + CUDA_CONTEXT_MB:,.0f}" in (admission.refusal(GPU, 0) or "")
