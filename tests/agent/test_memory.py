import sys

import pytest

from fer_sweep.agent.memory import CUDA_CONTEXT_MB, Admission, free_mb
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
