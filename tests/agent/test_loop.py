"""The agent's loop against played trials: what is started, stopped, requeued and recorded, and when."""

import os
import signal
import threading
from pathlib import Path

import pytest

from fer_sweep.agent.failures import FAILURES_IN_A_ROW, LOSSES_WITHOUT_PROGRESS
from fer_sweep.agent.silence import Silence
from fer_sweep.errors import AgentFailed, LostTrial
from fer_sweep.records import Cause, StopReason, TrialOutcome, TrialState, Wait
from fer_sweep.worker.memory import Admission
from fer_sweep.worker.slots import Slot
from tests.support.agent_stage import Stage, View
from tests.support.scripted_search import ENDLESS, ScriptedSearch, request
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter, train_all, train_then_wait


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "trials")


def failing(trial: PlayedTrial) -> TrialOutcome:
    trial.begin()
    return TrialOutcome(TrialState.FAILED, reason="no such data")


def test_two_slots_train_every_trial_once(stage: Stage) -> None:
    search = ScriptedSearch([request(str(number), seed=number) for number in range(4)])
    summary = stage.run(search, slots=2)
    assert summary.ended == {TrialState.COMPLETE: 4}
    assert not summary.interrupted
    assert search.epochs == {str(number): [1, 2, 3] for number in range(4)}
    assert sorted(stage.view.started) == ["0", "1", "2", "3"]
    assert len(summary.turnaround_s) == 2
    assert stage.starter.all_have_ended
    assert stage.starter.is_closed


def test_a_slot_without_memory_for_a_second_trial_waits_for_the_first(stage: Stage) -> None:
    stage.admission = Admission(free=lambda slot: 50.0)
    stage.admission.learn(Slot("cpu0", "cpu", 1), 99.0)
    playing = threading.Semaphore(1)

    def alone(trial: PlayedTrial) -> TrialOutcome:
        assert playing.acquire(blocking=False), "two trials at once"
        outcome = train_all(trial)
        playing.release()
        return outcome

    stage.starter = ScriptedStarter(alone)
    summary = stage.run(ScriptedSearch([request(str(number), seed=number) for number in range(3)]), slots=2)
    assert summary.ended == {TrialState.COMPLETE: 3}
    assert [note for note in stage.view.notes if "waits for another trial to end: 50 MB" in note]


def test_count_limits_the_attempts(stage: Stage) -> None:
    search = ScriptedSearch([request("0"), request("1", seed=1), request("2", seed=2)])
    assert stage.run(search, count=2).ended == {TrialState.COMPLETE: 2}
    assert len(search.waiting) == 1


def test_a_pruned_trial_keeps_its_result_and_gets_a_reason(stage: Stage) -> None:
    stage.starter = ScriptedStarter(train_then_wait(2))
    search = ScriptedSearch([request("0")], lambda trial_id, epoch: StopReason.PRUNED if epoch >= 2 else None)
    assert stage.run(search).ended == {TrialState.PRUNED: 1}
    (outcome,) = search.outcomes["0"]
    assert outcome.result is not None
    assert outcome.result.epochs == 2
    assert outcome.reason


def test_a_silent_trial_is_asked_to_stop_between_epochs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.01)
    stage.starter = ScriptedStarter(train_then_wait(0))
    answers = iter([StopReason.PREEMPTED])
    search = ScriptedSearch([request("0")], lambda trial_id, epoch: next(answers, None))
    assert stage.run(search, count=1).ended == {TrialState.PREEMPTED: 1}


def test_a_killed_trial_is_requeued_and_resumes(stage: Stage) -> None:
    stage.starter = ScriptedStarter(train_then_wait(2))
    stage.view = View(lambda trial_id, epoch: stage.starter.kill(trial_id) if len(stage.starter.jobs) == 1 else None)
    search = ScriptedSearch([request("0", epochs=6)])
    assert stage.run(search).ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}
    assert "SIGKILL" in (search.outcomes["0"][0].reason or "")
    assert stage.history("0") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("checkpointed", [0, 1], ids=["before its first epoch", "after each resumption"])
def test_a_trial_killed_again_and_again_without_progress_has_failed(stage: Stage, checkpointed: int) -> None:
    def killed(trial: PlayedTrial) -> TrialOutcome:
        trial.begin()
        trial.train(checkpointed - trial.epoch)
        stage.starter.kill("0")
        trial.wait_for_stop()
        raise AssertionError("it was killed")

    stage.starter = ScriptedStarter(killed)
    search = ScriptedSearch([request("0", **ENDLESS)])
    with pytest.raises(AgentFailed, match=f"{LOSSES_WITHOUT_PROGRESS} times in a row.*SIGKILL"):
        stage.run(search)
    states = [outcome.state for outcome in search.outcomes["0"]]
    assert states == [TrialState.PREEMPTED] * (LOSSES_WITHOUT_PROGRESS - 1) + [TrialState.FAILED]


def test_a_hung_trial_is_ended_and_the_next_one_runs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.01)
    monkeypatch.setattr("fer_sweep.agent.running.LAST_WORDS_S", 0.0)

    def hangs(trial: PlayedTrial) -> TrialOutcome:
        if trial.trial_id != "0":
            return train_all(trial)
        trial.begin()
        trial.beat(float("-inf"))
        trial.wait_for_stop()
        raise AssertionError("it was killed")

    stage.starter = ScriptedStarter(hangs)
    stage.silence = Silence(30.0)
    search = ScriptedSearch([request("0"), request("1")])
    assert stage.run(search).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    assert (search.outcomes["0"][0].reason or "").startswith("made no step for")


def interrupt(times: int, number: signal.Signals = signal.SIGINT) -> View:
    """Signal this process so many times, at the first epoch of any trial."""
    left = [times]

    def at_epoch(trial_id: str, epoch: int) -> None:
        while left[0]:
            left[0] -= 1
            os.kill(os.getpid(), number)

    return View(at_epoch)


def test_first_ctrl_c_lets_the_running_trial_finish(stage: Stage) -> None:
    stage.view = interrupt(1)
    search = ScriptedSearch([request("0"), request("1", seed=1)])
    summary = stage.run(search)
    assert summary.interrupted
    assert summary.ended == {TrialState.COMPLETE: 1}
    assert len(search.waiting) == 1


@pytest.mark.parametrize(
    ("times", "number"),
    [(2, signal.SIGINT), (1, signal.SIGTERM), (1, signal.SIGUSR2), (1, signal.SIGHUP)],
    ids=["Ctrl-C twice", "TERM", "USR2", "HUP"],
)
def test_second_ctrl_c_and_a_schedulers_signal_checkpoint_and_stop(
    stage: Stage, times: int, number: signal.Signals
) -> None:
    stage.starter = ScriptedStarter(train_then_wait(2))
    stage.view = interrupt(times, number)
    search = ScriptedSearch([request("0", epochs=5)])
    summary = stage.run(search)
    assert summary.interrupted
    assert summary.ended == {TrialState.PREEMPTED: 1}
    stage.view = View()
    assert stage.run(search).ended == {TrialState.COMPLETE: 1}
    assert stage.history("0") == [1, 2, 3, 4, 5]


def test_third_ctrl_c_kills(stage: Stage) -> None:
    def ignores_stops(trial: PlayedTrial) -> TrialOutcome:
        trial.begin()
        trial.train()
        while True:
            trial.wait_for_stop()

    stage.starter = ScriptedStarter(ignores_stops)
    stage.view = interrupt(3)
    search = ScriptedSearch([request("0", **ENDLESS)])
    assert stage.run(search).interrupted
    (outcome,) = search.outcomes["0"]
    assert (outcome.state, outcome.cause) == (TrialState.PREEMPTED, Cause.KILLED)
    assert stage.starter.all_have_ended


def test_an_agent_whose_only_trial_failed_has_failed(stage: Stage) -> None:
    stage.starter = ScriptedStarter(failing)
    with pytest.raises(AgentFailed, match="no such data"):
        stage.run(ScriptedSearch([request("0")]))


def test_a_failure_among_successes_is_recorded_and_ends_nothing(stage: Stage) -> None:
    stage.starter = ScriptedStarter(lambda trial: failing(trial) if trial.trial_id == "0" else train_all(trial))
    search = ScriptedSearch([request("0"), request("1")])
    assert stage.run(search).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    assert search.outcomes["0"][0].reason == "no such data"


def test_failures_in_a_row_stop_the_agent(stage: Stage) -> None:
    stage.starter = ScriptedStarter(failing)
    search = ScriptedSearch([request(str(number)) for number in range(FAILURES_IN_A_ROW + 3)])
    with pytest.raises(AgentFailed, match="no such data"):
        stage.run(search)
    assert len(search.outcomes) == FAILURES_IN_A_ROW


def test_a_trial_reclaimed_by_another_agent_is_left_to_it(stage: Stage) -> None:
    class Reclaiming(ScriptedSearch):
        def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
            if trial_id == "0":
                raise LostTrial("taken over by another agent")
            super().finish(trial_id, outcome)

    asked = []

    def reclaimed(trial_id: str, epoch: int) -> StopReason | None:
        if trial_id == "0":
            asked.append(trial_id)
            raise LostTrial("taken over by another agent")
        return None

    stage.starter = ScriptedStarter(train_then_wait(1))
    search = Reclaiming([request("0")], reclaimed)
    stage.run(search, count=1)
    assert asked == ["0"], "a trial that is lost is not reported again"
    assert not search.outcomes
    assert len([note for note in stage.view.notes if "leaving it to the other agent" in note]) == 1
    assert stage.starter.all_have_ended


def test_a_paused_sweep_is_waited_for_and_said_once(stage: Stage) -> None:
    search = ScriptedSearch([Wait("the sweep is paused", 0.001), Wait("the sweep is paused", 0.001), request("0")])
    assert stage.run(search).ended == {TrialState.COMPLETE: 1}
    assert [note for note in stage.view.notes if "paused" in note] == ["waiting: the sweep is paused"]


def test_an_error_in_the_search_ends_the_agent_and_its_trials(stage: Stage) -> None:
    def broken(trial_id: str, epoch: int) -> StopReason | None:
        raise OSError("disk gone")

    stage.starter = ScriptedStarter(train_then_wait(1))
    with pytest.raises(OSError, match="disk gone"):
        stage.run(ScriptedSearch([request("0", **ENDLESS)], broken))
    assert stage.starter.all_have_ended
