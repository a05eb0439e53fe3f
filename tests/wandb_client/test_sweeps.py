"""Sweeps created, found, stopped and read on a W&B server, and what it says of runs against what is known here."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from fer_sweep import owners
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import FersweepError, InputError, ServerBusy
from fer_sweep.records import TrialRequest
from fer_sweep.store.database import default_storage
from fer_sweep.store.sweeps import record_sweep
from fer_sweep.sweeps.entries import known
from fer_sweep.sync import check
from fer_sweep.wandb_client.reconcile import UPLOADS, Action
from tests.search.conftest import refused
from tests.support.searches import create, find
from tests.support.standin.state import Run


@pytest.fixture
def create_sweep(online, sweep_file, settings):
    def make(project=None, **parameters):
        return create(sweep_file(parameters={**settings()["parameters"], **parameters}), project=project)

    return make


def test_a_lost_answer_creates_one_sweep_and_a_refusal_is_retried(online, create_sweep):
    online.faults.drop("UpsertSweep", after=True)
    with refused(ServerBusy, hint="may have been done"):
        create_sweep()
    assert len(online.sweeps) == 1
    online.faults.fail("UpsertSweep", status=429, retry_after=0.01)
    create_sweep()
    assert len(online.sweeps) == 2, "what surely was not done is asked again"


@pytest.mark.parametrize(
    "body",
    [
        *('{"data": []}', '{"data": "x"}', '{"data": {"upsertSweep": null}}', '{"errors": 5}', '{"errors": ["no"]}'),
        *('{"data": {"upsertSweep": {"sweep": null}}}', '{"errors": {"message": "no"}}', "[" * 100_000),
    ],
)
def test_unreadable_answers_are_errors_with_a_hint(online, create_sweep, body):
    online.faults.fail("UpsertSweep", status=200, body=body)
    with refused(FersweepError):
        create_sweep()


def test_a_sweep_is_sent_as_the_stock_client_sends_it(online, create_sweep):
    shift = {"parameters": {"shift": {"min": 0.0, "max": 0.5}}}
    create_sweep(channels={"min": 8, "max": 16}, augment=shift, data={"value": "008"})
    (sweep,) = online.sweeps.values()
    assert sweep.config["program"] == "fersweep"
    assert sweep.config["command"] == ["${env}", "fersweep", "train", "${args}"]
    sent = sweep.config["parameters"]
    assert sent["channels"] == {"min": 8, "max": 16, "distribution": "int_uniform"}
    assert sent["augment"]["parameters"]["shift"]["distribution"] == "uniform"
    assert "'008'" in sweep.config_text, "some readers of YAML take it for a number"


def test_a_sweep_may_be_stopped_twice_and_resumed_but_not_paused_once_cancelled(create_sweep):
    entry = create_sweep()
    for state in ("stopped", "stopped", "running", "cancelled"):
        entry.set_state(state)
    with pytest.raises(InputError, match="cannot become paused"):
        entry.set_state("paused")


def test_without_a_key_the_trials_of_this_host_are_still_shown(create_sweep, monkeypatch):
    entry = create_sweep(project="faces/2026")
    assert entry.entry.path == f"tester/faces/2026/{entry.id}"
    with closing(entry.search()) as search:
        while not isinstance(request := search.next_trial("cpu0"), TrialRequest):
            pass
    monkeypatch.delenv("WANDB_API_KEY")
    with find(entry.id) as opened, closing(opened.search()) as unplugged:
        assert [record.trial_id for record in unplugged.records()] == [request.trial_id]
        with pytest.raises(FersweepError, match="no API key"):
            unplugged.next_trial("cpu0")


def test_agents_that_find_a_sweep_of_others_by_its_address_at_once_record_it_once(online, settings):
    sweep = online.create_sweep({"program": "x.py", **settings()}, project="theirs")
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda _: find(f"{online.url}/tester/theirs/sweeps/{sweep.id}"), range(8)))
    assert {(entry.entry.search, entry.entry.path) for entry in entries} == {("wandb", f"tester/theirs/{sweep.id}")}
    assert len(known()) == 1


def test_a_sweep_of_others_is_the_last_one_once_it_is_trained_here(online, create_sweep, settings):
    own = create_sweep()
    others = online.create_sweep({"program": "x.py", **settings()})
    with pytest.raises(InputError, match="no trial 5"):
        find(f"tester/faces/{others.id}").trial("5")
    assert find().id == own.id, "not the one of a command that failed"
    with closing(find(others.id).search()) as search:
        while not isinstance(search.next_trial("cpu0"), TrialRequest):
            pass
    assert find().id == others.id


def test_a_sweep_whose_recording_was_interrupted_is_found(online, settings):
    sweep = online.create_sweep({"program": "x", **settings()})
    record_sweep(parse_sweep(settings()), sweep.id, default_storage())  # and then its process was killed
    assert find(f"tester/faces/{sweep.id}").entry.search == "wandb"


@pytest.mark.parametrize("search", ["optuna", "wandb"])
def test_runs_of_killed_agents_without_their_end_are_found(search, online, sweep_file, complete, monkeypatch):
    entry = create(sweep_file(run_cap=1), search=search)
    with ThreadPoolExecutor(8) as pool:
        (page,) = set(pool.map(lambda _: entry.page(), range(8)))  # agents that start at once share it
    with closing(entry.search()) as agent:
        while not isinstance(request := agent.next_trial("cpu0"), TrialRequest):
            pass
        agent.finish(trial := request.trial_id, complete())
    run = online.runs.setdefault(entry.run_id(trial), Run(entry.run_id(trial), "tester", "faces"))
    run.sweep_id, run.project = page.path.id, page.path.project
    run.state = "running"
    complete_runs = set()

    def uploads(own=(), known=None):
        actions = check(entry, own, set() if known is None else known)
        return {trial for trial, action in actions.items() if action in UPLOADS}

    assert uploads() == set(), "its agent is alive and uploads it"
    assert uploads([trial]) == {trial}, "this is its agent"
    monkeypatch.setattr(owners, "is_dead", lambda owner: True)
    assert uploads() == {trial}
    run.state, run.summary = "failed", {"state": "complete"}  # closed by an agent that had lost the trial
    assert uploads() == {trial}
    run.state = "finished"
    assert uploads(known=complete_runs) == set()
    assert [known for known, _ in complete_runs] == [trial]
    assert check(entry, [trial], set()) == {trial: Action.NONE}
    run.state = "running"  # a late write of the killed agent's wandb
    assert uploads(known=complete_runs) == set()
    monkeypatch.setattr("fer_sweep.sync._SETTLED_S", 0.0)
    assert uploads(known=complete_runs) == {trial}
    monkeypatch.setattr(owners, "is_dead", lambda owner: False)
    assert uploads() == {trial}, "also if its agent is alive"
    online.faults.offline()
    assert check(entry, [trial], set()) is None
