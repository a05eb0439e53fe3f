"""Requeued trials: those that failed in a broken slot or on a broken host, and those that ran out of memory."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep.agent.failures import FAILURES_IN_A_ROW, SLOT_FAILURES_IN_A_ROW, OnOom
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import AgentFailed
from fer_sweep.records import Cause, TrialOutcome, TrialState
from fer_sweep.search.embedded import OptunaSearch, create_sweep
from fer_sweep.store.database import default_storage
from tests.support.agent_stage import Stage, View
from tests.support.scripted_search import TINY, ScriptedSearch, request
from tests.support.scripted_starter import WAIT_S, PlayedTrial, ScriptedStarter, train_all
from tests.support.searches import embedded_search

TRIALS = FAILURES_IN_A_ROW + 2
HERE, ELSEWHERE = "cache of slot 0", "cache of slot 1"


@pytest.fixture
def broken() -> set[str]:
    """The data caches in which every trial fails."""
    return set()


@pytest.fixture
def stage(tmp_path: Path, broken: set[str]) -> Stage:
    """Trial 0, where it does not fail, runs until a slot has been closed."""
    slot_is_closed = threading.Event()

    def play(trial: PlayedTrial) -> TrialOutcome:
        if trial.job.environment["FERSWEEP_CACHE"] in broken:
            return TrialOutcome(TrialState.FAILED, reason="no such data")
        if trial.trial_id == "0" and broken:
            trial.begin()
            assert slot_is_closed.wait(WAIT_S)
        return train_all(trial)

    stage = Stage(tmp_path / "trials", HERE, ScriptedStarter(play))
    stage.view = View(at_note=lambda text: slot_is_closed.set() if "is disabled" in text else None)
    return stage


@pytest.fixture
def search() -> Iterator[OptunaSearch]:
    parameters = {name: {"value": value} for name, value in TINY.items()} | {"seed": {"values": list(range(TRIALS))}}
    create_sweep(parse_sweep({"method": "grid", "parameters": parameters}), sweep_id="s", storage=default_storage())
    with closing(embedded_search("s")) as search:
        yield search


def test_an_unhealthy_slot_is_disabled(stage: Stage, broken: set[str], search: OptunaSearch) -> None:
    broken.add(ELSEWHERE)
    summary = stage.run(search, slots=2, caches={1: ELSEWHERE})
    assert summary.ended == {TrialState.FAILED: SLOT_FAILURES_IN_A_ROW, TrialState.COMPLETE: TRIALS - 3}
    assert stage.view.notes == [
        "slot cpu1 is disabled: 3 trials in a row failed there, while cpu0 did well; "
        "to retry trial 1, 2, 3: fersweep retry"
    ]


def test_an_agent_on_an_unhealthy_host_stops_and_says_where_to_look(
    stage: Stage, broken: set[str], search: OptunaSearch
) -> None:
    stage.run(search, count=1)
    broken.add(HERE)
    with pytest.raises(AgentFailed) as caught:
        stage.run(search)
    hint = caught.value.hint or ""
    assert "complete elsewhere: 1 trial, so" in hint and "fersweep agent --retry-failed" in hint
    assert [str(record.state) for record in search.records()] == ["complete", *["failed"] * FAILURES_IN_A_ROW]


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
