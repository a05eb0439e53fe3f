"""What the server says of runs, against what is known here of their trials."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from fer_sweep.records import TrialRequest
from fer_sweep.search import owners
from fer_sweep.search.pages import has_ended_on_page, left_behind, page_of
from fer_sweep.search.registry import create, open_search
from tests.support.standin.state import Run


@pytest.mark.parametrize("search", ["optuna", "wandb"])
def test_runs_that_killed_agents_left_without_their_end_are_found(search, online, sweep_file, complete, monkeypatch):
    entry = create(sweep_file(run_cap=1), search=search)
    with ThreadPoolExecutor(8) as pool:
        (page,) = set(pool.map(lambda _: page_of(entry), range(8)))  # agents that start at once share it
    with closing(open_search(entry)) as agent:
        while not isinstance(request := agent.next_trial("cpu0"), TrialRequest):
            pass
        agent.finish(trial := request.trial_id, complete())
    run = online.runs.setdefault(entry.run_id(trial), Run(entry.run_id(trial), "tester", "faces"))
    run.sweep_id, run.project = page.path.id, page.path.project
    run.state = "running"
    assert left_behind(entry, set()) == (), "its agent is alive and syncs it"
    assert not has_ended_on_page(entry, trial)
    monkeypatch.setattr(owners, "is_dead", lambda owner: True)
    assert left_behind(entry, set()) == [trial]
    run.state, run.summary = "failed", {"state": "complete"}  # closed by an agent that had lost the trial
    assert left_behind(entry, set()) == [trial]
    assert not has_ended_on_page(entry, trial)
    run.state = "finished"
    whole = set()
    assert left_behind(entry, whole) == []
    assert (has_ended_on_page(entry, trial), whole) == (True, {trial})
    run.state = "running"  # a late write of the killed agent's wandb
    assert left_behind(entry, whole) == ()
    monkeypatch.setattr("fer_sweep.search.pages._SETTLED_S", 0.0)
    assert left_behind(entry, whole) == [trial]
    monkeypatch.setattr(owners, "is_dead", lambda owner: False)
    assert left_behind(entry, set()) == [trial], "the owner does not matter any more"
    online.faults.offline()
    assert (left_behind(entry, set()), has_ended_on_page(entry, trial)) == ((), None), "unknown"
