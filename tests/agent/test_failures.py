"""The retry policy: what failed and lost attempts mean for a trial, a slot and the agent."""

import pytest

from fer_sweep.agent.causes import cause_of
from fer_sweep.agent.failures import (
    FAILURES_IN_A_ROW,
    LOSSES_WITHOUT_PROGRESS,
    SLOT_FAILURES_IN_A_ROW,
    Failures,
    OnOom,
)
from fer_sweep.agent.slots import Slot
from fer_sweep.records import Cause, TrialOutcome, TrialRequest, TrialState
from tests.support.scripted_search import request

FIRST, SECOND = (Slot(f"gpu0/{share}", "cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "GPU-a"}) for share in (0, 1))
OTHER_GPU = Slot("gpu1/0", "cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "GPU-b"})
COMPLETE = TrialOutcome(TrialState.COMPLETE)
FAILED = TrialOutcome(TrialState.FAILED, reason="KeyError: 'x'")
NO_MEMORY = TrialOutcome(TrialState.FAILED, reason="OutOfMemoryError: CUDA out of memory", cause=Cause.OUT_OF_MEMORY)
KILLED = TrialOutcome(TrialState.FAILED, reason="ended by SIGKILL", cause=Cause.KILLED)
ECC = TrialOutcome(TrialState.FAILED, reason="CUDA error: uncorrectable ECC error", cause=Cause.DEVICE)


def judge(
    failures: Failures, outcome: TrialOutcome, slot: Slot = FIRST, trial: str | TrialRequest = "0"
) -> TrialOutcome:
    given = request(trial, batch_size=32) if isinstance(trial, str) else trial
    return failures.judge(slot, given, outcome, was_asked=False)


def test_a_trial_lost_three_times_without_a_new_epoch_has_failed() -> None:
    failures = Failures([FIRST])
    for _ in range(LOSSES_WITHOUT_PROGRESS - 1):
        assert judge(failures, KILLED).state is TrialState.PREEMPTED
    failures.progressed("0", 1)
    for _ in range(LOSSES_WITHOUT_PROGRESS - 1):
        assert judge(failures, KILLED).state is TrialState.PREEMPTED
    failures.progressed("0", 1)  # sent again after a resumption: no progress
    last = judge(failures, KILLED)
    assert last.state is TrialState.FAILED
    assert "3 times in a row" in (last.reason or "")


def test_a_trial_that_was_asked_to_stop_is_requeued_however_it_died() -> None:
    failures = Failures([FIRST])
    for outcome in (KILLED, NO_MEMORY, ECC):
        given = failures.judge(FIRST, request("0"), outcome, was_asked=True)
        assert given.state is TrialState.PREEMPTED
    assert not failures.in_a_row


def test_out_of_memory_fails_the_trial_unless_asked_otherwise() -> None:
    assert judge(Failures([FIRST, SECOND]), NO_MEMORY).state is TrialState.FAILED


def test_out_of_memory_halves_the_micro_batch_down_to_the_smallest() -> None:
    failures = Failures([FIRST], OnOom.SMALLER_MICRO_BATCH)
    seen = []
    while (outcome := judge(failures, NO_MEMORY)).state is TrialState.PREEMPTED:
        seen.append(failures.micro_batch("0"))
        assert f"goes on with {seen[-1]} images" in (outcome.reason or "")
    assert seen == [16, 8, 4]
    assert failures.micro_batch("1") is None


def test_out_of_memory_closes_a_slot_of_that_device_but_never_its_last() -> None:
    failures = Failures([FIRST, SECOND, OTHER_GPU], OnOom.FEWER_SLOTS)
    assert failures.share(FIRST) == failures.share(SECOND) == 0.5
    outcome = judge(failures, NO_MEMORY, SECOND)
    assert outcome.state is TrialState.PREEMPTED
    assert "without slot gpu0/1" in (outcome.reason or "")
    assert [failures.is_open(slot) for slot in (FIRST, SECOND, OTHER_GPU)] == [True, False, True]
    assert failures.share(FIRST) == 1.0
    assert judge(failures, NO_MEMORY, FIRST).state is TrialState.FAILED
    assert failures.is_open(FIRST)


def test_a_slot_where_everything_fails_is_closed_while_others_do_well() -> None:
    failures = Failures([FIRST, OTHER_GPU])
    failures.began(FIRST)
    notes = []
    for number in range(SLOT_FAILURES_IN_A_ROW):
        assert failures.is_open(OTHER_GPU)
        judge(failures, FAILED, OTHER_GPU, str(number))
        notes.append(failures.close_broken().get("gpu1/0"))
    assert notes[:-1] == [None] * (SLOT_FAILURES_IN_A_ROW - 1)
    assert notes[-1] is not None
    assert "while gpu0/0 did well" in notes[-1].why
    assert notes[-1].trials == ["0", "1", "2"]
    assert not failures.in_a_row, "they are the slot's fault, and not the agent's"
    assert not failures.is_open(OTHER_GPU)
    assert not failures.has_had_enough


def test_a_slot_is_closed_as_soon_as_another_one_has_begun_to_do_well() -> None:
    failures = Failures([FIRST, OTHER_GPU])
    for number in range(FAILURES_IN_A_ROW):  # while the other one still loads its data
        judge(failures, FAILED, OTHER_GPU, str(number))
        assert not failures.close_broken()
    assert failures.has_had_enough
    failures.began(FIRST)
    assert list(failures.close_broken()["gpu1/0"].trials) == ["0", "1", "2", "3", "4"]
    assert not failures.has_had_enough
    assert not failures.close_broken()


def test_failures_in_a_row_in_any_slots_stop_the_agent() -> None:
    failures = Failures([FIRST, OTHER_GPU])
    for number in range(FAILURES_IN_A_ROW):
        assert not failures.has_had_enough
        slot = (FIRST, OTHER_GPU)[number % 2]
        judge(failures, FAILED, slot, str(number))
        assert not failures.close_broken()
    assert failures.has_had_enough
    assert failures.in_a_row[-1] == "trial 4: KeyError: 'x'"


def test_a_success_ends_the_row_of_failures() -> None:
    failures = Failures([FIRST])
    for number in range(FAILURES_IN_A_ROW - 1):
        judge(failures, FAILED, trial=str(number))
    judge(failures, COMPLETE)
    judge(failures, FAILED, trial="9")
    assert len(failures.in_a_row) == 1


def test_an_error_of_the_gpu_closes_the_slot_and_requeues_the_trial() -> None:
    failures = Failures([FIRST, OTHER_GPU])
    failures.began(FIRST)
    for number in range(SLOT_FAILURES_IN_A_ROW):
        assert judge(failures, ECC, OTHER_GPU, str(number)).state is TrialState.PREEMPTED
    assert not failures.close_broken()["gpu1/0"].trials, "none has failed: all of them go on already"
    assert not failures.in_a_row


def test_trials_that_give_up_unasked_as_on_a_full_disk_stop_the_agent() -> None:
    failures = Failures([FIRST])
    for _ in range(FAILURES_IN_A_ROW):
        judge(failures, TrialOutcome(TrialState.PREEMPTED, reason="No space left on device"))
    assert failures.has_had_enough


class OutOfMemoryError(RuntimeError):
    """What torch calls it; torch itself would take seconds to import here."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), Cause.OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Cause.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), Cause.OUT_OF_MEMORY),
        (RuntimeError("could not create a primitive"), Cause.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), Cause.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Cause.DEVICE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Cause.DEVICE),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (ValueError("Expected more than 1 value per channel when training"), None),
    ],
)
def test_errors_are_classified_by_their_message(error: Exception, cause: Cause | None) -> None:
    assert cause_of(error) is cause
