"""The agent's loop against played trials: what is started, stopped, requeued and recorded, and when."""

import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from fer_sweep.agent.failures import FAILURES_IN_A_ROW, SLOT_FAILURES_IN_A_ROW, OnOom
from fer_sweep.agent.interrupts import Interrupts, handling_signals
from fer_sweep.agent.running import HangLimit
from fer_sweep.errors import AgentFailed, LostTrial
from fer_sweep.records import Cause, StopReason, TrialOutcome, TrialState, Wait
from fer_sweep.store.engine import Interrupted
from fer_sweep.worker.slots import Admission, Slot
from tests.support.agent_stage import Stage, View
from tests.support.scripted_search import ENDLESS, ScriptedSearch, request
from tests.support.scripted_starter import (
    WAIT_S,
    PlayedTrial,
    Script,
    ScriptedStarter,
    outcome_of,
    train_all,
    train_then_wait,
)


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
    search = ScriptedSearch([request(str(number)) for number in range(3)])
    assert stage.run(search, slots=2, count=2).ended == {TrialState.COMPLETE: 2}
    assert len(search.waiting) == 1


def test_the_next_start_is_prepared_while_a_trial_trains_unless_it_is_the_last(stage: Stage) -> None:
    stage.run(ScriptedSearch([request("0"), request("1")]), count=2)
    assert stage.starter.warmed_up == ["cpu0", "cpu0"]  # before the first trial and beside it


def test_a_silent_trial_is_asked_to_stop_between_epochs(stage: Stage) -> None:
    stage.starter = ScriptedStarter(train_then_wait(0))
    answers = iter([StopReason.PREEMPTED])
    search = ScriptedSearch([request("0")], lambda trial_id, epoch: next(answers, None))
    assert stage.run(search, count=1).ended == {TrialState.PREEMPTED: 1}


def test_a_trial_that_is_killed_after_each_new_epoch_is_resumed_every_time(stage: Stage) -> None:
    def killed(trial: PlayedTrial) -> TrialOutcome:
        trial.begin()
        trial.train()
        if trial.epoch == 5:
            return outcome_of(TrialState.COMPLETE, 5)
        stage.starter.kill("0")
        raise AssertionError(trial.wait_for_stop())

    stage.starter = ScriptedStarter(killed)
    assert stage.run(ScriptedSearch([request("0")])).ended == {TrialState.PREEMPTED: 4, TrialState.COMPLETE: 1}
    assert stage.history("0") == [1, 2, 3, 4, 5]


def test_a_hung_trial_is_ended_and_the_next_one_runs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.agent.running.ABORT_S", 0.0)

    def hangs(trial: PlayedTrial) -> TrialOutcome:
        if trial.trial_id != "0":
            return train_all(trial)
        trial.begin()
        trial.beat(float("-inf"))
        trial.wait_for_stop()
        raise AssertionError("it was killed")

    stage.starter = ScriptedStarter(hangs)
    stage.hang_limit = HangLimit(30.0)
    search = ScriptedSearch([request("0"), request("1")])
    assert stage.run(search).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    assert (search.outcomes["0"][0].reason or "").startswith("made no step for")


def unstoppable(trial: PlayedTrial) -> TrialOutcome:
    """In its first attempt, ignore what the agent asks for."""
    if trial.epoch:
        return train_all(trial)
    trial.begin()
    trial.train()
    while True:
        trial.wait_for_stop()


@pytest.mark.parametrize(
    ("number", "times", "script", "state", "cause"),
    [
        pytest.param(signal.SIGINT, 1, train_all, TrialState.COMPLETE, None, id="Ctrl-C: no new trials"),
        pytest.param(signal.SIGINT, 2, train_then_wait(2), TrialState.PREEMPTED, None, id="Ctrl-C twice: checkpoint"),
        pytest.param(signal.SIGINT, 3, unstoppable, TrialState.PREEMPTED, Cause.KILLED, id="Ctrl-C three times: kill"),
        pytest.param(signal.SIGTERM, 1, train_then_wait(2), TrialState.PREEMPTED, None, id="TERM: checkpoint"),
        pytest.param(signal.SIGHUP, 1, train_then_wait(2), TrialState.PREEMPTED, None, id="HUP: checkpoint"),
        pytest.param(signal.SIGUSR2, 1, train_then_wait(2), TrialState.PREEMPTED, None, id="USR2: checkpoint"),
    ],
)
def test_a_signal_starts_no_new_trial_and_ends_the_running_one_as_urgently_as_asked(
    stage: Stage, number: signal.Signals, times: int, script: Script, state: TrialState, cause: Cause | None
) -> None:
    def interrupt(trial_id: str, epoch: int) -> None:
        if epoch == 1:
            for _ in range(times):
                os.kill(os.getpid(), number)

    stage.starter = ScriptedStarter(script)
    stage.view = View(interrupt)
    search = ScriptedSearch([request("0"), request("1")])
    handler = signal.getsignal(number)
    summary = stage.run(search)
    assert signal.getsignal(number) is handler, "as it was before"
    assert summary.interrupted
    assert summary.ended == {state: 1}
    (outcome,) = search.outcomes["0"]
    assert outcome.cause is cause
    assert ("SIGKILL, by its agent" in (outcome.reason or "")) == (cause is Cause.KILLED)
    assert stage.view.started == ["0"]
    assert stage.starter.all_have_ended
    stage.starter.script, stage.view = train_all, View()
    stage.run(search)
    assert stage.history("0") == stage.history("1") == [1, 2, 3]


def test_outside_the_main_thread_signal_handlers_stay_as_they_were() -> None:
    def handler() -> object:
        with handling_signals(Interrupts()):
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(handler).result() is signal.getsignal(signal.SIGINT)


def test_a_signal_ends_waiting_until_it_is_acted_on_and_a_second_one_for_good() -> None:
    waiting = [Interrupts(level, heeded).end_waiting for level, heeded in ((0, 0), (1, 0), (1, 1), (2, 1), (2, 2))]
    assert waiting == [False, True, False, True, True], "after the first one, what runs may take its time"


def test_after_one_ctrl_c_trials_that_take_turns_are_said_to_pause() -> None:
    notes = [Interrupts(level=1).note(2, may_pause=may_pause).split(". ")[0] for may_pause in (False, True)]
    assert notes == ["no new trials; 2 running will finish", "no new trials; 2 running will finish or pause"]


def test_ctrl_c_stops_an_agent_whose_database_does_not_answer(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    class Away(ScriptedSearch):
        """Ctrl-C is pressed each time that its database is waited for."""

        def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
            os.kill(os.getpid(), signal.SIGINT)
            raise Interrupted("the database has not answered")

        def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
            assert outcome.state is TrialState.PREEMPTED
            raise Interrupted("the database has not answered")

    stage.starter = ScriptedStarter(train_then_wait(1))
    assert stage.run(Away([request("0", **ENDLESS)])).interrupted
    assert "trial 0 could not be requeued" in caplog.text
    assert stage.history("0") == [1]


@pytest.mark.parametrize("trials", [1, FAILURES_IN_A_ROW + 3])
def test_an_agent_fails_if_its_only_trial_did_or_several_in_a_row(stage: Stage, trials: int) -> None:
    stage.starter = ScriptedStarter(failing)
    search = ScriptedSearch([request(str(number)) for number in range(trials)])
    with pytest.raises(AgentFailed, match="no such data"):
        stage.run(search)
    assert len(search.outcomes) == min(trials, FAILURES_IN_A_ROW)


def test_an_unhealthy_slot_is_disabled_and_the_others_train_on(stage: Stage) -> None:
    is_disabled = threading.Event()
    stage.view = View(at_note=lambda text: is_disabled.set() if "is disabled" in text else None)

    def play(trial: PlayedTrial) -> TrialOutcome:
        if trial.job.environment["FERSWEEP_CACHE"] == "broken":
            return TrialOutcome(TrialState.FAILED, reason="no such data")
        trial.begin()
        assert trial.trial_id != "0" or is_disabled.wait(WAIT_S)
        return train_all(trial)

    stage.starter = ScriptedStarter(play)
    search = ScriptedSearch([request(str(number)) for number in range(SLOT_FAILURES_IN_A_ROW + 3)])
    summary = stage.run(search, slots=2, caches={1: "broken"})
    assert summary.ended == {TrialState.FAILED: SLOT_FAILURES_IN_A_ROW, TrialState.COMPLETE: 3}
    assert stage.view.notes == [
        "slot cpu1 is disabled: 3 trials in a row failed there, while cpu0 did well; "
        "to retry trial 1, 2, 3: fersweep retry"
    ]


@pytest.mark.parametrize(
    ("on_oom", "ended", "reason"),
    [
        (OnOom.SMALLER_MICRO_BATCH, {TrialState.PREEMPTED: 2, TrialState.COMPLETE: 2}, "resumed with 8 images at once"),
        (OnOom.FEWER_SLOTS, {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 2}, "slot cpu0 is disabled"),
    ],
)
def test_a_trial_that_runs_out_of_memory_retries_with_less(
    stage: Stage, on_oom: OnOom, ended: dict[TrialState, int], reason: str
) -> None:
    def large(trial: PlayedTrial) -> TrialOutcome:
        fits = (trial.job.micro_batch or 16) <= 4 or trial.job.memory_share == 1.0
        if trial.trial_id == "0" and not fits:
            return TrialOutcome(TrialState.FAILED, reason="no room", cause=Cause.OUT_OF_MEMORY)
        return train_all(trial)

    stage.starter = ScriptedStarter(large)
    search = ScriptedSearch([request("0"), request("1")])
    assert stage.run(search, slots=2, on_oom=on_oom).ended == ended
    assert reason in (search.outcomes["0"][0].reason or "")


def test_a_trial_reclaimed_by_another_agent_is_left_to_it(stage: Stage) -> None:
    asked = []

    def reclaimed(trial_id: str, epoch: int) -> StopReason | None:
        asked.append(trial_id)
        raise LostTrial("taken over by another agent")

    stage.starter = ScriptedStarter(train_then_wait(1))
    search = ScriptedSearch([request("0")], reclaimed)
    stage.run(search)
    assert asked == ["0"], "a trial that is lost is not reported again"
    assert not search.outcomes
    assert len([note for note in stage.view.notes if "stopped here" in note]) == 1
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
