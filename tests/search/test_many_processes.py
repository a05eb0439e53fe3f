"""Many processes on one database hand out every trial once, up to the exact cap, also while PostgreSQL restarts."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialState
from fer_sweep.search import registry
from fer_sweep.search.database import default_storage
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, list_sweeps
from tests.benchmarks.scale.measure import Crowd, Setting, check
from tests.support.processes import until


@pytest.fixture
def make(sweep_file):
    space = {"channels": {"min": 1, "max": 10}, "hidden": {"values": [16, 32, 64, 128, 256, 512, 1024]}}
    rule = {"type": "hyperband", "min_iter": 1}

    def create(storage, setting):
        parameters = {"model": {"value": "simple_cnn"}, **space}
        file = sweep_file(method=setting.method, early_terminate=rule, parameters=parameters)
        return registry.create(file, count=setting.trials, search="optuna", storage=storage)

    return create


@pytest.mark.parametrize(
    ("engine", "setting"),
    [
        ("sqlite", Setting(3, 24)),  # the smoke test of the default run
        *(
            pytest.param(engine, setting, marks=pytest.mark.process)
            for engine in ("sqlite", "postgres")
            for setting in (Setting(2, 40, "grid"), Setting(3, 40, "bayes"), Setting(32, 64))
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.agents}-{value.method}",
)
def test_processes_share_trials_each_once_up_to_the_exact_cap(request, tmp_path, make, engine, setting):
    storage = default_storage() if engine == "sqlite" else request.getfixturevalue("postgres")
    entry = make(storage, setting)
    crowd = Crowd(tmp_path, entry, setting, one_host=True)
    crowd.go()
    _, works = crowd.end()
    check(entry, setting, works)


@pytest.mark.cluster
def test_agents_work_on_while_postgres_restarts_and_crashes(postgres, postgres_server, make, tmp_path):
    setting = Setting(8, 64)
    entry = make(postgres, setting)
    crowd = Crowd(tmp_path, entry, setting)
    crowd.go()
    with closing(OptunaSearch(entry.id, storage=postgres)) as watching:
        for progress, mode in ((8, "fast"), (24, "immediate"), (40, "fast")):
            until(lambda progress=progress: len(watching.records()) >= progress)
            postgres_server.control("restart", mode)
        _, works = crowd.end()
        assert {record.state for record in watching.records()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    # A trial whose handing out was in doubt is handed out anew; its first attempt has run nowhere.
    finished = [found for work in works for found in work.finished]
    assert sorted(int(trial) for trial, _ in finished) == list(range(setting.trials))
    assert max(attempt for _, attempt in finished) <= 2
    assert registry.state_of(entry) == "finished"


def test_several_agents_may_create_the_first_sweep_of_a_storage_together(storage, settings):
    with ThreadPoolExecutor(4) as pool:
        sweep = parse_sweep(settings())
        list(pool.map(lambda number: create_sweep(sweep, sweep_id=f"s{number}", storage=storage), range(4)))
    assert sorted(found.id for found in list_sweeps(storage)) == ["s0", "s1", "s2", "s3"]
