"""The agent with real trial processes: each test forks, trains, kills and resumes for real."""

import os
import signal
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.agent.failures import FAILURES_IN_A_ROW, LOSSES_WITHOUT_PROGRESS
from fer_sweep.agent.memory import Admission
from fer_sweep.agent.processes import TrialHandle
from fer_sweep.agent.slots import Slot
from fer_sweep.agent.trial_process import TrialJob
from fer_sweep.errors import AgentFailed, LostTrial
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState, Wait
from tests.support.agent_stage import Stage, View
from tests.support.scripted_search import ENDLESS, ScriptedSearch, request

pytestmark = pytest.mark.usefixtures("tiny_data")


@pytest.fixture
def stage(tmp_path: Path, tiny_cache: Path) -> Stage:
    return Stage(tmp_path / "trials", str(tiny_cache))


def test_trains_every_trial_once_on_two_slots(stage: Stage) -> None:
    search = ScriptedSearch([request(str(number), seed=number) for number in range(4)])
    summary = stage.run(search, slots=2)
    assert summary.ended == {TrialState.COMPLETE: 4}
    assert not summary.interrupted
    assert search.epochs == {str(number): [1, 2, 3] for number in range(4)}
    assert sorted(stage.view.started) == ["0", "1", "2", "3"]
    assert len(summary.turnaround_s) == 2
    for number in range(4):
        names = {path.name for path in (stage.folder / str(number)).iterdir()}
        assert {"config.json", "history.jsonl", "best.safetensors", "result.json", "trial.log"} <= names
    assert stage.nobody_is_left()


def test_a_slot_without_room_for_a_second_trial_waits_until_the_first_has_ended(stage: Stage) -> None:
    stage.admission = Admission(free=lambda slot: 50.0)
    stage.admission.learn(Slot("cpu0", "cpu", 1), 99.0)
    running: set[str] = set()
    at_once: list[int] = []

    class Watching(ScriptedSearch):
        def next_trial(self, slot: str) -> TrialRequest | Wait | None:
            given = super().next_trial(slot)
            if isinstance(given, TrialRequest):
                running.add(given.trial_id)
                at_once.append(len(running))
            return given

        def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
            running.discard(trial_id)
            super().finish(trial_id, outcome)

    summary = stage.run(Watching([request(str(number), seed=number) for number in range(3)]), slots=2)
    assert summary.ended == {TrialState.COMPLETE: 3}
    assert at_once == [1, 1, 1]
    assert [note for note in stage.view.notes if "waits for another trial to end: 50 MB" in note]


def test_ends_after_count_attempts(stage: Stage) -> None:
    search = ScriptedSearch([request("0"), request("1", seed=1), request("2", seed=2)])
    assert stage.run(search, count=2).ended == {TrialState.COMPLETE: 2}
    assert len(search.waiting) == 1


def test_a_pruned_trial_ends_with_the_result_of_its_best_epoch(stage: Stage) -> None:
    search = ScriptedSearch(
        [request("0", **ENDLESS)], lambda trial_id, epoch: StopReason.PRUNED if epoch >= 2 else None
    )
    assert stage.run(search).ended == {TrialState.PRUNED: 1}
    (outcome,) = search.outcomes["0"]
    assert outcome.result is not None
    assert 2 <= outcome.result.epochs < 10_000
    assert outcome.reason


def test_a_stop_asked_for_in_the_middle_of_an_epoch_is_obeyed(stage: Stage) -> None:
    # Epoch 0 is the answer to an empty report, made while the first epoch runs.
    config = {**ENDLESS, "batch_size": 2, "channels": 64, "hidden": 512}
    answers = iter([StopReason.PREEMPTED])
    search = ScriptedSearch([request("0", **config)], lambda trial_id, epoch: next(answers, None))
    summary = stage.run(search, count=1)
    assert summary.ended == {TrialState.PREEMPTED: 1}


def test_a_killed_trial_goes_on_and_ends_as_one_never_killed(stage: Stage) -> None:
    stage.run(ScriptedSearch([request("whole", epochs=6)]))
    killed: list[int] = []

    def kill_once(trial_id: str, epoch: int) -> None:
        if epoch == 2 and not killed:
            killed.append(stage.starter.pids[-1])
            os.kill(killed[0], signal.SIGKILL)

    stage.view = View(kill_once)
    search = ScriptedSearch([request("killed", epochs=6)])
    summary = stage.run(search)
    assert summary.ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}
    assert "SIGKILL" in (search.outcomes["killed"][0].reason or "")
    assert stage.history("killed") == [1, 2, 3, 4, 5, 6]
    assert stage.result("killed") == stage.result("whole")


def test_a_trial_killed_again_and_again_has_failed(stage: Stage) -> None:
    search = ScriptedSearch([request("0", **ENDLESS)])
    starter = stage.starter
    begin = starter.start

    def start_and_kill(job: TrialJob) -> TrialHandle:
        handle = begin(job)
        handle.kill()
        return handle

    starter.start = start_and_kill  # type: ignore[method-assign]
    with pytest.raises(AgentFailed, match="SIGKILL"):
        stage.run(search)
    states = [outcome.state for outcome in search.outcomes["0"]]
    assert states == [TrialState.PREEMPTED] * (LOSSES_WITHOUT_PROGRESS - 1) + [TrialState.FAILED]
    assert stage.nobody_is_left()


def test_a_trial_killed_after_every_resumption_has_failed_in_the_end(stage: Stage) -> None:
    # Out of memory in the second epoch, say: the first one is sent again each time and is no progress.
    stage.view = View(lambda trial_id, epoch: os.kill(stage.starter.pids[-1], signal.SIGSTOP) if epoch == 1 else None)
    began: list[int] = []

    def kill_when_stopped(trial_id: str, epoch: int) -> StopReason | None:
        if epoch >= 1 and stage.starter.pids[-1] not in began:
            began.append(stage.starter.pids[-1])
            os.kill(began[-1], signal.SIGKILL)
        return None

    search = ScriptedSearch([request("0", **ENDLESS)], kill_when_stopped)
    with pytest.raises(AgentFailed, match=f"{LOSSES_WITHOUT_PROGRESS} times in a row"):
        stage.run(search)
    assert stage.nobody_is_left()


def test_trials_of_a_killed_forkserver_go_on_under_the_next_one(stage: Stage) -> None:
    killed: list[int] = []

    def kill_forkserver(trial_id: str, epoch: int) -> None:
        if epoch == 2 and not killed:
            stat = Path(f"/proc/{stage.starter.pids[-1]}/stat").read_text()
            killed.append(int(stat.rpartition(")")[2].split()[1]))
            os.kill(killed[0], signal.SIGKILL)

    stage.view = View(kill_forkserver)
    search = ScriptedSearch([request("0", epochs=40)])
    assert stage.run(search).ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}
    assert "forkserver" in (search.outcomes["0"][0].reason or "")
    assert stage.history("0") == list(range(1, 41))


def test_a_killed_forkserver_that_is_not_quite_gone_is_not_asked_again_and_again(stage: Stage) -> None:
    stage.starter.warm_up()
    server: Any = forkserver._forkserver
    dying = server._forkserver_pid
    # Its socket is closed, but it has not ended yet: on a busy host there is time for five connections in between.
    server._forkserver_address = "\0nobody-listens-here"
    assert stage.run(ScriptedSearch([request("0")])).ended == {TrialState.COMPLETE: 1}
    assert server._forkserver_pid != dying


def test_a_folder_in_use_is_no_fault_of_the_trial(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    (stage.folder / "0").mkdir(parents=True)
    with (stage.folder / "0" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        summary = stage.run(ScriptedSearch([request("0"), request("1")]), slots=2, count=2)
    assert summary.ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}


def test_first_ctrl_c_lets_the_running_trial_finish(stage: Stage) -> None:
    stage.view = View(lambda trial_id, epoch: os.kill(os.getpid(), signal.SIGINT) if epoch == 1 else None)
    search = ScriptedSearch([request("0"), request("1", seed=1)])
    summary = stage.run(search)
    assert summary.interrupted
    assert summary.ended == {TrialState.COMPLETE: 1}
    assert len(search.waiting) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP])
def test_a_schedulers_signal_checkpoints_and_the_next_agent_goes_on(stage: Stage, number: signal.Signals) -> None:
    stage.run(ScriptedSearch([request("whole", epochs=5)]))
    stage.view = View(lambda trial_id, epoch: os.kill(os.getpid(), number) if epoch == 2 else None)
    search = ScriptedSearch([request("0", epochs=5)])
    assert stage.run(search).ended == {TrialState.PREEMPTED: 1}
    assert stage.nobody_is_left()
    stage.view = View()
    assert stage.run(search).ended == {TrialState.COMPLETE: 1}
    assert stage.history("0") == [1, 2, 3, 4, 5]
    assert stage.result("0") == stage.result("whole")


def test_second_ctrl_c_checkpoints_and_stops(stage: Stage) -> None:
    stage.view = View(lambda trial_id, epoch: os.kill(os.getpid(), signal.SIGINT) if epoch in (1, 2) else None)
    search = ScriptedSearch([request("0", **ENDLESS)])
    summary = stage.run(search)
    assert summary.interrupted
    assert summary.ended == {TrialState.PREEMPTED: 1}
    assert (stage.folder / "0" / "last.ckpt").is_file()
    assert stage.nobody_is_left()


def test_third_ctrl_c_kills(stage: Stage) -> None:
    def thrice(trial_id: str, epoch: int) -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)

    stage.view = View(thrice)
    search = ScriptedSearch([request("0", **ENDLESS)])
    summary = stage.run(search)
    assert summary.interrupted
    assert search.outcomes["0"][-1].state is TrialState.PREEMPTED
    assert stage.nobody_is_left()


def test_a_failing_trial_is_recorded_with_its_reason_and_the_next_one_runs(stage: Stage) -> None:
    search = ScriptedSearch([request("0", data="nowhere"), request("1")])
    assert stage.run(search).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    reason = search.outcomes["0"][0].reason or ""
    assert "nowhere" in reason
    assert "fersweep data prepare" in reason  # the hint comes along
    assert "nowhere" in (stage.folder / "0" / "trial.log").read_text()


def test_an_agent_whose_every_trial_failed_has_failed(stage: Stage) -> None:
    with pytest.raises(AgentFailed, match="nowhere"):
        stage.run(ScriptedSearch([request("0", data="nowhere")]))


def test_trials_failing_one_after_another_stop_the_agent(stage: Stage) -> None:
    search = ScriptedSearch([request(str(number), data="nowhere") for number in range(FAILURES_IN_A_ROW + 3)])
    with pytest.raises(AgentFailed, match="nowhere"):
        stage.run(search)
    assert len(search.outcomes) == FAILURES_IN_A_ROW


def test_a_trial_taken_over_by_another_agent_is_left_to_it(stage: Stage) -> None:
    def taken(trial_id: str, epoch: int) -> StopReason | None:
        if trial_id == "0":
            raise LostTrial("taken over by another agent")
        return None

    search = ScriptedSearch([request("0", **ENDLESS), request("1")], taken)
    search.finish = _refusing(search.finish, "0")  # type: ignore[method-assign]
    stage.run(search)
    assert "0" not in search.outcomes
    assert search.outcomes["1"][0].state is TrialState.COMPLETE
    assert stage.nobody_is_left()


def test_a_trial_taken_over_is_said_to_be_so_once_however_long_it_takes_to_die(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.01)
    asked = 0

    def taken(trial_id: str, epoch: int) -> StopReason | None:
        nonlocal asked
        asked += 1
        raise LostTrial("trial 0 is not this agent's")

    stage.starter.dies_after_s = 0.5
    stage.run(ScriptedSearch([request("0", **ENDLESS)], taken))
    assert asked == 1
    assert len([note for note in stage.view.notes if "leaving it to the other agent" in note]) == 1
    assert stage.nobody_is_left()


def _refusing(finish: Callable[[str, TrialOutcome], None], lost: str) -> Callable[[str, TrialOutcome], None]:
    def refuse(trial_id: str, outcome: TrialOutcome) -> None:
        if trial_id == lost:
            raise LostTrial("taken over by another agent")
        finish(trial_id, outcome)

    return refuse


def test_waits_while_the_sweep_is_paused(stage: Stage) -> None:
    search = ScriptedSearch([Wait("the sweep is paused"), Wait("the sweep is paused"), request("0")])
    assert stage.run(search).ended == {TrialState.COMPLETE: 1}
    assert [note for note in stage.view.notes if "paused" in note] == ["waiting: the sweep is paused"]


def test_an_error_in_the_search_ends_the_agent_and_leaves_no_process(stage: Stage) -> None:
    def broken(trial_id: str, epoch: int) -> StopReason | None:
        raise OSError("disk gone")

    search = ScriptedSearch([request("0", **ENDLESS)], broken)
    with pytest.raises(OSError, match="disk gone"):
        stage.run(search)
    assert stage.nobody_is_left()
