"""``fersweep drain``: a slot of a running agent is freed, and takes trials again."""

import json
import threading
from collections.abc import Callable

import pytest

from fer_sweep.agent.draining import Drains
from fer_sweep.cli import agent as agent_commands
from fer_sweep.files import sweep_folder
from fer_sweep.owners import this_process
from fer_sweep.records import TrialOutcome, TrialState
from tests.support.agent_stage import Stage, View
from tests.support.scripted_search import ScriptedSearch, request
from tests.support.scripted_starter import WAIT_S, PlayedTrial, ScriptedStarter, train_all, train_then_wait
from tests.support.shell import Shell


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_commands, "FREED_S", 0.0)
    monkeypatch.setattr(agent_commands, "GRACE_S", 0.0)


def agent_with(*slots: str) -> Drains:
    return Drains(sweep_folder("abc"), slots)


def drain_in_trial_0(shell: Shell, stage: Stage, at_note: Callable[[str], object] = lambda note: None) -> None:
    """Drain the slot in the first epoch of trial 0, which does not go on before the agent has read that.

    Else it may end, and the next trial start, before the agent looks for a request.
    """
    is_read = threading.Event()

    def play(trial: PlayedTrial) -> TrialOutcome:
        trial.begin()
        trial.train()
        assert is_read.wait(WAIT_S)
        return train_all(trial)

    def note(text: str) -> None:
        if "trial 0 runs there" in text:
            is_read.set()
        at_note(text)

    stage.starter = ScriptedStarter(play)
    stage.view = View(
        at_epoch=lambda trial_id, epoch: shell("drain", "cpu0") if (trial_id, epoch) == ("0", 1) else None,
        at_note=note,
    )


def test_now_checkpoints_the_trial_which_another_slot_resumes(shell: Shell, stage: Stage) -> None:
    said = []

    def drain(trial_id: str, epoch: int) -> None:
        if epoch == 1 and not said:
            said.append(shell("drain", "cpu0", "--now"))

    stage.view = View(at_epoch=drain)
    stage.starter = ScriptedStarter(train_then_wait(1))
    search = ScriptedSearch([request("0")])
    with agent_with("cpu0", "cpu1") as drains:
        summary = stage.run(search, slots=2, drains=drains)
    assert said == [
        (0, "sweep abc: slot cpu0 is drained, and free after its checkpoint\n", "to undo: fersweep drain --undo cpu0\n")
    ]
    assert summary.ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}
    assert stage.history("0") == [1, 2, 3]
    assert "slot cpu0 is drained: trial 0 runs there, and the slot is free once it is checkpointed" in stage.view.notes


def test_a_drained_slot_waits_for_its_trial_and_takes_trials_again(shell: Shell, stage: Stage) -> None:
    drain_in_trial_0(shell, stage, lambda note: shell("drain", "cpu0", "--undo") if "and free" in note else None)
    with agent_with("cpu0") as drains:
        summary = stage.run(ScriptedSearch([request("0"), request("1")]), drains=drains)
    assert summary.ended == {TrialState.COMPLETE: 2}
    assert summary.turnaround_s == (), "nothing was started as soon as it could have been"
    assert stage.view.notes[-1] == "slot cpu0 takes trials again"


def test_an_agent_without_slots_ends_with_its_sweep(shell: Shell, stage: Stage) -> None:
    search = ScriptedSearch([request("0"), request("1")])
    drain_in_trial_0(shell, stage)
    with agent_with("cpu0") as drains:
        assert stage.run(search, drains=drains, is_over=lambda: True).ended == {TrialState.COMPLETE: 1}


def test_a_gpu_is_drained_with_all_its_slots_by_its_number(shell: Shell) -> None:
    with agent_with("gpu0/0", "gpu0/1", "gpu1/0", "gpu1/1") as drains:
        code, out, err = shell("drain", "1")
        assert (code, out.count("and free after its trial")) == (0, 2)
        assert "fersweep drain 1 --now" in err
        drains.read({"gpu1/0": "3"})
        assert sorted(drains.slots) == ["gpu1/0", "gpu1/1"]
        _, out, _ = shell("drain", "gpu1")
        assert "slot gpu1/0 is drained, and free after its trial\nsweep abc: slot gpu1/1 is free" in out
        shell("drain", "--undo", "gpu1/0")
        drains.read({})
        assert list(drains.slots) == ["gpu1/1"]
        code, _, err = shell("drain", "2")
        assert code == 2 and "hint: their slots: gpu0/0, gpu0/1, gpu1/0, gpu1/1" in err
    assert list(sweep_folder("abc").glob("agents/*")) == []


def test_a_dead_agent_has_no_slots_and_its_files_are_removed_by_the_next(shell: Shell) -> None:
    host, pid, start = this_process().rsplit(":", 2)
    dead = sweep_folder("abc") / "agents" / "dead.json"
    dead.parent.mkdir(parents=True)
    dead.write_text(json.dumps({"owner": f"{host}:{pid}:{start}0", "slots": ["cpu0"], "free": []}))
    code, _, err = shell("drain", "cpu0")
    assert code == 3 and "runs on this host" in err
    with agent_with("cpu0"):
        assert not dead.exists()
