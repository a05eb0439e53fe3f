"""PostgreSQL's own: secrets, errors with advice, locks, the server's clock, and connections that break."""

import contextlib
import os
import re
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import StorageError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.embedded import create_sweep
from fer_sweep.store import engine
from fer_sweep.store.database import Database
from fer_sweep.store.engine import ConnectionLost, Interrupted
from fer_sweep.store.trials import Ledger
from tests.search.conftest import refused
from tests.support.processes import until
from tests.support.searches import create, sweep_ids

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'fersweep[postgres]'")

WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
END_CONNECTIONS = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'fersweep'"
"""And wait until they have ended, a minute at most."""


def state_in(connection):
    return connection.row("SELECT state FROM fersweep_sweeps")["state"]


@pytest.fixture
def storage(postgres):
    return postgres


@pytest.fixture
def pair(made):
    """Two connections to a database that holds sweep `a`."""
    with contextlib.closing(Database(made)) as one, contextlib.closing(Database(made)) as other:
        yield one, other


def test_password_stays_in_memory_and_later_commands_say_how_to_give_it(postgres, sweep_file, tmp_path, monkeypatch):
    notes = []
    url = postgres.replace("postgres@", "postgres:p%40ss@")
    entry = create(sweep_file(), storage=url, note=notes.append)
    assert any("PGPASSWORD" in note for note in notes)
    entry.close()
    assert entry.entry.storage == postgres
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not re.search("p(@|%40)ss", path.read_text())

    class Refused(psycopg.OperationalError):
        pgconn = SimpleNamespace(needs_password=True)

    def connect(target, **options):
        assert psycopg.conninfo.conninfo_to_dict(target)["password"] == "p@ss"  # this process was given it
        raise Refused("no password supplied")

    monkeypatch.setattr(psycopg.Connection, "connect", connect)
    with refused(StorageError, "no password", hint="give the password by PGPASSWORD or ~/.pgpass"):
        _ = entry.state


def test_server_that_cannot_be_reached_is_an_error_at_once_with_what_to_do(postgres_server, tmp_path):
    with refused(StorageError, "No such file", hint="see that the server runs"):
        sweep_ids(f"postgresql+psycopg:///db?host={quote(str(tmp_path), safe='')}")
    with pytest.raises(StorageError, match="nowhere"):
        sweep_ids(postgres_server.url("nowhere"))


def test_error_of_the_server_says_what_to_do_and_changes_nothing(pair):
    hints = {"disk_full": "make room", "insufficient_privilege": "GRANT", "read_only_sql_transaction": "to read from"}
    for condition, hint in hints.items():
        with refused(StorageError, condition, hint=hint), pair[0].transaction(write=True) as connection:
            connection.change("DELETE FROM fersweep_sweeps")
            connection.change(f"DO $$BEGIN RAISE {condition}; END$$")
        with pair[0].transaction(write=True) as connection:
            assert state_in(connection) == "running"


def test_nul_character_is_stored_as_its_symbol(made, agents):
    search = agents(storage=made)
    failed = TrialOutcome(TrialState.FAILED, reason="last words: \0ü%?")
    search.finish(search.next_trial("cpu\0").trial_id, failed)
    assert search.records()[0].reason == "last words: \N{SYMBOL FOR NULL}ü%?"


def test_leases_and_times_use_the_clock_of_the_server(made, agents, monkeypatch):
    right, hours = time.time, 3600.0
    ahead, usual = agents(storage=made, owner="ahead"), agents(storage=made, owner="usual")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + 5 * hours)
        held = ahead.next_trial("cpu0").trial_id
        assert abs(ahead.records()[0].started_at - right()) < hours
    assert usual.next_trial("cpu0").trial_id != held
    with usual._leases.ledger(write=False) as ledger:
        assert [row["lease_until"] < right() + hours for row in ledger.all()] == [True, True]
    monkeypatch.setattr(time, "time", lambda: right() + 5 * hours)
    assert ahead.next_trial("cpu1").trial_id not in (held, "1"), "the other's lease has not expired"


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
    monkeypatch.setattr("fer_sweep.store.postgres._HURRY_S", 0.0)
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
            patch.setattr("fer_sweep.store.postgres.SILENCE_S", 0.1)  # of the holder alone
            stack.enter_context(pytest.raises(ConnectionLost))
            holding = stack.enter_context(holder.transaction(write=True))
        holding.change("DELETE FROM fersweep_sweeps")
        with waiter.transaction(write=True) as connection:  # gets the lock although the holder never ends
            assert state_in(connection) == "running"
        holding.rows("SELECT id FROM fersweep_sweeps")


def test_transactions_leave_nothing_in_their_session_so_that_pgbouncer_may_stand_between(pair, postgres_server):
    settings = "current_setting('lock_timeout') a, current_setting('idle_in_transaction_session_timeout') b"
    for _ in range(10):  # psycopg would prepare what it runs for the sixth time
        with pair[0].transaction(write=True) as connection:
            connection.change("UPDATE fersweep_sweeps SET state = ? WHERE id = ?", ["paused", "a"])
    with pair[0].transaction(write=False) as connection:
        assert connection.rows("SELECT name FROM pg_prepared_statements") == []
        assert connection.row(f"SELECT {settings}") == {"a": "0", "b": "0"}
    assert postgres_server.run("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []


@pytest.mark.parametrize("write", [False, True])
def test_connection_that_breaks_is_made_again_and_a_transaction_leaves_nothing(pair, postgres_server, write):
    def check_works(write):
        with pair[0].transaction(write=write) as connection:
            assert connection.row("SELECT id FROM fersweep_sweeps")["id"] == "a"

    postgres_server.run(END_CONNECTIONS)
    check_works(write)
    with pytest.raises(ConnectionLost, match="nothing has changed"), pair[0].transaction(write=write) as connection:
        if write:
            connection.change("DELETE FROM fersweep_sweeps")
        postgres_server.run(END_CONNECTIONS)
        connection.rows("SELECT id FROM fersweep_sweeps")
    check_works(write=True)
    with pytest.raises(ZeroDivisionError), pair[0].transaction(write=write):  # an error of the caller's comes first
        postgres_server.run(END_CONNECTIONS)
        raise ZeroDivisionError
    check_works(write=True)


def test_connection_that_cannot_be_had_is_waited_for_but_not_for_ever(postgres_server, monkeypatch):
    """A real restart is in test_many_processes.py."""

    def in_the_first_pause(act):
        def pauses():
            yield 0.0
            act()
            while True:
                yield 0.01

        monkeypatch.setattr("fer_sweep.store.postgres._pauses", pauses)

    postgres_server.run("CREATE ROLE few LOGIN CONNECTION LIMIT 2")
    postgres_server.run("CREATE DATABASE few OWNER few")
    url = postgres_server.url("few", user="few")
    holder, hasty = Database(url, create=True), Database(url)
    with monkeypatch.context() as patch, refused(StorageError, "too many connections", hint="connections.*PgBouncer"):
        patch.setattr(engine, "LOCK_TIMEOUT_S", 0.0)
        Database(url)
    with pytest.raises(Interrupted, match="too many connections"):
        Database(url, end_waiting=lambda: True)
    in_the_first_pause(holder.close)  # another agent ends while this one waits
    patient = Database(url)

    postgres_server.run("ALTER DATABASE few ALLOW_CONNECTIONS false")
    postgres_server.run(END_CONNECTIONS)
    with monkeypatch.context() as patch, refused(StorageError, hint="see that the server runs"):
        patch.setattr(engine, "LOCK_TIMEOUT_S", 0.05)
        with hasty.transaction(write=True):
            raise AssertionError("there was no server")
    in_the_first_pause(lambda: postgres_server.run("ALTER DATABASE few ALLOW_CONNECTIONS true"))
    for database in (patient, hasty):
        with database.transaction(write=True) as connection:
            assert connection.rows("SELECT id FROM fersweep_sweeps") == []
        database.close()
    postgres_server.run("DROP DATABASE few WITH (FORCE)")
    postgres_server.run("DROP ROLE few")


def test_a_first_connection_that_a_restarting_server_drops_is_tried_again(postgres, monkeypatch):
    real = parse_qs(urlsplit(postgres).query)["host"][0]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder, ".s.PGSQL.5432")
        listener.bind(str(path))
        listener.listen()

        def drop():
            accepted, _ = listener.accept()
            accepted.recv(1)
            accepted.close()
            path.unlink()
            path.symlink_to(Path(real, path.name))  # from here on, the server itself

        dropping = threading.Thread(target=drop)
        dropping.start()

        def pauses():
            dropping.join()
            while True:
                yield 0.0

        monkeypatch.setattr("fer_sweep.store.postgres._pauses", pauses)
        url = postgres.replace(quote(real, safe=""), quote(folder, safe=""))
        with contextlib.closing(Database(url, create=True)) as database, database.transaction(write=False) as found:
            assert found.rows("SELECT id FROM fersweep_sweeps") == []


@pytest.fixture
def break_at_commit(monkeypatch):
    """Has the connection break at the COMMIT of the next change, before or after the server does it."""
    plain = psycopg.Connection.execute
    pending, changes = [], []

    def execute(connection, query, *args, **options):
        if query.startswith("BEGIN"):
            changes.clear()
        elif query.startswith(("INSERT", "UPDATE", "DELETE")):
            changes.append(query)
        elif query == "COMMIT" and changes and pending:
            if pending.pop() == "after":
                plain(connection, query)
            with socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
        return plain(connection, query, *args, **options)

    def arm(when):
        assert not pending, "the last transaction did not break"
        pending.append(when)

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    yield arm
    assert not pending


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["random", "bayes"])
@pytest.mark.parametrize("harness", [("optuna", "postgres"), ("wandb", "postgres")], indirect=True)
def test_what_an_agent_says_as_the_connection_breaks_counts_once(
    harness, break_at_commit, settings, complete, method, when
):
    sweep = harness.create(**settings(method=method, run_cap=2))
    agent = harness.agent(sweep, "a")
    break_at_commit(when)
    first = agent.next_trial("cpu0")
    # A trial that the server had stored is recognised and handed out as another attempt; the first one runs nowhere.
    assert first.attempt == (1 if when == "before" else 2)
    second = agent.next_trial("cpu1")
    assert second.attempt == 1
    break_at_commit(when)
    assert agent.report(first.trial_id, 1, {"best_val_acc": 0.5}) is None
    with contextlib.closing(Database(harness.storage)) as database, database.transaction(write=False) as connection:
        assert Ledger(connection, sweep).reports_of(0) == [{"best_val_acc": 0.5}]
    break_at_commit(when)
    agent.finish(first.trial_id, complete())
    agent.finish(second.trial_id, complete())
    assert agent.next_trial("cpu0") is None
    found = [(record.trial_id, record.state) for record in agent.records()]
    assert found == [(trial.trial_id, TrialState.COMPLETE) for trial in (first, second)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_creating_a_sweep_as_the_connection_breaks_is_reported_as_uncertain(made, break_at_commit, settings, when):
    break_at_commit(when)
    with refused(StorageError, "was being written", hint="fersweep status"):
        create_sweep(parse_sweep(settings()), sweep_id="b", storage=made)
    assert sweep_ids(made) == (["a"] if when == "before" else ["a", "b"])
