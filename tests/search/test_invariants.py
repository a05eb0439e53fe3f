"""Whatever three agents do in whatever order, with silences and restarts: no trial is lost, doubled or taken over."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fer_sweep.config.distributions import canonical
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import LostTrial
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.sweeps import create_sweep, set_sweep_state, sweep_state
from tests.search.conftest import LEASE_S, Clock

CAP = 6
AGENTS = range(3)
ENDS = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.PREEMPTED]
STEP = st.one_of(
    st.tuples(st.sampled_from(["next", "report", "restart"]), st.sampled_from(AGENTS)),
    st.tuples(st.just("finish"), st.sampled_from(AGENTS), st.sampled_from(ENDS)),
    st.tuples(st.sampled_from(["silence", "pause", "resume"])),
)


class Model:
    """Three agents, and which trials each of them owns."""

    def __init__(self, storage, method):
        self.storage = storage
        self.clock = Clock()
        parameters = {"model": {"value": "simple_cnn"}, "channels": {"min": 1, "max": 3}, "seed": {"min": 0, "max": 2}}
        metric = {"name": "val_acc", "goal": "maximize"}
        settings = {"method": method, "run_cap": CAP, "metric": metric, "parameters": parameters}
        create_sweep(parse_sweep(settings), sweep_id="s", storage=storage)
        self.searches = [self.open(agent) for agent in AGENTS]
        self.requests: list[TrialRequest | None] = [None for _ in AGENTS]
        self.ended: dict[str, TrialState] = {}
        self.attempts: dict[str, int] = {}

    def open(self, agent):
        return OptunaSearch("s", storage=self.storage, owner=f"agent {agent}", lease_s=LEASE_S, clock=self.clock)

    def owns(self, agent):
        request = self.requests[agent]
        if request is None or request.trial_id in self.ended:
            return False
        return self.attempts[request.trial_id] == request.attempt

    def next(self, agent):
        if self.owns(agent):
            return
        request = self.searches[agent].next_trial("slot")
        if isinstance(request, TrialRequest):
            assert sweep_state(self.storage, "s") == "running"
            assert request.trial_id not in self.ended
            assert request.attempt == self.attempts.get(request.trial_id, 0) + 1
            self.attempts[request.trial_id] = request.attempt
            self.requests[agent] = request

    def report(self, agent):
        if (request := self.requests[agent]) is None:
            return
        try:
            self.searches[agent].report(request.trial_id, 1, {"val_acc": 0.5})
        except LostTrial:
            assert not self.owns(agent)
        else:
            assert self.owns(agent)

    def finish(self, agent, end):
        if (request := self.requests[agent]) is None:
            return
        try:
            self.searches[agent].finish(request.trial_id, TrialOutcome(end))
        except LostTrial:
            assert not self.owns(agent)
        else:
            # Finishing again in the same way is no error and changes nothing.
            assert self.owns(agent) or self.ended.get(request.trial_id) is end
            if end is not TrialState.PREEMPTED:
                self.ended[request.trial_id] = end
        self.requests[agent] = None

    def restart(self, agent):
        self.searches[agent].close()
        self.searches[agent] = self.open(agent)
        self.requests[agent] = None

    def silence(self):
        self.clock.now += LEASE_S + 1

    def pause(self):
        if sweep_state(self.storage, "s") == "running":
            set_sweep_state(self.storage, "s", "paused")

    def resume(self):
        if sweep_state(self.storage, "s") == "paused":
            set_sweep_state(self.storage, "s", "running")

    def check(self):
        records = self.searches[0].records()
        assert len(records) <= CAP
        assert len({canonical(dict(record.parameters)) for record in records}) == len(records)
        for record in records:
            assert record.attempt == self.attempts[record.trial_id]
            if record.trial_id in self.ended:
                assert record.state is self.ended[record.trial_id]
            else:
                assert record.state in (TrialState.RUNNING, TrialState.PREEMPTED)
        if sweep_state(self.storage, "s") == "finished":
            assert len(self.ended) == CAP


def check_all(storage, steps, method):
    model = Model(storage, method)
    for kind, *values in steps:
        getattr(model, kind)(*values)
    model.check()
    model.resume()
    model.silence()
    model.restart(0)
    for _ in range(CAP + 1):  # one agent completes the sweep, whatever the others left behind
        model.next(0)
        model.finish(0, TrialState.COMPLETE)
    model.check()
    assert sweep_state(model.storage, "s") == "finished"
    for search in model.searches:
        search.close()


steps_of_agents = given(steps=st.lists(STEP, max_size=30), method=st.sampled_from(["random", "grid", "bayes"]))


@steps_of_agents
@hypothesis_settings(derandomize=True, deadline=None, max_examples=20)
def test_invariants_hold_in_sqlite(steps, method):
    with tempfile.TemporaryDirectory() as folder:
        check_all(f"sqlite:///{Path(folder) / 'sweeps.db'}", steps, method)


@steps_of_agents
@hypothesis_settings(derandomize=True, deadline=None, max_examples=6)
def test_invariants_hold_in_postgres(postgres_server, steps, method):
    with postgres_server.empty() as storage:
        check_all(storage, steps, method)
