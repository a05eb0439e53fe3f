"""Whatever three agents do in whatever order, with silences and restarts: no trial is lost, doubled or taken over."""

import contextlib

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from fer_sweep.config.values import canonical
from fer_sweep.errors import LostTrial
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState

CAP = 6
AGENTS = range(3)
AGENT = st.sampled_from(AGENTS)
ENDS = st.sampled_from([state for state in TrialState if state is not TrialState.RUNNING])
UNENDED = (TrialState.RUNNING, TrialState.PREEMPTED)
SPACE = {"model": {"value": "simple_cnn"}, "channels": {"min": 1, "max": 3}, "seed": {"min": 0, "max": 2}}


class Crowd(RuleBasedStateMachine):
    """Three agents of one sweep, and which trials each of them owns."""

    def __init__(self, harness):
        super().__init__()
        self.harness = harness
        self.requests: list[TrialRequest | None] = [None for _ in AGENTS]
        self.heard: set[int] = set()
        """Agents whose leases have been renewed since the last silence."""
        self.ended: dict[str, TrialState] = {}
        self.paused: set[str] = set()
        """Trials that wait for their next turn, or were pruned when the sweep ended without it."""
        self.attempts: dict[str, int] = {}

    @initialize(method=st.sampled_from(["random", "grid", "bayes"]))
    def create(self, method):
        self.in_turns = method == "bayes"
        metric = {"name": "val_acc", "goal": "maximize"}
        self.sweep = self.harness.create(method=method, run_cap=CAP, metric=metric, parameters=SPACE)
        self.searches = [self.harness.agent(self.sweep, f"agent {agent}") for agent in AGENTS]

    def owns(self, agent):
        request = self.requests[agent]
        return request and request.trial_id not in self.ended and self.attempts[request.trial_id] == request.attempt

    @rule(agent=AGENT)
    def next(self, agent):
        leased = [self.requests[other].trial_id for other in self.heard if self.owns(other)]
        if not self.owns(agent) and isinstance(request := self.searches[agent].next_trial("slot"), TrialRequest):
            assert self.harness.state(self.sweep) == "running"
            assert request.trial_id not in (*leased, *self.ended)
            assert request.attempt == self.attempts.get(request.trial_id, 0) + 1
            self.attempts[request.trial_id] = request.attempt
            self.paused.discard(request.trial_id)
            self.requests[agent] = request
            self.heard.add(agent)

    @rule(agent=AGENT)
    def report(self, agent):
        if request := self.requests[agent]:
            with contextlib.nullcontext() if self.owns(agent) else pytest.raises(LostTrial):
                self.searches[agent].report(request.trial_id, 1, {"val_acc": 0.5})
                self.heard.add(agent)

    @rule(agent=AGENT, end=ENDS)
    def finish(self, agent, end):
        if (request := self.requests[agent]) is None:
            return
        if end is TrialState.PAUSED and not self.in_turns:
            end = TrialState.PREEMPTED
        try:
            self.searches[agent].finish(request.trial_id, TrialOutcome(end))
        except LostTrial:
            assert not self.owns(agent)
        else:
            # Finishing again in the same way is no error and changes nothing.
            assert self.owns(agent) or self.ended.get(request.trial_id) is end
            if end is TrialState.PAUSED:
                self.paused.add(request.trial_id)
            elif end is not TrialState.PREEMPTED:
                self.ended[request.trial_id] = end
        self.requests[agent] = None

    @rule(agent=AGENT)
    def restart(self, agent):
        self.searches[agent].close()
        self.searches[agent] = self.harness.agent(self.sweep, f"agent {agent}")
        self.requests[agent] = None

    @rule()
    def silence(self):
        self.harness.expire_leases()
        self.heard.clear()

    @rule(state=st.sampled_from(["paused", "running"]))
    def steer(self, state):
        if self.harness.state(self.sweep) != "finished":
            self.harness.steer(self.sweep, state)

    def check(self):
        records = self.searches[0].records()
        assert len(records) <= CAP
        assert len({canonical(dict(record.parameters)) for record in records}) == len(records)
        for record in records:
            assert record.attempt == self.attempts[record.trial_id]
            if record.trial_id in self.paused:
                is_over = self.harness.state(self.sweep) == "finished"
                assert record.state is (TrialState.PRUNED if is_over else TrialState.PAUSED)
            else:
                end = self.ended.get(record.trial_id)
                assert record.state is end if end else record.state in UNENDED

    def teardown(self):
        """Let one agent complete the sweep, whatever the others left behind."""
        self.check()
        self.steer("running")
        self.silence()
        self.restart(0)
        for _ in range(CAP + 1):
            self.next(0)
            self.finish(0, TrialState.COMPLETE)
        self.check()
        assert (self.harness.state(self.sweep), len(self.ended) + len(self.paused)) == ("finished", CAP)
        for search in self.searches:
            search.close()


@pytest.mark.parametrize(
    ("harness", "examples"), [(("optuna", "sqlite"), 20), (("optuna", "postgres"), 6)], indirect=["harness"]
)
def test_no_trial_is_lost_doubled_or_taken_over(harness, examples):
    settings = hypothesis_settings(derandomize=True, deadline=None, max_examples=examples, stateful_step_count=30)
    run_state_machine_as_test(lambda: Crowd(harness), settings=settings)
