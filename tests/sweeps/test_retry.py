"""``Sweep.retry`` queues failed trials again, in an embedded sweep and on a server, in every state."""

import json
import time
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState, Wait
from fer_sweep.sweeps import Sweep
from fer_sweep.wandb_client.tracking import TrackedRun
from tests.support.records import make_result
from tests.support.searches import create

FAILED = TrialOutcome(TrialState.FAILED, reason="no such data")
COMPLETE = TrialOutcome(TrialState.COMPLETE, make_result())
TRIALS = 2


@pytest.fixture(params=["embedded", "served"])
def sweep(request: pytest.FixtureRequest) -> Sweep:
    """A grid of two trials, searched by us or by the stand-in server."""
    if request.param == "served":
        request.getfixturevalue("scripted_wandb")
    parameters = {"model": {"value": "simple_cnn"}, "seed": {"values": list(range(TRIALS))}}
    metric = {"name": "best_val_acc", "goal": "maximize"}
    file = Path("sweep.yaml")
    file.write_text(json.dumps({"program": "fersweep", "method": "grid", "metric": metric, "parameters": parameters}))
    sweep = create(file)
    assert sweep.searched_by_server == (request.param == "served")
    return sweep


class Agent:
    """Takes and ends trials as an agent does, with their W&B runs."""

    def __init__(self, sweep: Sweep) -> None:
        self.search, self._track = sweep.search(), sweep.tracker()
        self._runs: dict[str, TrackedRun] = {}

    def close(self) -> None:
        self.search.close()

    def take(self) -> TrialRequest | None:
        """The next trial; None at the sweep's end."""
        while isinstance(request := self.search.next_trial(f"cpu{len(self._runs)}"), Wait):
            time.sleep(0.01)
        if request is not None:
            self._runs[request.trial_id] = self._track(request)
        return request

    def end(self, request: TrialRequest | None, outcome: TrialOutcome) -> str:
        assert request is not None
        self.search.finish(request.trial_id, outcome)
        self._runs[request.trial_id].finish(outcome)
        return request.trial_id


@pytest.fixture
def failed(sweep: Sweep) -> str:
    """The first trial has failed; the other one is complete, and so the sweep is finished."""
    with closing(Agent(sweep)) as agent:
        first, second = agent.take(), agent.take()
        agent.end(second, COMPLETE)
        failed = agent.end(first, FAILED)
        assert agent.take() is None
    return failed


def test_a_failed_trial_of_a_finished_sweep_is_handed_out_again(sweep: Sweep, failed: str) -> None:
    with pytest.raises(InputError, match=r"trial 99 of sweep .* has not failed"):
        sweep.retry([failed, "99"])
    assert sweep.state == "finished"
    assert sweep.retry([failed]) == [failed]
    assert sweep.state == "running"
    with closing(Agent(sweep)) as agent:
        again = agent.take()
        assert again is not None and again.attempt == 2
        assert agent.end(again, COMPLETE) == failed
        assert agent.take() is None
    assert sweep.state == "finished"
    assert sweep.retry() == []
    assert sweep.state == "finished"


def test_a_paused_sweep_stays_paused(sweep: Sweep) -> None:
    with closing(Agent(sweep)) as agent:
        failed = agent.end(agent.take(), FAILED)
    sweep.set_state("paused")
    assert sweep.retry() == [failed]
    assert sweep.state == "paused"
    sweep.set_state("running")
    with closing(Agent(sweep)) as agent:
        assert failed in {agent.end(agent.take(), COMPLETE) for _ in range(TRIALS)}


def test_a_cancelled_sweep_is_not_retried(sweep: Sweep) -> None:
    with closing(Agent(sweep)) as agent:
        agent.end(agent.take(), FAILED)
    sweep.set_state("cancelled")
    with pytest.raises(NothingToDo, match="cancelled") as caught:
        sweep.retry()
    assert f"--from {sweep.id}" in (caught.value.hint or "")
