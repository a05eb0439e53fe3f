"""Many processes on one database hand out every trial once, up to the exact cap, also while PostgreSQL restarts."""

import itertools
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import NamedTuple

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState
from fer_sweep.search.embedded import create_sweep
from fer_sweep.store.database import default_storage
from tests.support.processes import until
from tests.support.searches import create, embedded_search, sweep_ids

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
EPOCHS = 3


class Ended(NamedTuple):
    """A trial as the agent that had it saw it end."""

    trial: str
    attempt: int
    state: TrialState
    epochs: int


def make(folder, storage, method, trials):
    (folder / "sweep.yaml").write_text(SWEEP.replace("METHOD", method))
    return create(folder / "sweep.yaml", count=trials, search="optuna", storage=storage)


def work_through(entry, barrier) -> list[Ended]:
    """Take trials until there are no more, as an agent does, with nothing to train."""
    ended = []
    barrier.wait()
    with closing(embedded_search(entry.id, entry.database)) as search:
        while isinstance(request := search.next_trial("cpu/0"), TrialRequest):
            trial, state = request.trial_id, TrialState.COMPLETE
            for epoch in range(1, EPOCHS + 1):
                metrics = {"epoch": epoch, "best_val_acc": int(trial) * 7919 % 1009 / 1009 + 0.001 * epoch}
                if search.report(trial, epoch, metrics) is StopReason.PRUNED and epoch < EPOCHS:
                    state = TrialState.PRUNED
                    break
            search.finish(trial, TrialOutcome(state))
            ended.append(Ended(trial, request.attempt, state, epoch))
    return ended


@contextmanager
def crowd(entry, agents: int) -> Iterator[list["Future[list[Ended]]"]]:
    """So many processes that begin together."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fer_sweep.search.embedded", "fer_sweep.search.study"])
    with context.Manager() as manager, ProcessPoolExecutor(agents, context) as processes:
        barrier = manager.Barrier(agents)
        yield [processes.submit(work_through, entry.entry, barrier) for _ in range(agents)]


@pytest.mark.parametrize(
    ("engine", "agents", "trials", "method"),
    [
        ("sqlite", 3, 24, "random"),  # the smoke test of the default run
        *(
            pytest.param(engine, *setting, marks=pytest.mark.process)
            for engine in ("sqlite", "postgres")
            for setting in ((2, 40, "grid"), (3, 40, "bayes"), (32, 64, "random"))
        ),
    ],
)
def test_processes_share_trials_each_once_up_to_the_exact_cap(request, tmp_path, engine, agents, trials, method):
    storage = default_storage() if engine == "sqlite" else request.getfixturevalue("postgres")
    entry = make(tmp_path, storage, method, trials)
    with crowd(entry, agents) as working:
        ended = sorted(itertools.chain(*(agent.result() for agent in working)), key=lambda one: int(one.trial))
    with closing(embedded_search(entry.id, storage)) as search:
        records = sorted(search.records(), key=lambda record: int(record.trial_id))
    assert [int(record.trial_id) for record in records] == list(range(trials))
    assert [(one.trial, one.attempt, one.state) for one in ended] == [(r.trial_id, 1, r.state) for r in records]
    assert len({json.dumps(record.parameters, sort_keys=True) for record in records}) == trials
    for one in ended:
        assert [row["epoch"] for row in entry.reports(one.trial)] == list(range(1, one.epochs + 1))
    assert entry.state == "finished"


@pytest.mark.cluster
def test_agents_work_on_while_postgres_restarts_and_crashes(postgres, postgres_server, tmp_path):
    entry = make(tmp_path, postgres, "random", 64)
    with crowd(entry, 8) as working, closing(embedded_search(entry.id, postgres)) as watching:
        for progress, mode in ((8, "fast"), (24, "immediate"), (40, "fast")):
            until(lambda progress=progress: len(watching.records()) >= progress)
            postgres_server.control("restart", mode)
        ended = [one for agent in working for one in agent.result()]
        # A trial whose handing out was in doubt is handed out anew; its first attempt has run nowhere.
        assert sorted(int(one.trial) for one in ended) == list(range(64))
        assert max(one.attempt for one in ended) <= 2
        assert {record.state for record in watching.records()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert entry.state == "finished"


def test_several_agents_may_create_the_first_sweep_of_a_storage_together(storage, settings):
    with ThreadPoolExecutor(4) as pool:
        sweep = parse_sweep(settings())
        list(pool.map(lambda number: create_sweep(sweep, sweep_id=f"s{number}", storage=storage), range(4)))
    assert sorted(sweep_ids(storage)) == ["s0", "s1", "s2", "s3"]
