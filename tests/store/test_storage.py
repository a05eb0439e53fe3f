"""Sweeps at rest: states, refusals, transactions, and databases that cannot be used."""

import contextlib
import itertools
import shutil
from functools import partial

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import InputError, StorageError
from fer_sweep.records import StopReason
from fer_sweep.search.embedded import create_sweep
from fer_sweep.store import engine
from fer_sweep.store.database import SCHEMA_VERSION, Database, database_path, default_storage
from fer_sweep.store.queue import Picked, Prior
from fer_sweep.store.trials import Ledger, ledger_of
from tests.search.conftest import refused
from tests.support.searches import database_at, embedded_search, read_only, state_in, steer, sweep_ids


@pytest.fixture
def sweep(settings):
    return parse_sweep(settings(name="first try", run_cap=7))


@pytest.fixture
def own(sweep):
    """The SQLite file of this home, with a sweep `a` in it."""
    create_sweep(sweep, sweep_id="a", storage=default_storage())
    return default_storage()


def load(storage, sweep_id):
    with ledger_of(database_at(storage), sweep_id) as ledger:
        return ledger.settings()


@contextlib.contextmanager
def writing(storage):
    with contextlib.closing(Database(storage)) as database, database.transaction(write=True) as connection:
        yield connection


def state_seen(connection):
    return connection.row("SELECT state FROM fersweep_sweeps")["state"]


def test_sweep_is_read_back_as_it_was_written_and_before_it_there_is_none(storage, sweep, own_folders):
    assert sweep_ids(storage) == []
    assert list(own_folders.rglob("*.db")) == []
    with refused(InputError, "no sweep has been created in", hint="give the storage"):
        load(storage, "a")
    create_sweep(sweep, sweep_id="a", storage=storage, max_gap=0.15, seed=3)
    create_sweep(sweep, sweep_id="b", storage=storage)
    first, second = load(storage, "a"), load(storage, "b")
    assert first.file == second.file == sweep
    assert sweep_ids(storage) == ["a", "b"]
    assert [(found.max_gap, found.seed) for found in (first, second)] == [(0.15, 3), (None, 0)]
    assert state_in(storage, "a") == "running"


def test_unknown_sweep_is_refused_with_the_known_ones(made):
    for act in (load, state_in, lambda storage, other: steer(storage, other, "paused")):
        with refused(InputError, "no sweep other", hint="the newest there: a"):
            act(made, "other")


@pytest.mark.parametrize(
    ("before", "illegal"),
    [("running", ()), ("paused", ()), ("stopped", ("paused",)), ("cancelled", ("running", "paused", "stopped"))],
)
def test_moves_between_states(sweep, before, illegal):
    for after in ("running", "paused", "stopped", "cancelled"):
        create_sweep(sweep, sweep_id=after, storage=default_storage())
        steer(default_storage(), after, before)
        error = pytest.raises(InputError, match=f"is {before} and cannot become {after}")
        with error if after in illegal else contextlib.nullcontext():
            steer(default_storage(), after, after)
        assert state_in(default_storage(), after) == (before if after in illegal else after)


def test_finished_sweep_can_only_be_cancelled_and_only_while_trials_run(own, agents, settings, complete):
    metric = {"name": "val_acc", "goal": "maximize", "target": 0.5}
    for sweep_id in ("b", "c"):
        create_sweep(parse_sweep(settings(metric=metric)), sweep_id=sweep_id, storage=own)
        search = agents(sweep_id)
        trial = search.next_trial("cpu/0").trial_id
        search.report(trial, 1, {"val_acc": 0.6})
        for wanted in ("running", "paused", "stopped"):
            with pytest.raises(InputError, match="is finished"):
                steer(own, sweep_id, wanted)
    steer(own, "b", "cancelled")
    search.finish(trial, complete())
    with pytest.raises(InputError, match="is finished and cannot become cancelled"):
        steer(own, "c", "cancelled")


def test_what_cannot_be_searched_is_refused_before_it_is_created(settings):
    two = {"method": "custom", "metric": None, "metrics": [{"name": "val_acc"}, {"name": "val_loss"}]}
    for changes, options, message in (
        ({"method": "bayes", "metric": None}, {}, "names none"),
        ({"method": "custom", "scheduler": {"engine": "ax"}}, {}, "needs a W&B server"),
        ({}, {"seed": -1}, "below 0"),
        (two, {"max_gap": 0.1}, "max_gap constrains"),
        ({}, {"storage": "postgresql://me:p@ss@host/db"}, "not a database"),
        ({}, {"storage": "me:p@ss@host"}, "not a database"),
        ({}, {"storage": "sqlite:///"}, "not a database"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            create_sweep(parse_sweep(settings(**changes)), **{"sweep_id": "a", "storage": default_storage(), **options})
        assert caught.value.hint and "p@ss" not in str(caught.value)
    assert sweep_ids(default_storage()) == []


def test_newer_schema_is_refused(made, sweep):
    with writing(made) as connection:
        connection.change(f"UPDATE fersweep_schema SET version = {SCHEMA_VERSION + 1}")
    for act in (sweep_ids, lambda storage: create_sweep(sweep, sweep_id="b", storage=storage)):
        with refused(StorageError, "newer fersweep", hint="upgrade"):
            act(made)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_database_of_an_earlier_schema_is_read_as_it_is_and_upgraded_by_the_first_writer(
    made, agents, complete, version, settings
):
    bayes = settings(method="bayes", metric={"name": "val_acc", "goal": "maximize"})
    create_sweep(parse_sweep(bayes), sweep_id="b", storage=made)
    with writing(made) as connection:
        if version == 1:
            connection.change("ALTER TABLE fersweep_trials DROP COLUMN given_back")
        for column in ("sampler", "until_converged", "budget_epochs", "steered")[: 2 if version == 3 else 4]:
            connection.change(f"ALTER TABLE fersweep_sweeps DROP COLUMN {column}")
        for table in ("queue", "priors") if version < 3 else ():
            connection.change(f"DROP TABLE fersweep_{table}")
        for column in ("source", "is_alike", "curves") if version == 3 else ():
            connection.change(f"ALTER TABLE fersweep_priors DROP COLUMN {column}")
        priors = [Prior(Picked(parse_trial({"model": "vit"}), {}), [0.5], 0.1)] if version == 3 else []
        for prior in priors:
            connection.change(
                "INSERT INTO fersweep_priors (sweep_id, config, parameters, objectives, gap) VALUES (?, ?, ?, ?, ?)",
                ["a", prior.picked.config.model_dump_json(), "{}", "[0.5]", 0.1],
            )
        connection.change("DROP INDEX fersweep_trials_unended")
        unended = "ON fersweep_trials (sweep_id, number) WHERE state IN ('running', 'preempted')"
        connection.change(f"CREATE INDEX fersweep_trials_unended {unended}")
        connection.change(f"UPDATE fersweep_schema SET version = {version}")

    def found(database):
        with database.transaction(write=False) as connection:
            ledger = Ledger(connection, "a")
            version = connection.row("SELECT version FROM fersweep_schema")["version"]
            settings, samplers = ledger.settings(), [Ledger(connection, name).settings().sampler for name in ("a", "b")]
            return version, settings.budget_epochs, samplers, ledger.queue(), ledger.priors(), ledger.paused()

    reader, search = database_at(made), agents(storage=made)
    assert found(reader) == (version, None, [None, "tpe"], [], priors, [])
    search.finish(search.next_trial("cpu0").trial_id, complete())
    assert [record.state for record in search.records()] == ["complete"]
    assert found(reader) == (SCHEMA_VERSION, None, [None, "tpe"], [], priors, [])
    assert found(database_at(made)) == (SCHEMA_VERSION, None, [None, "tpe"], [], priors, [])
    with reader.transaction(write=True) as connection:  # it has seen the earlier schema, and upgrades nothing twice
        Ledger(connection, "a").finish_sweep()


def test_writer_waits_for_the_lock_only_so_long_and_a_reader_sees_one_moment_at_once(made, monkeypatch):
    monkeypatch.setattr(engine, "LOCK_TIMEOUT_S", 0.01)
    with contextlib.closing(Database(made)) as reader, contextlib.closing(Database(made)) as other:
        with reader.transaction(write=False) as reading:
            assert state_seen(reading) == "running"
            with writing(made) as holding:
                holding.change("UPDATE fersweep_sweeps SET state = 'paused'")
                with other.transaction(write=False) as late:
                    assert state_seen(late) == "running"
                with refused(StorageError, "lock", hint="holds the database"), other.transaction(write=True):
                    raise AssertionError("the lock was not waited for")
            assert state_seen(reading) == "running"
        with other.transaction(write=True) as connection:
            assert state_seen(connection) == "paused"


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


def test_file_that_is_no_database_is_left_as_it_is(sweep, own_folders):
    notes, folder = own_folders / "notes", own_folders / "folder"
    notes.write_text(text := "these are notes, long enough for a database's header " * 20)
    folder.mkdir()
    for path, hint in ((notes, "something else"), (folder, "writable"), (notes / "below", "writable")):
        with refused(StorageError, path.name, hint=hint):
            create_sweep(sweep, sweep_id="a", storage=f"sqlite:///{path}")
    assert notes.read_text() == text


def test_full_disk_and_a_read_only_file_are_errors_that_change_nothing(own):
    full, read_only = ("max_page_count = 1", "full", "make room"), ("query_only = ON", "read-only", "writable")
    for pragma, message, hint in (full, read_only):
        with contextlib.closing(Database(own)) as database:
            with database.transaction(write=False) as connection:
                connection.change(f"PRAGMA {pragma}")  # SQLite then behaves as on such a disk
            with refused(StorageError, message, hint=hint), database.transaction(write=True) as connection:
                connection.change("UPDATE fersweep_sweeps SET state = 'paused', spec = ?", ["x" * 1_000_000])
            with database.transaction(write=False) as connection:
                assert state_seen(connection) == "running"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_removed_or_replaced_database_is_an_error_and_keeps_its_trials(own, sweep, own_folders, is_replaced):
    search = embedded_search("a", own)
    request = search.next_trial("cpu/0")
    for part in database_path(own).parent.glob("sweeps.db*"):
        part.rename(own_folders / part.name)
    if is_replaced:
        create_sweep(sweep, sweep_id="a", storage=own)
    report = partial(search.report, request.trial_id, 1, {"val_acc": 0.5})
    for call in (report, partial(search.next_trial, "cpu/0"), search.records, search.close):
        with pytest.raises(StorageError, match="removed or replaced"):
            call()
    assert len(embedded_search("a", f"sqlite:///{own_folders / 'sweeps.db'}").records()) == 1


def test_a_read_only_home_is_read_with_its_log_and_follows_an_agent_that_writes_elsewhere(own, tmp_path):
    there, here = database_path(own), tmp_path / "mounted" / "sweeps.db"
    here.parent.mkdir()
    read_only(here)
    other = database_at(own)  # while it is open, what it commits stays in the log

    def mount():
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{there}{suffix}", f"{here}{suffix}")

    seen = []
    for state in ("stopped", "running"):
        with other.transaction(write=True) as connection:
            connection.change("UPDATE fersweep_sweeps SET state = ?", [state])
        mount()
        if not seen:
            database = database_at(f"sqlite:///{here}")
        with database.transaction(write=False) as connection:
            seen.append(state_seen(connection))
    assert seen == ["stopped", "running"]
    assert sorted(path.name for path in here.parent.iterdir()) == ["sweeps.db", "sweeps.db-shm", "sweeps.db-wal"]
    with refused(StorageError, "read-only", hint="writable"), database.transaction(write=True):
        pass


def test_a_file_that_changes_whenever_it_is_copied_is_not_read(own, monkeypatch):
    read_only(database_path(own))
    moments = itertools.count()
    monkeypatch.setattr("fer_sweep.store.sqlite._version", lambda path: ((next(moments), 0),))
    with refused(StorageError, "changes while it is read", hint="again"):
        Database(own)
