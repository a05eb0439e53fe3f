"""Connections to PostgreSQL that break: nothing is lost or doubled, and agents wait for a server that is away."""

import contextlib
import os
import socket
import threading

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import StorageError
from fer_sweep.records import TrialState
from fer_sweep.store.database import Database
from fer_sweep.store.engine import ConnectionLost
from fer_sweep.store.sweeps import create_sweep, list_sweeps
from fer_sweep.store.trials import Ledger

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'fersweep[postgres]'")

END_CONNECTIONS = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'fersweep'"
"""And wait until they have ended, a minute at most."""


@pytest.fixture
def storage(postgres):
    return postgres


@pytest.fixture
def database(made):
    with contextlib.closing(Database(made)) as database:
        yield database


def check_works(database, *, write=True):
    with database.transaction(write=write) as connection:
        assert connection.row("SELECT id FROM fersweep_sweeps")["id"] == "a"


@pytest.mark.parametrize("write", [False, True])
def test_connection_that_broke_while_idle_is_made_again(database, postgres_server, write):
    postgres_server.run(END_CONNECTIONS)
    check_works(database, write=write)


@pytest.mark.parametrize("write", [False, True])
def test_connection_that_breaks_within_a_transaction_leaves_nothing_of_it(database, postgres_server, write):
    with pytest.raises(ConnectionLost, match="nothing has changed"), database.transaction(write=write) as connection:
        if write:
            connection.change("DELETE FROM fersweep_sweeps")
        postgres_server.run(END_CONNECTIONS)
        connection.rows("SELECT id FROM fersweep_sweeps")
    check_works(database)


def test_error_of_the_caller_is_raised_even_if_the_connection_broke_as_well(database, postgres_server):
    with pytest.raises(ZeroDivisionError), database.transaction(write=True):
        postgres_server.run(END_CONNECTIONS)
        raise ZeroDivisionError
    check_works(database)


def test_agent_waits_for_a_server_that_is_restarted(made, agents, postgres_server):
    """The smoke test of a real restart; agents through several: test_many_processes.py."""
    search, taken = agents(storage=made), []
    agent = threading.Thread(target=lambda: taken.append(search.next_trial("cpu0")))
    postgres_server.control("stop")
    try:
        agent.start()
    finally:
        postgres_server.control("start")
    agent.join()
    assert [request.trial_id for request in taken] == ["0"]


def test_server_that_stays_away_is_an_error_and_can_still_come_back(postgres_server, settings):
    postgres_server.run("CREATE DATABASE away")
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=postgres_server.url("away"))
    with contextlib.closing(Database(postgres_server.url("away"), lock_timeout_s=0.05)) as database:
        postgres_server.run("ALTER DATABASE away ALLOW_CONNECTIONS false")
        postgres_server.run(END_CONNECTIONS)
        with pytest.raises(StorageError) as caught, database.transaction(write=True):
            raise AssertionError("there was no server")
        assert "see that the server runs" in caught.value.hint
        postgres_server.run("ALTER DATABASE away ALLOW_CONNECTIONS true")
        check_works(database)
    postgres_server.run("DROP DATABASE away WITH (FORCE)")


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
@pytest.mark.parametrize(("search", "method"), [("optuna", "random"), ("optuna", "bayes"), ("wandb", "random")])
def test_what_an_agent_says_as_the_connection_breaks_counts_once(
    made, break_at_commit, harness_on, settings, complete, search, method, when
):
    harness = harness_on(search, made)
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
    with contextlib.closing(Database(made)) as database, database.transaction(write=False) as connection:
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
    with pytest.raises(StorageError, match="was being written") as caught:
        create_sweep(parse_sweep(settings()), sweep_id="b", storage=made)
    assert "fersweep status" in caught.value.hint
    assert [found.id for found in list_sweeps(made)] == (["a"] if when == "before" else ["a", "b"])
