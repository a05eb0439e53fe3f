"""Sweeps at rest: ids, states, refusals, and databases that cannot be used; ``storage`` is one of each engine."""

import contextlib
import itertools
import os
import sys

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import InputError, StorageError
from fer_sweep.records import StopReason
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store import sqlite
from fer_sweep.store.database import SCHEMA_VERSION, Database, database_path, default_storage
from fer_sweep.store.sweeps import SweepState, create_sweep, list_sweeps, load_sweep, set_sweep_state, sweep_state
from fer_sweep.store.trials import Ledger


@pytest.fixture
def sweep(settings):
    return parse_sweep(settings(name="first try", run_cap=7))


@pytest.fixture
def own(sweep):
    """The same in the SQLite file of this home."""
    create_sweep(sweep, sweep_id="a", storage=default_storage())
    return default_storage()


def change(storage, *statements):
    with contextlib.closing(Database(storage)) as database, database.transaction(write=True) as connection:
        for statement in statements:
            connection.change(statement)


def state_in(connection):
    return connection.row("SELECT state FROM fersweep_sweeps")["state"]


def test_sweep_is_read_back_as_it_was_written(storage, sweep):
    create_sweep(sweep, sweep_id="a", storage=storage, max_gap=0.15, seed=3)
    create_sweep(sweep, sweep_id="b", storage=storage)
    assert load_sweep(storage, "a") == sweep
    first, second = list_sweeps(storage)
    assert (first.id, first.name, first.method, first.state) == ("a", "first try", "random", "running")
    assert (first.run_cap, first.max_gap, first.seed, first.trials) == (7, 0.15, 3, 0)
    assert (second.id, second.max_gap) == ("b", None)
    assert first.created <= second.created


def test_without_a_database_there_are_no_sweeps_and_none_is_created(own_folders):
    assert list_sweeps(default_storage()) == []
    with pytest.raises(InputError, match="no sweep has been created"):
        load_sweep(default_storage(), "a")
    assert not (own_folders / ".fersweep").exists()


def test_unknown_sweep_is_refused_with_the_known_ones(made):
    for call in (
        lambda: load_sweep(made, "other"),
        lambda: sweep_state(made, "other"),
        lambda: set_sweep_state(made, "other", "paused"),
        lambda: OptunaSearch("other", storage=made),
    ):
        with pytest.raises(InputError, match="no sweep other") as caught:
            call()
        assert "the newest there: a" in caught.value.hint


@pytest.mark.parametrize("sweep_id", ["", "../x", "a b", "-a", "a" * 65, "ä"])
def test_id_that_cannot_name_a_folder_is_refused(sweep, sweep_id):
    with pytest.raises(InputError, match="cannot name a sweep"):
        create_sweep(sweep, sweep_id=sweep_id, storage=default_storage())


def test_id_is_used_once(made, sweep):
    with pytest.raises(InputError, match="already a sweep a"):
        create_sweep(sweep, sweep_id="a", storage=made)


STATES = ["running", "paused", "stopped", "cancelled"]
LEGAL = {
    "running": STATES,
    "paused": STATES,
    "stopped": ["stopped", "running", "cancelled"],
    "cancelled": ["cancelled"],
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, repeat=2)))
def test_moves_between_states(own, before, after):
    set_sweep_state(own, "a", before)
    if after in LEGAL[before]:
        set_sweep_state(own, "a", SweepState(after))
        assert sweep_state(own, "a") == after
    else:
        with pytest.raises(InputError, match=f"is {before} and cannot become {after}"):
            set_sweep_state(own, "a", after)
        assert sweep_state(own, "a") == before


def test_finished_sweep_can_only_be_cancelled_and_only_while_trials_run(own, agents, settings, complete):
    metric = {"name": "val_acc", "goal": "maximize", "target": 0.5}
    create_sweep(parse_sweep(settings(metric=metric)), sweep_id="b", storage=own)
    search = agents("b")
    search.report(search.next_trial("cpu/0").trial_id, 1, {"val_acc": 0.6})
    for wanted in ("running", "paused", "stopped"):
        with pytest.raises(InputError, match="is finished"):
            set_sweep_state(own, "b", wanted)
    set_sweep_state(own, "b", "cancelled")

    single = parse_sweep(settings(method="grid", parameters={"model": {"value": "vit"}}))
    create_sweep(single, sweep_id="c", storage=own)
    search = agents("c")
    search.finish(search.next_trial("cpu/0").trial_id, complete())
    assert search.next_trial("cpu/0") is None
    with pytest.raises(InputError, match="is finished and cannot become cancelled"):
        set_sweep_state(own, "c", "cancelled")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"method": "bayes", "metric": None}, {}, "names none"),
        ({"method": "custom", "scheduler": {"engine": "ax"}}, {}, "needs a W&B server"),
        ({}, {"seed": -1}, "below 0"),
        (
            {"method": "custom", "metric": None, "metrics": [{"name": "val_acc"}, {"name": "train_val_gap"}]},
            {"max_gap": 0.1},
            "--max-gap constrains a sweep with one objective",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_it_is_created(settings, changes, options, message):
    with pytest.raises(InputError, match=message):
        create_sweep(parse_sweep(settings(**changes)), sweep_id="a", storage=default_storage(), **options)
    assert list_sweeps(default_storage()) == []


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@host/db", "mysql://me:secret@host/x", "sqlite:///", "me:secret@host", "x.db", ""]
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


# Schemas


def test_database_without_our_tables_holds_no_sweeps(made, sweep):
    tables_of_ours = ("reports", "trials", "sweeps", "schema")
    change(made, "CREATE TABLE things (x INTEGER)", *(f"DROP TABLE fersweep_{name}" for name in tables_of_ours))
    assert list_sweeps(made) == []
    with pytest.raises(InputError, match="no sweep has been created in") as caught:
        load_sweep(made, "a")
    assert "--storage" in caught.value.hint
    create_sweep(sweep, sweep_id="b", storage=made)
    assert [found.id for found in list_sweeps(made)] == ["b"]


@pytest.mark.parametrize(
    ("version", "message", "hint"),
    [(SCHEMA_VERSION + 1, "newer fersweep", "upgrade"), (0, "older fersweep", "the fersweep that wrote it")],
)
def test_schema_that_is_newer_or_too_old_is_refused(made, sweep, version, message, hint):
    change(made, f"UPDATE fersweep_schema SET version = {version}")
    for call in (lambda: list_sweeps(made), lambda: create_sweep(sweep, sweep_id="b", storage=made)):
        with pytest.raises(StorageError, match=message) as caught:
            call()
        assert hint in caught.value.hint


def test_sweep_of_the_first_schema_is_upgraded_and_continues(made, agents, complete):
    # What the second schema added.
    change(made, "ALTER TABLE fersweep_trials DROP COLUMN given_back", "UPDATE fersweep_schema SET version = 1")
    search = agents(storage=made)
    search.finish(search.next_trial("cpu0").trial_id, complete())
    assert [record.state for record in search.records()] == ["complete"]
    with contextlib.closing(Database(made)) as database, database.transaction(write=False) as connection:
        assert connection.row("SELECT version FROM fersweep_schema")["version"] == SCHEMA_VERSION


# Transactions


def test_writer_waits_for_the_lock_only_so_long_and_readers_do_not_wait(made):
    with contextlib.closing(Database(made)) as holder, contextlib.closing(Database(made, lock_timeout_s=0.01)) as other:
        with holder.transaction(write=True) as holding:
            holding.change("UPDATE fersweep_sweeps SET state = 'paused'")
            with other.transaction(write=False) as reading:
                assert state_in(reading) == "running"
            with pytest.raises(StorageError, match="lock") as caught, other.transaction(write=True):
                raise AssertionError("the lock was not waited for")
            assert "holds the database: end it" in caught.value.hint
        with other.transaction(write=True) as writing:
            assert state_in(writing) == "paused"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which process holds a lock")
def test_hint_names_the_process_that_holds_a_locked_file_and_says_if_it_is_paused(own, monkeypatch):
    waiter = Database(own, lock_timeout_s=0.01)
    with contextlib.closing(Database(own)) as holder, holder.transaction(write=True):
        for paused, hint in ((False, "holds the database: end it"), (True, f"kill -CONT {os.getpid()}")):
            monkeypatch.setattr(sqlite, "is_paused", lambda pid, paused=paused: paused)
            with pytest.raises(StorageError, match="locked") as caught, waiter.transaction(write=True):
                pass
            assert caught.value.hint.startswith(f"process {os.getpid()} holds the database")
            assert hint in caught.value.hint
    waiter.close()


def test_reader_sees_one_moment(made):
    with contextlib.closing(Database(made)) as reader:
        with reader.transaction(write=False) as reading:
            assert state_in(reading) == "running"
            set_sweep_state(made, "a", "paused")
            assert state_in(reading) == "running"
        with reader.transaction(write=False) as reading:
            assert state_in(reading) == "paused"


def test_failed_transaction_leaves_nothing(made):
    database = Database(made)
    with pytest.raises(ZeroDivisionError), database.transaction(write=True) as connection:
        connection.change("DELETE FROM fersweep_sweeps")
        raise ZeroDivisionError
    database.close()
    assert [found.id for found in list_sweeps(made)] == ["a"]


def test_report_whose_transaction_failed_does_not_hide_that_of_another_agent(storage, agents, settings, monkeypatch):
    rule = {"type": "hyperband", "min_iter": 1, "eta": 3}
    create_sweep(parse_sweep(settings(early_terminate=rule)), sweep_id="a", storage=storage)
    search, other = agents(storage=storage, owner="a"), agents(storage=storage, owner="b")
    request, theirs = search.next_trial("cpu/0"), other.next_trial("cpu/0")

    def fail(ledger, *_):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="full"):
        patch.setattr(Ledger, "state", fail)  # the last step of the transaction
        search.report(request.trial_id, 1, {"best_val_acc": 0.1})
    other.report(theirs.trial_id, 1, {"best_val_acc": 0.9})  # in SQLite, with the id of the report that failed
    assert search.report(request.trial_id, 1, {"best_val_acc": 0.1}) is StopReason.PRUNED


# Files that cannot be used


def test_file_that_is_no_database_is_left_as_it_is(sweep, own_folders):
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


def test_folder_in_place_of_the_file_or_file_in_place_of_the_folder_is_an_error(sweep, own_folders):
    (own_folders / "sweeps.db").mkdir()
    (own_folders / "file").write_text("")
    for path in (own_folders / "sweeps.db", own_folders / "file" / "sweeps.db"):
        with pytest.raises(StorageError, match=r"sweeps\.db") as caught:
            create_sweep(sweep, sweep_id="a", storage=f"sqlite:///{path}")
        assert caught.value.hint


def test_full_disk_is_an_error_and_the_trial_can_be_finished_once_there_is_room(own, agents, complete):
    search = agents()
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


def test_database_that_cannot_be_written_is_an_error(own, agents):
    search = agents()
    search._database._engine._raw.execute("PRAGMA query_only=ON")  # a file's mode would not stop root
    with pytest.raises(StorageError, match="readonly") as caught:
        search.next_trial("cpu/0")
    assert "writable" in caught.value.hint


@pytest.mark.parametrize("is_replaced", [False, True])
def test_removed_or_replaced_database_is_an_error_and_keeps_its_trials(own, sweep, own_folders, is_replaced):
    search = OptunaSearch("a", storage=own)
    request = search.next_trial("cpu/0")
    for part in database_path(own).parent.glob("sweeps.db*"):
        part.rename(own_folders / part.name)
    if is_replaced:
        create_sweep(sweep, sweep_id="a", storage=own)
    for call in (
        lambda: search.report(request.trial_id, 1, {"val_acc": 0.5}),
        lambda: search.next_trial("cpu/0"),
        search.records,
        search.close,
    ):
        with pytest.raises(StorageError, match="removed or replaced"):
            call()
    assert [found.trials for found in list_sweeps(f"sqlite:///{own_folders / 'sweeps.db'}")] == [1]
