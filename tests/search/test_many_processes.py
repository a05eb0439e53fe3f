"""Many processes on one database hand out every trial once, up to the exact cap, also while PostgreSQL restarts."""

import threading
from contextlib import closing

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialState
from fer_sweep.search import registry
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.database import default_storage
from fer_sweep.store.sweeps import create_sweep, list_sweeps
from tests.benchmarks.scale.measure import Crowd, Setting, check
from tests.support.processes import until

SWEEP = """\
program: fersweep
method: METHOD
metric: {name: best_val_acc, goal: maximize}
early_terminate: {type: hyperband, min_iter: 1}
parameters:
  model: {value: simple_cnn}
  channels: {min: 1, max: 10}
  hidden: {values: [16, 32, 64, 128, 256, 512, 1024]}
"""


def make(folder, storage, setting):
    (folder / "sweep.yaml").write_text(SWEEP.replace("METHOD", setting.method))
    return registry.create(folder / "sweep.yaml", count=setting.trials, search="optuna", storage=storage)


@pytest.mark.parametrize(
    ("engine", "setting"),
    [
        ("sqlite", Setting(3, 24)),  # the smoke test of the default run
        pytest.param("sqlite", Setting(2, 40, "grid"), marks=pytest.mark.process),
        pytest.param("sqlite", Setting(3, 40, "bayes"), marks=pytest.mark.process),
        pytest.param("sqlite", Setting(32, 64), marks=pytest.mark.process),
        pytest.param("postgres", Setting(2, 40, "grid"), marks=pytest.mark.process),
        pytest.param("postgres", Setting(3, 40, "bayes"), marks=pytest.mark.process),
        pytest.param("postgres", Setting(32, 64), marks=pytest.mark.process),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.agents}-{value.method}",
)
def test_processes_share_trials_each_once_up_to_the_exact_cap(request, tmp_path, engine, setting):
    storage = default_storage() if engine == "sqlite" else request.getfixturevalue("postgres")
    entry = make(tmp_path, storage, setting)
    crowd = Crowd(tmp_path, entry, setting, one_host=True)
    crowd.go()
    _, works = crowd.end()
    check(entry, setting, works)


@pytest.mark.cluster
def test_agents_work_on_while_postgres_restarts_and_crashes(postgres, postgres_server, tmp_path):
    setting = Setting(8, 64)
    entry = make(tmp_path, postgres, setting)
    crowd = Crowd(tmp_path, entry, setting)
    crowd.go()
    with closing(OptunaSearch(entry.id, storage=postgres)) as watching:
        for progress, mode in ((8, "fast"), (24, "immediate"), (40, "fast")):
            until(lambda progress=progress: len(watching.records()) >= progress)
            postgres_server.control("restart", mode)
    _, works = crowd.end()
    # A trial whose handing out was in doubt is handed out anew; its first attempt has run nowhere.
    finished = [found for work in works for found in work.finished]
    assert sorted(int(trial) for trial, _ in finished) == list(range(setting.trials))
    assert max(attempt for _, attempt in finished) <= 2
    with closing(OptunaSearch(entry.id, storage=postgres)) as search:
        assert {record.state for record in search.records()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert registry.state_of(entry) == "finished"


def test_several_agents_may_create_the_first_sweep_of_a_storage_together(storage, settings):
    barrier = threading.Barrier(4)
    failures = []

    def create(sweep_id):
        barrier.wait()
        try:
            create_sweep(parse_sweep(settings()), sweep_id=sweep_id, storage=storage)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=create, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(found.id for found in list_sweeps(storage)) == ["s0", "s1", "s2", "s3"]
