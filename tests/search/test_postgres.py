"""PostgreSQL's own: secrets, errors with advice, locks, silence, the server's clock and its limit of connections."""

import contextlib
import json
import re
import threading
import time
from urllib.parse import quote

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import StorageError
from fer_sweep.files import sweep_folder
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search import registry
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.database import Database
from fer_sweep.store.engine import ConnectionLost, Interrupted
from fer_sweep.store.sweeps import create_sweep, list_sweeps
from tests.support.processes import until

postgres_module = pytest.importorskip(
    "fer_sweep.store.postgres", reason="psycopg is not installed: pip install 'fersweep[postgres]'"
)

FILE = """\
program: fersweep
method: random
metric: {name: val_acc, goal: maximize}
parameters:
  model: {value: simple_cnn}
  lr: {min: 0.001, max: 0.1}
"""
WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def state_in(connection):
    return connection.row("SELECT state FROM fersweep_sweeps")["state"]


@pytest.fixture
def storage(postgres):
    return postgres


@pytest.fixture
def pair(made):
    """Two connections to it."""
    with contextlib.closing(Database(made)) as one, contextlib.closing(Database(made)) as other:
        yield one, other


@pytest.fixture
def locked(postgres_server):
    """The storage URL, less its password, of a database that wants one; the password is `p@ss/wörd`."""
    rules = postgres_server.folder / "pg_hba.conf"
    before = rules.read_text()
    postgres_server.run("CREATE ROLE worker LOGIN PASSWORD 'p@ss/wörd'")
    postgres_server.run("CREATE DATABASE locked OWNER worker")
    rules.write_text(f"local locked worker scram-sha-256\n{before}")
    postgres_server.control("reload")
    url = postgres_server.url("locked", user="worker")

    def is_refused():
        try:
            return list_sweeps(url) is None
        except StorageError:
            return True

    until(is_refused)  # the server reads its rules some time after it was told to
    yield url
    rules.write_text(before)
    postgres_server.control("reload")
    postgres_server.run("DROP DATABASE locked WITH (FORCE)")
    postgres_server.run("DROP ROLE worker")


def test_password_stays_in_memory_and_later_commands_say_how_to_give_it(locked, tmp_path, monkeypatch):
    (tmp_path / "sweep.yaml").write_text(FILE)
    notes = []
    url = locked.replace("worker@", f"worker:{quote('p@ss/wörd', safe='')}@")
    entry = registry.create(tmp_path / "sweep.yaml", storage=url, note=notes.append)
    assert any("PGPASSWORD" in note for note in notes)
    assert registry.state_of(entry) == "running"  # `fersweep run` uses it in the same process
    assert entry.storage == json.loads((sweep_folder(entry.id) / "sweep.json").read_text())["storage"] == locked
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not re.search("p(@|%40)ss", path.read_text())

    monkeypatch.setattr("fer_sweep.store.postgres_urls._given", {})  # as in the process of a later command
    for wrong in ({}, {"PGPASSWORD": "wr@ng"}):
        with monkeypatch.context() as patch, pytest.raises(StorageError) as refused:
            for name, value in wrong.items():
                patch.setenv(name, value)
            registry.state_of(entry)
        assert "give the password by PGPASSWORD or ~/.pgpass" in refused.value.hint
        assert not re.search("p@ss/|wr@ng", str(refused.value))
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", "p@ss/wörd")
        assert registry.state_of(entry) == "running"
    (tmp_path / "pgpass").write_text("*:*:locked:worker:p@ss/wörd\n")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    assert registry.state_of(entry) == "running"


def test_server_that_is_not_running_and_unknown_database_are_errors_at_once(postgres_server, tmp_path):
    with pytest.raises(StorageError, match="No such file") as caught:
        list_sweeps(f"postgresql+psycopg:///db?host={quote(str(tmp_path), safe='')}")
    assert "see that the server runs" in caught.value.hint
    with pytest.raises(StorageError, match="nowhere"):
        list_sweeps(postgres_server.url("nowhere"))


def test_user_without_the_right_to_create_tables_is_told_which_to_grant(postgres_server, settings):
    postgres_server.run("CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(StorageError, match="permission denied") as caught:
            create_sweep(parse_sweep(settings()), sweep_id="a", storage=postgres_server.url(user="guest"))
        assert "GRANT" in caught.value.hint
    finally:
        postgres_server.run("DROP ROLE guest")


def test_full_disk_of_the_server_is_an_error_and_the_search_continues_after_it(made, pair, agents, postgres_server):
    postgres_server.run("CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE disk_full; END$$")
    with pair[0].transaction(write=True) as connection:
        connection.change("CREATE TRIGGER full_up BEFORE INSERT ON fersweep_trials EXECUTE FUNCTION public.full_up()")
    search = agents(storage=made)
    with pytest.raises(StorageError) as caught:
        search.next_trial("cpu0")
    assert "the server's disk is full" in caught.value.hint
    with pair[0].transaction(write=True) as connection:
        connection.change("DROP TRIGGER full_up ON fersweep_trials")
    assert search.next_trial("cpu0").trial_id == "0"
    postgres_server.run("DROP FUNCTION full_up")


def test_reading_transaction_cannot_write(pair):
    with pytest.raises(StorageError, match="read-only"), pair[0].transaction(write=False) as connection:
        connection.change("DELETE FROM fersweep_sweeps")


def test_nul_character_is_stored_as_its_symbol(made, agents):
    search = agents(storage=made)
    failed = TrialOutcome(TrialState.FAILED, reason="last words: \0ü%?")
    search.finish(search.next_trial("cpu\0").trial_id, failed)
    assert search.records()[0].reason == "last words: \N{SYMBOL FOR NULL}ü%?"


def test_writer_that_waited_for_the_lock_sees_what_was_written_meanwhile(pair, postgres_server):
    holder, waiter = pair
    seen = []

    def wait():
        with waiter.transaction(write=True) as connection:
            seen.append(state_in(connection))

    thread = threading.Thread(target=wait)
    with holder.transaction(write=True) as connection:
        thread.start()
        until(lambda: bool(postgres_server.run(WAITING)))
        connection.change("UPDATE fersweep_sweeps SET state = 'paused'")
    thread.join()
    assert seen == ["paused"]


def test_wait_for_the_lock_can_be_interrupted_and_changes_nothing(made, pair, postgres_server, monkeypatch):
    monkeypatch.setattr(postgres_module, "_HURRY_S", 0.0)
    waiter = Database(made, end_waiting=lambda: bool(postgres_server.run(WAITING)))
    with pair[0].transaction(write=True) as connection:
        with pytest.raises(Interrupted), waiter.transaction(write=True) as never:
            never.change("DELETE FROM fersweep_sweeps")
        connection.change("UPDATE fersweep_sweeps SET state = 'paused'")
    with waiter.transaction(write=True) as connection:  # nothing holds the lock any more
        assert state_in(connection) == "paused"
    waiter.close()


def test_holder_of_the_lock_that_falls_silent_loses_it(pair, monkeypatch):
    holder, waiter = pair
    with contextlib.ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr(postgres_module, "SILENCE_S", 0.1)  # of the holder alone
            stack.enter_context(pytest.raises(ConnectionLost))
            holding = stack.enter_context(holder.transaction(write=True))
        holding.change("DELETE FROM fersweep_sweeps")
        with waiter.transaction(write=True) as connection:  # gets the lock although the holder never ends
            assert state_in(connection) == "running"
        holding.rows("SELECT id FROM fersweep_sweeps")


def test_leases_and_times_use_the_clock_of_the_server(made, agents, monkeypatch):
    right, hours = time.time, 3600.0
    ahead, usual = agents(storage=made, owner="ahead"), agents(storage=made, owner="usual")

    @contextlib.contextmanager
    def hours_ahead():
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: right() + 5 * hours)
            yield

    with hours_ahead():
        held = ahead.next_trial("cpu0")
        assert abs(ahead.records()[0].started_at - right()) < hours
    assert usual.next_trial("cpu0").trial_id != held.trial_id
    with usual._leases.ledger(write=False) as ledger:
        assert [row["lease_until"] < right() + hours for row in ledger.all()] == [True, True]
    with hours_ahead():
        assert ahead.next_trial("cpu1").trial_id not in (held.trial_id, "1"), "the other's lease has not expired"


def test_agent_without_a_free_connection_waits_for_one_or_says_what_to_do(postgres_server, settings, monkeypatch):
    postgres_server.run("CREATE ROLE single LOGIN CONNECTION LIMIT 1")
    postgres_server.run("CREATE DATABASE single OWNER single")
    url = postgres_server.url("single", user="single")
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=url)
    holder = Database(url)
    with pytest.raises(StorageError, match="too many connections") as caught:
        Database(url, lock_timeout_s=0.0)
    assert re.search("max_connections.*PgBouncer", caught.value.hint)
    with pytest.raises(Interrupted, match="too many connections"):
        Database(url, end_waiting=lambda: True)

    def pauses():
        yield 0.0
        holder.close()  # another agent ends while this one waits
        while True:
            yield 0.01

    monkeypatch.setattr(postgres_module, "_pauses", pauses)
    with contextlib.closing(OptunaSearch("a", storage=url)) as waiter:
        assert waiter.next_trial("cpu0").trial_id == "0"
    postgres_server.run("DROP DATABASE single WITH (FORCE)")
    postgres_server.run("DROP ROLE single")
