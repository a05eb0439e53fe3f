"""What is done about each run, by what this home and the server know of it."""

import pytest

from fer_sweep.records import TrialState
from fer_sweep.wandb_client.messages import ServerRun
from fer_sweep.wandb_client.reconcile import RUN_STATES, Action, LocalTrial, has_ended, reconcile, record_from

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


def run(state: str, summary: str | None = None, steps: int = 0) -> ServerRun:
    return ServerRun("r", state, {}, {"state": summary} if summary else {}, None, None, steps)


def decide(trial: LocalTrial, *remote: ServerRun) -> Action:
    (action,) = reconcile([trial], remote).values()
    return action


def trial(state: TrialState, **facts: bool | int) -> LocalTrial:
    return LocalTrial("r", "r", state, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(TrialState))
def test_a_run_that_the_server_does_not_have_is_uploaded_unless_an_agent_may_do_so(state: TrialState) -> None:
    assert decide(trial(state)) is Action.UPLOAD
    assert decide(trial(state, in_use=True, is_settled=True)) is Action.WAIT


@pytest.mark.parametrize("word", RUN_STATES)
@pytest.mark.parametrize("state", list(TrialState))
def test_a_run_is_complete_if_state_and_summary_show_the_trials_end(state: TrialState, word: str) -> None:
    end = TrialState.PREEMPTED if state is TrialState.RUNNING else state  # it lost its agent
    expected = Action.NONE if end in RUN_STATES[word].ends else Action.COMPLETE
    assert decide(trial(state), run(word, end)) is expected
    assert decide(trial(state), run(word)) is Action.COMPLETE, "closed by an agent that had lost the trial"


def test_states_that_show_an_end() -> None:
    ends = {state: [word for word in RUN_STATES if state in RUN_STATES[word].ends] for state in TrialState}
    assert ends == {
        TrialState.RUNNING: [],
        TrialState.COMPLETE: ["finished"],
        TrialState.PRUNED: ["finished"],
        TrialState.FAILED: ["failed", "crashed", "killed"],
        TrialState.PAUSED: ["finished"],
        TrialState.PREEMPTED: ["preempting", "preempted", "failed", "crashed", "killed"],
    }


def test_a_run_without_its_last_lines_is_completed() -> None:
    complete = trial(TrialState.COMPLETE, lines=3)
    assert decide(complete, run("finished", "complete", steps=2)) is Action.COMPLETE
    assert decide(complete, run("finished", "complete", steps=3)) is Action.NONE


@pytest.mark.parametrize("word", RUN_STATES)
@pytest.mark.parametrize("state", ENDED)
def test_late_writes_that_reopened_a_finished_run_are_closed_whoever_trained_it(state: TrialState, word: str) -> None:
    expected = Action.COMPLETE if word in ("pending", "running", "preempting") else Action.WAIT
    assert decide(trial(state, in_use=True, is_settled=True), run(word)) is expected
    assert decide(trial(state, in_use=True), run(word)) is Action.WAIT, "its agent is about to end it"


def test_a_run_that_shows_its_trial_as_paused_is_completed_once_the_trial_is_pruned() -> None:
    paused = run("finished", "paused")
    assert decide(trial(TrialState.PAUSED), paused) is Action.NONE
    assert decide(trial(TrialState.PRUNED), paused) is Action.COMPLETE
    assert not has_ended(paused)
    assert record_from(paused).state is TrialState.PAUSED


def test_a_preempted_trial_is_left_to_the_server_that_resumes_it() -> None:
    preempted = trial(TrialState.PREEMPTED, server_resumes=True)
    assert decide(preempted, run("preempted")) is Action.NONE
    assert decide(preempted, run("running")) is Action.WAIT
    assert decide(preempted) is Action.NONE
