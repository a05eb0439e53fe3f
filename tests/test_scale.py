"""The scale benchmark runs whole, and finds what is wrong with a sweep that it checks."""

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from fer_sweep.search.entries import SweepEntry

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.database import Database, default_storage
from fer_sweep.store.sweeps import create_sweep
from tests.benchmarks.scale.command import table
from tests.benchmarks.scale.crowd import Work, work_through
from tests.benchmarks.scale.measure import EPOCHS, Setting, check, measure

if TYPE_CHECKING:
    from tests.support.postgres import Server

TRIALS = 6


@pytest.mark.process
@pytest.mark.parametrize(
    "setting",
    [Setting(4, 12), Setting(3, 12, "bayes", hyperband=True)],
    ids=["random", "bayes"],
)
def test_small_crowd_works_a_sweep_through(postgres_server: "Server", setting: Setting) -> None:
    point = measure(postgres_server, setting)
    assert point.connections == setting.agents
    assert point.per_s > 0 and point.client_ms > 0
    assert point.next_trial and point.report and point.finish
    assert f"| {setting.agents} | {setting.trials} |" in table([point])


@pytest.fixture
def worked() -> tuple[SweepEntry, Work]:
    """A sweep that one agent has worked through, and what it did."""
    parameters = {"model": {"value": "simple_cnn"}, "lr": {"min": 0.001, "max": 0.1}}
    spec = {"method": "random", "metric": {"name": "val_loss"}, "run_cap": TRIALS, "parameters": parameters}
    create_sweep(parse_sweep(spec), sweep_id="s", storage=default_storage())
    work = Work()
    with closing(OptunaSearch("s", storage=default_storage())) as search:
        work_through(search, EPOCHS, work)
    return SweepEntry("s", "optuna", None, None, 0.0), work


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("DELETE FROM fersweep_trials WHERE number = 3", r"trials \[3\] are lost"),
        ("UPDATE fersweep_trials SET state = 'running' WHERE number = 3", "trial 3 is running, not complete"),
        ("UPDATE fersweep_trials SET attempt = 2 WHERE number = 3", "trial 3 was begun 2 times and finished 1"),
        (
            "UPDATE fersweep_trials SET parameters = (SELECT parameters FROM fersweep_trials WHERE number = 1)"
            " WHERE number = 3",
            "a configuration is doubled",
        ),
        ("DELETE FROM fersweep_reports WHERE number = 3 AND epoch = 2", r"trial 3 has not the 3 epochs .*: \[1, 3\]"),
        ("UPDATE fersweep_reports SET number = 99 WHERE number = 5", r"trials \{99\} have a history and no record"),
        ("UPDATE fersweep_sweeps SET state = 'stopped'", "the sweep is stopped, not finished"),
    ],
)
def test_fault_in_the_database_is_found(worked: tuple[SweepEntry, Work], sql: str, fault: str) -> None:
    entry, work = worked
    check(entry, Setting(1, TRIALS), [work])
    with closing(Database(entry.database)) as database, database.transaction(write=True) as connection:
        connection.change(sql)
    with pytest.raises(SystemExit, match=fault):
        check(entry, Setting(1, TRIALS), [work])


def test_fault_in_what_agents_did_is_found(worked: tuple[SweepEntry, Work]) -> None:
    entry, work = worked
    work.finished.append(("3", 1))
    work.pruned.append("3")
    with pytest.raises(SystemExit, match=r"trial 3 is complete, not pruned\n.*begun 1 times and finished 2"):
        check(entry, Setting(1, TRIALS), [work])
