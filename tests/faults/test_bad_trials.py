"""Trials that crash, hang, fail or starve: each ends alone, with its reason, and the sweep goes on."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_sweep.agent.failures import FAILURES_IN_A_ROW, SLOT_FAILURES_IN_A_ROW, OnOom
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import AgentFailed
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState, Verdict
from fer_sweep.search.database import default_storage
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, sweep_state
from tests.support.agent_stage import Lingering, Stage, View
from tests.support.scripted_search import ENDLESS, TINY, ScriptedSearch, request

pytestmark = [
    pytest.mark.usefixtures("tiny_data"),
    pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and /proc as Linux has them"),
]

LARGE = {"channels": 128, "batch_size": 128, "hidden": 8, "epochs": 1, "precision": "fp32"}
"""An epoch on `tiny`, the first feature maps of whose batch take 150 MB."""
TOO_LITTLE_MB, ENOUGH_MB = 300.0, 2000.0


@pytest.fixture
def stage(tmp_path: Path, tiny_cache: Path) -> Stage:
    return Stage(tmp_path / "trials", str(tiny_cache))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT])
def test_a_crash_is_a_failure_with_the_place_it_happened_in(stage: Stage, number: signal.Signals) -> None:
    stage.view = View(lambda trial, epoch: os.kill(stage.starter.pids[-1], number) if trial == "0" else None)
    search = ScriptedSearch([request("0", **ENDLESS), request("1")])
    assert stage.run(search).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    reason = search.outcomes["0"][0].reason or ""
    assert number.name in reason
    assert "training/loop.py" in reason  # faulthandler's last words, from the tail of trial.log


def test_a_trial_that_hangs_is_ended_and_tells_where_it_hung(stage: Stage) -> None:
    # Opening a pipe that nobody writes to never comes back.
    (stage.folder / "0").mkdir(parents=True)
    os.mkfifo(stage.folder / "0" / "config.json")
    search = ScriptedSearch([request("0"), request("1")])
    summary = stage.run(search, hang_after_s=3.0)
    assert summary.ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    reason = search.outcomes["0"][0].reason or ""
    assert reason.startswith("made no step for")
    assert "claim_folder" in reason
    assert stage.nobody_is_left()


def test_a_trial_that_somebody_has_paused_is_no_hang(stage: Stage) -> None:
    paused: list[int] = []
    asked = 0

    def pause(trial: str, epoch: int) -> None:
        if epoch == 1 and not paused:
            paused.append(stage.starter.pids[-1])
            os.kill(paused[0], signal.SIGSTOP)

    def answer(trial: str, epoch: int) -> StopReason | None:
        nonlocal asked
        asked += bool(paused)
        if asked == 6:  # the agent asks about once a second: twice the limit by now
            os.kill(paused[0], signal.SIGCONT)
        return None

    stage.view = View(pause)
    search = ScriptedSearch([request("0", epochs=5)], answer)
    assert stage.run(search, hang_after_s=2.0).ended == {TrialState.COMPLETE: 1}
    assert stage.history("0") == [1, 2, 3, 4, 5]


def test_a_loss_that_is_not_finite_is_a_result_and_no_failure(stage: Stage) -> None:
    diverging = {"optimizer": "sgd", "lr": 10.0, "warmup": 0.0, "weight_decay": 10.0, "precision": "fp32"}
    search = ScriptedSearch([request("0", **diverging, epochs=30, batch_size=2), request("1")])
    assert stage.run(search).ended == {TrialState.COMPLETE: 2}
    outcome = search.outcomes["0"][0]
    assert outcome.result is not None
    assert outcome.result.verdict is Verdict.DIVERGED
    assert "not finite" in (outcome.reason or "")


def test_a_data_set_that_breaks_under_a_trial_is_a_failure_with_a_reason(stage: Stage, tmp_path: Path) -> None:
    empty = tmp_path / "no-cache"
    empty.mkdir()
    search = ScriptedSearch([request("0")])
    with pytest.raises(AgentFailed, match="tiny"):
        stage.run(search, caches={0: str(empty)})


def test_an_exception_in_a_model_is_recorded_with_its_place(stage: Stage) -> None:
    broken = request("0")
    object.__setattr__(broken.config, "hidden", -1)  # past validation, as a mistake in a model's own code would be
    search = ScriptedSearch([broken, request("1")])
    assert stage.run(search).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    reason = search.outcomes["0"][0].reason or ""
    assert "Error" in reason
    assert "trial.log has all of it" in reason
    assert "Traceback" in (stage.folder / "0" / "trial.log").read_text()


def test_a_slot_where_everything_fails_closes_and_the_others_do_the_rest(stage: Stage, tmp_path: Path) -> None:
    empty = tmp_path / "no-cache"
    empty.mkdir()
    count = SLOT_FAILURES_IN_A_ROW + 5
    search = ScriptedSearch([request(str(number), epochs=12) for number in range(count)])
    summary = stage.run(search, slots=2, caches={1: str(empty)})
    assert summary.ended[TrialState.COMPLETE] >= count - FAILURES_IN_A_ROW
    assert summary.ended[TrialState.FAILED] >= SLOT_FAILURES_IN_A_ROW
    assert [note for note in stage.view.notes if note.startswith("slot cpu1 gets no more trials: 3 trials in a row")]


def open_sweep(storage: str, *epochs: int) -> OptunaSearch:
    """A sweep of a trial for each number of epochs, in this order."""
    parameters = {name: {"value": value} for name, value in TINY.items()} | {"epochs": {"values": list(epochs)}}
    create_sweep(parse_sweep({"method": "grid", "parameters": parameters}), sweep_id="s", storage=storage)
    return OptunaSearch("s", storage=storage)


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("postgres") if request.param == "postgres" else default_storage()


LONG = 60
"""Epochs that no trial gets through before its first one is heard of."""


def test_what_failed_in_a_broken_slot_is_trained_in_another_one(stage: Stage, tmp_path: Path, storage: str) -> None:
    (empty := tmp_path / "no-cache").mkdir()
    stage.view = Lingering(stage.starter)
    with contextlib.closing(open_sweep(storage, LONG, 1, 2, 3)) as search:
        summary = stage.run(search, slots=2, caches={1: str(empty)})
        records = search.records()
    assert summary.ended == {TrialState.FAILED: SLOT_FAILURES_IN_A_ROW, TrialState.COMPLETE: 4}
    assert [(record.state, record.attempt) for record in records] == [("complete", 1)] + [("complete", 2)] * 3
    assert sweep_state(storage, "s") == "finished"
    (closed,) = [note for note in stage.view.notes if note.startswith("slot cpu1 gets no more trials")]
    assert closed.endswith("; tried again elsewhere, once: trial 1, 2, 3")


def test_what_fails_in_the_next_slot_too_stays_failed(stage: Stage, tmp_path: Path) -> None:
    (empty := tmp_path / "no-cache").mkdir()
    good = Path(shutil.copytree(stage.cache, tmp_path / "cache-of-slot-0"))
    stage.view = Lingering(
        stage.starter, then=lambda: shutil.rmtree(good)
    )  # what trial 0 has opened stays there for it
    with contextlib.closing(open_sweep(default_storage(), LONG, 1, 2, 3)) as search:
        summary = stage.run(search, slots=2, caches={0: str(good), 1: str(empty)})
        assert summary.ended == {TrialState.FAILED: 2 * SLOT_FAILURES_IN_A_ROW, TrialState.COMPLETE: 1}
        assert search.next_trial("cpu0") is None
        records = search.records()
    assert [(record.state, record.attempt) for record in records] == [("complete", 1)] + [("failed", 2)] * 3


def test_a_host_where_everything_fails_leaves_its_trials_to_others(stage: Stage, tmp_path: Path) -> None:
    (empty := tmp_path / "no-cache").mkdir()
    with contextlib.closing(open_sweep(default_storage(), *range(1, FAILURES_IN_A_ROW + 3))) as search:
        stage.run(search, count=1)
    with contextlib.closing(OptunaSearch("s", storage=default_storage())) as search:
        with pytest.raises(AgentFailed) as caught:
            stage.run(search, caches={0: str(empty)})
        assert "tried again, once; 1 trials are complete elsewhere" in (caught.value.hint or "")
    # Started again all the same, it begins with what nobody has tried.
    with contextlib.closing(OptunaSearch("s", storage=default_storage())) as search:
        request = search.next_trial("cpu0")
        assert isinstance(request, TrialRequest)
        assert (request.trial_id, request.attempt) == (str(FAILURES_IN_A_ROW + 1), 1)
        search.finish(request.trial_id, TrialOutcome(TrialState.PREEMPTED))
        assert stage.run(search).ended == {TrialState.COMPLETE: FAILURES_IN_A_ROW + 1}
        assert {record.state for record in search.records()} == {TrialState.COMPLETE}


@pytest.mark.parametrize("short", [None, "10 of 1,000 MB were free, and it held 900"])
def test_a_trial_killed_again_and_again_says_so_and_whether_memory_was_short(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, short: str | None
) -> None:
    looked_at: set[int] = set()

    def look(pid: int) -> str | None:
        looked_at.add(pid)
        return short

    def answer(trial: str, epoch: int) -> StopReason | None:
        if stage.starter.pids[-1] in looked_at:
            os.kill(stage.starter.pids[-1], signal.SIGKILL)
        return None

    monkeypatch.setattr("fer_sweep.agent.processes.shortage", look)
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.05)
    search = ScriptedSearch([request("0", **ENDLESS)], answer)
    with pytest.raises(AgentFailed):
        stage.run(search)
    first, *_, last = (outcome.reason or "" for outcome in search.outcomes["0"])
    why = f", probably for want of memory: {short}" if short else " from outside"
    assert first.startswith(f"ended by SIGKILL{why}")
    assert last.startswith(f"3 times in a row with no epoch in between: ended by SIGKILL{why}")


def test_a_trial_that_takes_more_than_its_share_ends_alone(stage: Stage) -> None:
    stage.starter.memory_mb = 2 * TOO_LITTLE_MB
    search = ScriptedSearch([request("0", **LARGE), request("1")])
    assert stage.run(search, slots=2).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    assert "memory" in (search.outcomes["0"][0].reason or "")


CONVOLUTION_WITHOUT_ROOM = """
import torch
from fer_sweep.agent.causes import cause_of, in_words
from fer_sweep.agent.own_process import keep_to_share

torch.set_num_threads(1)  # the stacks of more would be the first to find no room
images, kernel = torch.zeros(8, 16, 24, 24), torch.zeros(32, 16, 3, 3)
keep_to_share(0.0)
try:
    torch.nn.functional.conv2d(images, kernel)
except RuntimeError as error:
    print(cause_of(error).value, in_words(error), sep="; ")
"""


def test_want_of_memory_in_a_library_that_does_not_call_it_so_is_told_as_that() -> None:
    ended = subprocess.run([sys.executable, "-c", CONVOLUTION_WITHOUT_ROOM], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("out of memory; ")
    assert "memory" in ended.stdout.partition("; ")[2]


def test_out_of_memory_goes_on_with_a_smaller_micro_batch(stage: Stage) -> None:
    stage.starter.memory_mb = TOO_LITTLE_MB
    search = ScriptedSearch([request("0", **LARGE)])
    ended = stage.run(search, on_oom=OnOom.SMALLER_MICRO_BATCH).ended
    assert ended[TrialState.COMPLETE] == 1
    assert ended[TrialState.PREEMPTED] >= 1
    result = search.outcomes["0"][-1].result
    assert result is not None
    assert result.micro_batch in (64, 32, 16, 8)
    assert "goes on with 64 images at once" in (search.outcomes["0"][0].reason or "")
    assert stage.nobody_is_left()


def test_out_of_memory_goes_on_with_fewer_slots(stage: Stage) -> None:
    stage.starter.memory_mb = ENOUGH_MB
    search = ScriptedSearch([request("0", **LARGE), request("1"), request("2", **LARGE)])
    ended = stage.run(search, slots=4, on_oom=OnOom.FEWER_SLOTS).ended
    assert ended[TrialState.COMPLETE] == 3
    assert ended[TrialState.PREEMPTED] >= 1
    assert TrialState.FAILED not in ended
    assert "goes on without slot cpu" in (search.outcomes["0"][0].reason or "")
