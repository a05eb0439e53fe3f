"""The retry policy: what failed and lost attempts mean for a trial, a slot and the agent, and what counts as hung."""

from pathlib import Path

import pytest

from fer_sweep.agent.failures import FAILURES_IN_A_ROW, LOSSES_WITHOUT_PROGRESS, Failures, OnOom
from fer_sweep.agent.running import LIMIT_S, START_LIMIT_S, TIMES_THE_LONGEST, HangLimit
from fer_sweep.records import Cause, TrialOutcome, TrialRecord, TrialState
from fer_sweep.worker.slots import Slot
from tests.support.scripted_search import request

FIRST, SECOND = (Slot(f"gpu0/{share}", "cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "GPU-a"}) for share in (0, 1))
OTHER_GPU = Slot("gpu1/0", "cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "GPU-b"})
BEGAN = TrialOutcome(TrialState.RUNNING)
COMPLETE = TrialOutcome(TrialState.COMPLETE)
FULL_DISK = TrialOutcome(TrialState.PREEMPTED, reason="No space left on device")
FAILED = TrialOutcome(TrialState.FAILED, reason="KeyError: 'x'")
NO_MEMORY = TrialOutcome(TrialState.FAILED, reason="OutOfMemoryError: CUDA out of memory", cause=Cause.OUT_OF_MEMORY)
KILLED = TrialOutcome(TrialState.FAILED, reason="ended by SIGKILL", cause=Cause.KILLED)
ECC = TrialOutcome(TrialState.FAILED, reason="CUDA error: uncorrectable ECC error", cause=Cause.DEVICE)


def judge(
    failures: Failures, outcome: TrialOutcome, slot: Slot = FIRST, trial: str = "0", epoch: int = 0
) -> TrialOutcome:
    return failures.judge(slot, request(trial, batch_size=32), outcome, epoch=epoch, was_asked=False)


def test_a_trial_lost_three_times_without_a_new_epoch_has_failed() -> None:
    failures = Failures([FIRST])
    # Epoch 1 is sent again after a resumption: no progress. Each new epoch allows two further losses.
    for epoch in (0, 0, 1, 1, 2, 0):
        assert judge(failures, KILLED, epoch=epoch).state is TrialState.PREEMPTED
    last = judge(failures, KILLED, epoch=2)
    assert last.state is TrialState.FAILED
    assert f"{LOSSES_WITHOUT_PROGRESS} times in a row" in (last.reason or "")


@pytest.mark.parametrize("outcome", [KILLED, NO_MEMORY, ECC])
def test_a_trial_that_was_asked_to_stop_is_requeued_however_it_died(outcome: TrialOutcome) -> None:
    failures = Failures([FIRST])
    assert failures.judge(FIRST, request("0"), outcome, epoch=0, was_asked=True).state is TrialState.PREEMPTED
    assert not failures.in_a_row


def test_out_of_memory_fails_the_trial_or_halves_the_micro_batch_down_to_the_smallest() -> None:
    assert judge(Failures([FIRST, SECOND]), NO_MEMORY).state is TrialState.FAILED
    failures = Failures([FIRST], OnOom.SMALLER_MICRO_BATCH)
    seen = []
    while (outcome := judge(failures, NO_MEMORY)).state is TrialState.PREEMPTED:
        seen.append(failures.micro_batch("0"))
        assert f"resumed with {seen[-1]} images" in (outcome.reason or "")
    assert seen == [16, 8, 4]
    assert failures.micro_batch("1") is None


def test_out_of_memory_closes_a_slot_of_that_device_but_never_its_last() -> None:
    failures = Failures([FIRST, SECOND, OTHER_GPU], OnOom.FEWER_SLOTS)
    assert failures.share(FIRST) == failures.share(SECOND) == 0.5
    outcome = judge(failures, NO_MEMORY, SECOND)
    assert outcome.state is TrialState.PREEMPTED
    assert "slot gpu0/1 is disabled" in (outcome.reason or "")
    assert [failures.is_open(slot) for slot in (FIRST, SECOND, OTHER_GPU)] == [True, False, True]
    assert failures.share(FIRST) == 1.0
    assert judge(failures, NO_MEMORY, FIRST).state is TrialState.FAILED
    assert failures.is_open(FIRST)


@pytest.mark.parametrize(
    ("events", "closed", "in_a_row"),
    [
        pytest.param(
            [(FIRST, BEGAN), *[(OTHER_GPU, FAILED)] * 3],
            "gpu1/0 is disabled: 3 trials in a row failed there, while gpu0/0 did well; to retry trial 1, 2, 3: ",
            0,
            id="all fail while another does well",
        ),
        pytest.param(
            [*[(OTHER_GPU, FAILED)] * 5, (FIRST, BEGAN)],
            "to retry trial 0, 1, 2, 3, 4: fersweep retry",
            0,
            id="once another does well",
        ),
        pytest.param([(FIRST, FAILED), (OTHER_GPU, FAILED)] * 3, "", 6, id="everything fails in every slot"),
        pytest.param([*[(FIRST, FAILED)] * 4, (FIRST, COMPLETE), (FIRST, FAILED)], "", 1, id="a success in between"),
        pytest.param(
            [(FIRST, BEGAN), *[(OTHER_GPU, ECC)] * 3],
            "3 trials in a row failed there, while gpu0/0 did well",
            0,
            id="a broken GPU fails no trial",
        ),
        pytest.param([(FIRST, FULL_DISK)] * 5, "", 5, id="trials that give up unasked"),
    ],
)
def test_failures_in_a_row_close_a_slot_or_stop_the_agent(
    events: list[tuple[Slot, TrialOutcome]], closed: str, in_a_row: int
) -> None:
    failures = Failures([FIRST, OTHER_GPU])
    notes: list[str] = []
    for number, (slot, outcome) in enumerate(events):
        if outcome is BEGAN:
            failures.began(slot)
        else:
            judge(failures, outcome, slot, str(number))
        notes += failures.disable_unhealthy()
    assert len(notes) == bool(closed) and closed in "".join(notes)
    assert failures.is_open(OTHER_GPU) == (not closed)
    assert len(failures.in_a_row) == in_a_row
    assert failures.must_stop == (in_a_row >= FAILURES_IN_A_ROW)


@pytest.mark.parametrize(
    ("failed", "message", "hint"),
    [(1, "1 trial failed: trial 0: KeyError", "fix the cause"), (2, "2 trials failed one after another, the last", "")],
)
def test_the_error_of_an_agent_says_where_to_look(failed: int, message: str, hint: str) -> None:
    failures = Failures([FIRST])
    for number in range(failed):
        judge(failures, FAILED, trial=str(number))
    complete = [TrialRecord(str(number), TrialState.COMPLETE, {}, {}, {}) for number in range(2)]
    error = failures.error(complete, complete_here=1 + (failed == 1), logs=Path("trials"))
    assert str(error).startswith(message)
    assert (error.hint or "").startswith(hint or "complete elsewhere: 1 trial, so check this host first")
    assert "fersweep agent --retry-failed" in (error.hint or "")


def test_the_limit_grows_with_the_longest_silence_that_ended_unless_it_is_given() -> None:
    learned, given = HangLimit(), HangLimit(20.0)
    assert learned.seconds(has_begun=False) == START_LIMIT_S
    for seconds, limit in ((1.0, LIMIT_S), (90.0, 90.0 * TIMES_THE_LONGEST), (2.0, 90.0 * TIMES_THE_LONGEST)):
        for limit_of in (learned, given):
            limit_of.longest_s = max(limit_of.longest_s, seconds)
        assert learned.seconds(has_begun=True) == limit
        assert given.seconds(has_begun=True) == given.seconds(has_begun=False) == 20.0
