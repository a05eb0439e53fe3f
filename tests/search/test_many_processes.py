"""Many processes on one database hand out every trial once, up to the exact cap, also while PostgreSQL restarts."""

import json
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialState
from fer_sweep.search.database import Database, default_storage
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, list_sweeps, sweep_state
from tests.support.crowd import Crowd

if TYPE_CHECKING:
    from tests.support.postgres import Server

SPACE = {"model": {"value": "simple_cnn"}, "channels": {"min": 1, "max": 10}, "lr": {"min": 0.001, "max": 0.1}}


def make(storage: str, sweep_id: str, method: str, run_cap: int, **parameters: object) -> None:
    settings = {"method": method, "metric": {"name": "val_loss"}, "run_cap": run_cap}
    sweep = parse_sweep({**settings, "parameters": {**SPACE, **parameters}})
    create_sweep(sweep, sweep_id=sweep_id, storage=storage)


def check_whole(storage: str, run_cap: int) -> None:
    """Every trial is complete, with a configuration of its own and both of its reports."""
    assert sweep_state(storage, "s") == "finished"
    with closing(OptunaSearch("s", storage=storage)) as search:
        records = search.records()
    assert [record.trial_id for record in records] == [str(number) for number in range(run_cap)]
    assert {record.state for record in records} == {TrialState.COMPLETE}
    assert len({json.dumps(record.parameters) for record in records}) == run_cap
    with closing(Database(storage)) as database, database.transaction(write=False) as connection:
        assert connection.row("SELECT COUNT(*) AS reports FROM fersweep_reports")["reports"] == 2 * run_cap


@pytest.mark.parametrize(
    ("engine", "method", "agents", "cap"),
    [
        ("sqlite", "random", 3, 24),  # the smoke test of the default run
        pytest.param("sqlite", "grid", 2, 40, marks=pytest.mark.process),
        pytest.param("sqlite", "bayes", 3, 40, marks=pytest.mark.process),
        pytest.param("sqlite", "random", 32, 128, marks=pytest.mark.process),
        pytest.param("postgres", "grid", 2, 40, marks=pytest.mark.process),
        pytest.param("postgres", "bayes", 3, 40, marks=pytest.mark.process),
        pytest.param("postgres", "random", 32, 128, marks=pytest.mark.process),
    ],
)
def test_processes_share_trials_each_once_up_to_the_exact_cap(request, engine, method, agents, cap):
    storage = default_storage() if engine == "sqlite" else request.getfixturevalue("postgres")
    discrete = {"lr": {"values": [0.1, 0.02, 0.003, 0.0004]}} if method == "grid" else {}
    make(storage, "s", method, cap, **discrete)
    finished = Crowd(storage, "s", agents).end()
    assert sorted(finished) == [(number, 1) for number in range(cap)]
    check_whole(storage, cap)
    if method != "bayes":  # which learns from results in the order in which they arrive
        make(storage, "alone", method, cap, **discrete)
        with closing(OptunaSearch("alone", storage=storage)) as alone, closing(OptunaSearch("s", storage=storage)) as s:
            again = [dict(alone.next_trial("cpu/0").parameters) for _ in range(cap)]
            assert again == [record.parameters for record in s.records()]


@pytest.mark.cluster
def test_agents_work_on_while_postgres_restarts_and_crashes(postgres: str, postgres_server: "Server") -> None:
    make(postgres, "s", "random", 240)
    crowd = Crowd(postgres, "s", 8)
    for progress, mode in ((30, "fast"), (90, "immediate"), (150, "fast")):
        crowd.wait_for(progress)
        postgres_server.control("restart", mode)
    finished = crowd.end()
    # A trial whose handing out was in doubt is handed out anew; its first attempt has run nowhere.
    assert sorted(trial for trial, _ in finished) == list(range(240))
    assert max(attempt for _, attempt in finished) <= 2
    check_whole(postgres, 240)


def test_several_agents_may_create_the_first_sweep_of_a_storage_together(storage):
    sweep = parse_sweep({"method": "random", "parameters": SPACE})
    barrier = threading.Barrier(4)
    failures = []

    def create(sweep_id):
        barrier.wait()
        try:
            create_sweep(sweep, sweep_id=sweep_id, storage=storage)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=create, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(found.id for found in list_sweeps(storage)) == ["s0", "s1", "s2", "s3"]
