"""Sweeps at rest: ids, states, refusals, and databases that cannot be used. ``storage`` is one of each engine."""

import contextlib
import itertools
import sqlite3

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import InputError, StorageError
from fer_sweep.records import StopReason
from fer_sweep.search import tables
from fer_sweep.search.database import SCHEMA_VERSION, Database, database_path, default_storage
from fer_sweep.search.ledger import Ledger
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.sqlite import SqliteFile
from fer_sweep.search.storage import (
    SweepState,
    create_sweep,
    list_sweeps,
    load_sweep,
    set_sweep_state,
    sweep_state,
)


@pytest.fixture
def sweep(settings):
    return parse_sweep(settings(name="first try", run_cap=7))


def test_a_sweep_is_read_back_as_it_was_written(storage, sweep):
    create_sweep(sweep, sweep_id="a", storage=storage, max_gap=0.15, seed=3)
    create_sweep(sweep, sweep_id="b", storage=storage)
    assert load_sweep(storage, "a") == sweep
    first, second = list_sweeps(storage)
    assert (first.id, first.name, first.method, first.state, first.run_cap) == (
        "a",
        "first try",
        "random",
        "running",
        7,
    )
    assert (first.max_gap, first.seed, first.trials) == (0.15, 3, 0)
    assert (second.id, second.max_gap) == ("b", None)
    assert first.created <= second.created


def test_without_a_database_there_are_no_sweeps_and_none_is_made(own_folders):
    assert list_sweeps(default_storage()) == []
    with pytest.raises(InputError, match="no sweep has been created"):
        load_sweep(default_storage(), "a")
    assert not (own_folders / ".fersweep").exists()


def test_an_unknown_sweep_is_named_with_those_there_are(storage, sweep):
    create_sweep(sweep, sweep_id="known", storage=storage)
    for call in (
        lambda: load_sweep(storage, "other"),
        lambda: sweep_state(storage, "other"),
        lambda: set_sweep_state(storage, "other", "paused"),
        lambda: OptunaSearch("other", storage=storage),
    ):
        with pytest.raises(InputError, match="no sweep other") as caught:
            call()
        assert "known" in caught.value.hint


@pytest.mark.parametrize("sweep_id", ["", "../x", "a b", "-a", "a" * 65, "ä"])
def test_ids_that_cannot_be_folders_are_refused(storage, sweep, sweep_id):
    with pytest.raises(InputError, match="cannot name a sweep"):
        create_sweep(sweep, sweep_id=sweep_id, storage=storage)


def test_an_id_is_used_once(storage, sweep):
    create_sweep(sweep, sweep_id="a", storage=storage)
    with pytest.raises(InputError, match="already a sweep a"):
        create_sweep(sweep, sweep_id="a", storage=storage)


LEGAL = {
    ("running", "paused"),
    ("running", "stopped"),
    ("running", "cancelled"),
    ("paused", "running"),
    ("paused", "stopped"),
    ("paused", "cancelled"),
    ("stopped", "running"),
    ("stopped", "cancelled"),
}


@pytest.mark.parametrize(
    ("before", "after"), [*itertools.product(["running", "paused", "stopped", "cancelled"], repeat=2)]
)
def test_moves_between_states(storage, sweep, before, after):
    create_sweep(sweep, sweep_id="a", storage=storage)
    set_sweep_state(storage, "a", before)
    if before == after or (before, after) in LEGAL:
        set_sweep_state(storage, "a", SweepState(after))
        assert sweep_state(storage, "a") == after
    else:
        with pytest.raises(InputError, match=f"is {before} and cannot become {after}"):
            set_sweep_state(storage, "a", after)
        assert sweep_state(storage, "a") == before


def test_a_finished_sweep_is_final_unless_trials_still_run(storage, settings, complete):
    metric = {"name": "val_acc", "goal": "maximize", "target": 0.5}
    create_sweep(parse_sweep(settings(metric=metric)), sweep_id="a", storage=storage)
    search = OptunaSearch("a", storage=storage)
    request = search.next_trial("cpu/0")
    search.report(request.trial_id, 1, {"val_acc": 0.6})
    for wanted in ("running", "paused", "stopped"):
        with pytest.raises(InputError, match="is finished"):
            set_sweep_state(storage, "a", wanted)
    set_sweep_state(storage, "a", "cancelled")
    search.close()

    settled = parse_sweep(settings(method="grid", parameters={"model": {"value": "vit"}}))
    create_sweep(settled, sweep_id="b", storage=storage)
    search = OptunaSearch("b", storage=storage)
    search.finish(search.next_trial("cpu/0").trial_id, complete())
    assert search.next_trial("cpu/0") is None
    with pytest.raises(InputError, match="is finished and cannot become cancelled"):
        set_sweep_state(storage, "b", "cancelled")
    search.close()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"method": "bayes", "metric": None}, {}, "names none"),
        ({"method": "custom", "scheduler": {"engine": "ax"}}, {}, "needs a W&B server"),
        ({}, {"seed": -1}, "below 0"),
        (
            {"method": "custom", "metric": None, "metrics": [{"name": "val_acc"}, {"name": "train_val_gap"}]},
            {"max_gap": 0.1},
            "several",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_it_is_made(storage, settings, changes, options, message):
    sweep = parse_sweep(settings(**changes))
    with pytest.raises(InputError, match=message):
        create_sweep(sweep, sweep_id="a", storage=storage, **options)
    assert list_sweeps(storage) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/db",
        "mysql://me:secret@host/x",
        "sqlite:///",
        "me:secret@host",
        "secret",
        "x.db",
        "",
    ],
)
def test_other_storages_are_refused_without_showing_a_password(sweep, url):
    with pytest.raises(InputError) as caught:
        create_sweep(sweep, sweep_id="a", storage=url)
    assert "sqlite:///PATH" in caught.value.hint
    assert "secret" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("name", ["a b?c=1&d#e.db", "quote'\"%41.db", "ümlaut/deeper/x.db"])
def test_any_path_can_hold_a_database(sweep, own_folders, name):
    storage = f"sqlite:///{own_folders / name}"
    create_sweep(sweep, sweep_id="a", storage=storage)
    assert database_path(storage) == own_folders / name
    assert (own_folders / name).is_file()
    assert [found.id for found in list_sweeps(storage)] == ["a"]


def test_a_file_that_is_no_database_is_left_as_it_is(sweep, own_folders):
    path = own_folders / "notes.txt"
    path.write_text("these are notes, long enough to be read as a header of a database file. " * 20)
    before = path.read_bytes()
    for call in (
        lambda: create_sweep(sweep, sweep_id="a", storage=f"sqlite:///{path}"),
        lambda: list_sweeps(f"sqlite:///{path}"),
    ):
        with pytest.raises(StorageError, match=r"notes\.txt") as caught:
            call()
        assert "something else" in caught.value.hint
    assert path.read_bytes() == before


def test_a_database_with_nothing_of_ours_holds_no_sweeps(storage, sweep):
    create_sweep(sweep, sweep_id="a", storage=storage)
    database = Database(storage)
    with database.transaction(write=True) as connection:
        connection.change("CREATE TABLE things (x INTEGER)")
        for table in ("reports", "trials", "sweeps", "schema"):
            connection.change(f"DROP TABLE fersweep_{table}")
    database.close()
    assert list_sweeps(storage) == []
    with pytest.raises(InputError, match="no sweep has been created in") as caught:
        load_sweep(storage, "a")
    assert "--storage" in caught.value.hint
    create_sweep(sweep, sweep_id="b", storage=storage)
    assert [found.id for found in list_sweeps(storage)] == ["b"]


def set_version(storage, version):
    database = Database(storage)
    with database.transaction(write=True) as connection:
        connection.change("UPDATE fersweep_schema SET version = ?", [version])
    database.close()


def test_a_newer_schema_is_refused(storage, sweep):
    create_sweep(sweep, sweep_id="a", storage=storage)
    set_version(storage, SCHEMA_VERSION + 1)
    for call in (lambda: list_sweeps(storage), lambda: create_sweep(sweep, sweep_id="b", storage=storage)):
        with pytest.raises(StorageError, match="newer fersweep") as caught:
            call()
        assert "upgrade" in caught.value.hint


def test_an_older_schema_with_no_way_up_is_refused_and_left_as_it_is(storage, sweep):
    create_sweep(sweep, sweep_id="a", storage=storage)
    set_version(storage, 0)
    for call in (lambda: list_sweeps(storage), lambda: create_sweep(sweep, sweep_id="b", storage=storage)):
        with pytest.raises(StorageError, match="older fersweep") as caught:
            call()
        assert "the fersweep that wrote it" in caught.value.hint


def test_a_sweep_of_the_first_schema_is_brought_up_and_goes_on(storage, sweep, complete):
    create_sweep(sweep, sweep_id="a", storage=storage)
    database = Database(storage)
    with database.transaction(write=True) as connection:
        connection.change("ALTER TABLE fersweep_trials DROP COLUMN given_back")  # what schema 2 brought
    database.close()
    set_version(storage, 1)
    with contextlib.closing(OptunaSearch("a", storage=storage)) as search:
        request = search.next_trial("cpu0")
        search.finish(request.trial_id, complete())
        assert [record.state for record in search.records()] == ["complete"]
    database = Database(storage)
    with database.transaction(write=False) as connection:
        assert connection.row("SELECT version FROM fersweep_schema")["version"] == SCHEMA_VERSION
    database.close()


OLD = (
    "CREATE TABLE fersweep_schema (version INTEGER NOT NULL)",
    "INSERT INTO fersweep_schema (version) VALUES (0)",
    "CREATE TABLE fersweep_sweeps (id TEXT PRIMARY KEY, spec TEXT NOT NULL)",
    "INSERT INTO fersweep_sweeps (id, spec) VALUES ('a', '{}')",
)
"""A file as a fersweep before the first might have written it."""


def test_older_tables_are_brought_up_all_the_way_or_not_at_all(own_folders):
    path = own_folders / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as raw:
        for statement in OLD:
            raw.execute(statement)
        raw.commit()
    upgrades = {
        0: ["ALTER TABLE fersweep_sweeps ADD COLUMN created {real}", "UPDATE fersweep_sweeps SET created = 1.5"],
        1: ["CREATE TABLE fersweep_news (id {counted_key})"],
    }
    engine = SqliteFile(f"sqlite:///{path}", create=False, lock_timeout_s=1.0)
    broken = [*tables.way_up("old", 0, to=2, upgrades=upgrades), "NONSENSE"]
    with pytest.raises(StorageError), engine.transaction(write=True) as connection:
        tables.upgrade(connection, engine.dialect, broken, to=2)
    with engine.transaction(write=True) as connection:
        assert tables.schema_version(connection, engine.dialect) == 0
        tables.upgrade(connection, engine.dialect, tables.way_up("old", 0, to=2, upgrades=upgrades), to=2)
        assert tables.schema_version(connection, engine.dialect) == 2
        assert connection.row("SELECT created FROM fersweep_sweeps")["created"] == 1.5
    engine.close()
    with pytest.raises(StorageError, match="no way up from schema 1"):
        tables.way_up("old", 0, to=3, upgrades={0: (), 2: ()})


def test_a_folder_in_the_way_is_an_error_with_advice(sweep, own_folders):
    (own_folders / "sweeps.db").mkdir()
    with pytest.raises(StorageError, match=r"sweeps\.db") as caught:
        create_sweep(sweep, sweep_id="a", storage=f"sqlite:///{own_folders / 'sweeps.db'}")
    assert caught.value.hint
    (own_folders / "file").write_text("")
    with pytest.raises(StorageError):
        create_sweep(sweep, sweep_id="a", storage=f"sqlite:///{own_folders / 'file' / 'sweeps.db'}")


def test_a_lock_held_too_long_is_an_error_and_nothing_is_written(storage, sweep):
    create_sweep(sweep, sweep_id="a", storage=storage)
    blocker, waiter = Database(storage), Database(storage, lock_timeout_s=0.01)
    with blocker.transaction(write=True):
        with waiter.transaction(write=False) as connection:  # readers do not wait for a writer
            assert connection.row("SELECT id FROM fersweep_sweeps")["id"] == "a"
        with pytest.raises(StorageError, match="lock") as caught, waiter.transaction(write=True):
            raise AssertionError("the lock was not waited for")
        assert "holds the database" in caught.value.hint
    with waiter.transaction(write=True):
        pass
    blocker.close()
    waiter.close()


def test_a_transaction_that_fails_leaves_nothing(storage, sweep):
    create_sweep(sweep, sweep_id="a", storage=storage)
    database = Database(storage)
    with pytest.raises(ZeroDivisionError), database.transaction(write=True) as connection:
        connection.change("DELETE FROM fersweep_sweeps")
        raise ZeroDivisionError
    database.close()
    assert [found.id for found in list_sweeps(storage)] == ["a"]


def test_a_full_disk_is_an_error_with_advice_and_the_trial_can_be_finished_later(settings, complete):
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=default_storage())
    search = OptunaSearch("a", storage=default_storage())
    request = search.next_trial("cpu/0")
    raw = search._database._engine._raw
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.execute(f"PRAGMA max_page_count={pages}")  # SQLite then behaves as on a full disk
    with pytest.raises(StorageError, match="full") as caught:
        for epoch in range(1, 1000):
            search.report(request.trial_id, epoch, {f"metric_{n}": 0.5 for n in range(100)})
    assert "make room" in caught.value.hint
    raw.execute("PRAGMA max_page_count=1000000")
    search.finish(request.trial_id, complete())
    assert search.records()[0].state == "complete"
    search.close()


def test_a_database_that_cannot_be_written_is_an_error_with_advice(sweep):
    create_sweep(sweep, sweep_id="a", storage=default_storage())
    search = OptunaSearch("a", storage=default_storage())
    search._database._engine._raw.execute("PRAGMA query_only=ON")  # a file's mode would not stop root, who may run this
    with pytest.raises(StorageError, match="readonly") as caught:
        search.next_trial("cpu/0")
    assert "writable" in caught.value.hint
    search.close()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_database_that_vanishes_is_noticed(settings, own_folders, is_replaced):
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=default_storage())
    search = OptunaSearch("a", storage=default_storage())
    request = search.next_trial("cpu/0")
    path = database_path(default_storage())
    path.rename(own_folders / "moved.db")
    if is_replaced:
        create_sweep(parse_sweep(settings()), sweep_id="a", storage=default_storage())
    for call in (
        lambda: search.report(request.trial_id, 1, {"val_acc": 0.5}),
        lambda: search.next_trial("cpu/0"),
        search.records,
        search.close,
    ):
        with pytest.raises(StorageError, match="removed or replaced"):
            call()


def test_a_report_that_was_undone_hides_nobody_elses(storage, settings, monkeypatch):
    rule = {"type": "hyperband", "min_iter": 1, "eta": 3}
    create_sweep(parse_sweep(settings(early_terminate=rule)), sweep_id="a", storage=storage)
    search, other = OptunaSearch("a", storage=storage, owner="a"), OptunaSearch("a", storage=storage, owner="b")
    request, theirs = search.next_trial("cpu/0"), other.next_trial("cpu/0")

    def fail(ledger, *_):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="full"):
        patch.setattr(Ledger, "state", fail)  # what comes last in the transaction
        search.report(request.trial_id, 1, {"best_val_acc": 0.1})
    other.report(theirs.trial_id, 1, {"best_val_acc": 0.9})  # in SQLite, with the id of what was undone
    assert search.report(request.trial_id, 1, {"best_val_acc": 0.1}) is StopReason.PRUNED
    search.close()
    other.close()
