"""What the server says of runs, against what is known here of their trials."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.pages import has_ended_on_page, left_behind, page_of
from fer_sweep.search.registry import create, open_search

from fer_sweep import owners
from fer_sweep.records import TrialOutcome, TrialRequest
from tests.support.standin.server import StandIn
from tests.support.standin.state import Run

Settings = Callable[..., Mapping[str, Any]]


def finished_trial(entry: SweepEntry, outcome: TrialOutcome) -> str:
    search = open_search(entry)
    while not isinstance(request := search.next_trial("cpu0"), TrialRequest):
        pass
    search.finish(request.trial_id, outcome)
    search.close()
    return request.trial_id


@pytest.mark.parametrize("search", ["optuna", "wandb"])
def test_runs_that_killed_agents_left_without_their_end_are_found(
    search: str,
    online: StandIn,
    settings: Settings,
    complete: Callable[..., TrialOutcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("sweep.yaml").write_text(yaml.safe_dump(dict(settings(run_cap=1))))
    entry = create(Path("sweep.yaml"), search=search)
    page_of(entry)
    trial = finished_trial(entry, complete())
    run = online.runs.get(entry.run_id(trial)) or online.runs.setdefault(
        entry.run_id(trial), Run(entry.run_id(trial), "tester", "faces")
    )
    run.sweep_id, run.project = page_of(entry).path.id, page_of(entry).path.project
    run.state = "running"
    assert left_behind(entry, set()) == (), "its agent is alive and syncs it"
    assert not has_ended_on_page(entry, trial)
    monkeypatch.setattr(owners, "is_dead", lambda owner: True)
    assert left_behind(entry, set()) == [trial]
    run.state, run.summary = "failed", {"state": "complete"}  # closed by an agent that had lost the trial
    assert left_behind(entry, set()) == [trial]
    assert not has_ended_on_page(entry, trial)
    run.state = "finished"
    whole: set[str] = set()
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


def test_agents_that_start_at_once_share_one_page(online: StandIn, settings: Settings) -> None:
    Path("sweep.yaml").write_text(yaml.safe_dump(dict(settings())))
    entry = create(Path("sweep.yaml"), search="optuna")
    with ThreadPoolExecutor(8) as pool:
        pages = {made.url for made in pool.map(lambda _: page_of(entry), range(8))}
    assert len(pages) == len(online.sweeps) == 1
