"""Connections to PostgreSQL that break: nothing is lost or doubled, and agents wait for a server that is away."""

import contextlib
import re
import select
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import StorageError
from fer_sweep.records import TrialState
from fer_sweep.search.database import Database
from fer_sweep.search.engine import ConnectionLost
from fer_sweep.search.ledger import Ledger
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, list_sweeps

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'fersweep[postgres]'")

END_CONNECTIONS = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'fersweep'"
"""And wait until they have ended, a minute at most."""


@pytest.fixture
def made(postgres, settings):
    """A storage with a sweep `a` in it."""
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=postgres)
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


def test_agent_waits_for_a_server_that_is_restarted(made, postgres_server):
    """The smoke test of a real restart; agents through several: test_many_processes.py."""
    search = OptunaSearch("a", storage=made)
    taken = []
    agent = threading.Thread(target=lambda: taken.append(search.next_trial("cpu0")))
    postgres_server.control("stop")
    try:
        agent.start()
    finally:
        postgres_server.control("start")
    agent.join()
    assert [request.trial_id for request in taken] == ["0"]
    search.close()


class Wire:
    """A socket that leads to the server; the connection through it breaks at the next COMMIT of a write if told to."""

    def __init__(self, server):
        self.cut = None
        """``before`` the COMMIT arrives, or ``after`` the server has done it and before its answer arrives."""
        self.folder = Path(tempfile.mkdtemp(prefix="fersweep-wire-"))  # short: a socket's path has at most 107 bytes
        self._server = server
        self.open()

    def open(self):
        """Listen."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self):
        """Refuse new connections until ``open``."""
        (self.folder / ".s.PGSQL.5432").unlink()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self):
        self.refuse()
        shutil.rmtree(self.folder)

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client):
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._server / ".s.PGSQL.5432"))
            is_writing = False
            while True:
                for readable in select.select([client, server], [], [])[0]:
                    data = readable.recv(65536)
                    if not data:
                        return
                    if readable is client:
                        is_writing |= re.search(b"INSERT |UPDATE |DELETE ", data) is not None
                        is_writing &= b"BEGIN" not in data
                    if readable is client and is_writing and self.cut and b"COMMIT\0" in data:
                        how, self.cut = self.cut, None
                        if how == "after":
                            server.sendall(data)
                            server.recv(65536)  # its answer
                        return
                    (server if readable is client else client).sendall(data)


@pytest.fixture
def wire(postgres_server):
    with contextlib.closing(Wire(postgres_server.socket_folder)) as made:
        yield made


@pytest.fixture
def through_wire(made, wire, postgres_server):
    """The storage of sweep `a` by way of the wire."""
    return made.replace(quote(str(postgres_server.socket_folder), safe=""), quote(str(wire.folder), safe=""))


def test_server_that_stays_away_is_an_error_and_can_still_come_back(through_wire, wire, postgres_server):
    database = Database(through_wire, lock_timeout_s=0.05)
    wire.refuse()
    postgres_server.run(END_CONNECTIONS)
    with pytest.raises(StorageError) as caught, database.transaction(write=True):
        raise AssertionError("there was no server")
    assert "see that the server runs" in caught.value.hint
    wire.open()
    check_works(database)
    database.close()


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize(("search", "method"), [("optuna", "random"), ("optuna", "bayes"), ("wandb", "random")])
def test_what_an_agent_says_as_the_connection_breaks_counts_once(
    made, through_wire, wire, harness_on, settings, complete, search, method, cut
):
    harness = harness_on(search, through_wire)
    sweep = harness.create(**settings(method=method, run_cap=2))
    agent = harness.agent(sweep, "a")
    wire.cut = cut
    first = agent.next_trial("cpu0")
    assert wire.cut is None
    # A trial that the server had stored is recognised and handed out as another attempt; the first one runs nowhere.
    assert first.attempt == (1 if cut == "before" else 2)
    second = agent.next_trial("cpu1")
    assert second.attempt == 1
    wire.cut = cut
    assert agent.report(first.trial_id, 1, {"best_val_acc": 0.5}) is None
    assert wire.cut is None
    with contextlib.closing(Database(made)) as database, database.transaction(write=False) as connection:
        assert Ledger(connection, sweep).reports_of(0) == [{"best_val_acc": 0.5}]
    wire.cut = cut
    agent.finish(first.trial_id, complete())
    assert wire.cut is None
    agent.finish(second.trial_id, complete())
    assert agent.next_trial("cpu0") is None
    found = [(record.trial_id, record.state) for record in agent.records()]
    assert found == [(trial.trial_id, TrialState.COMPLETE) for trial in (first, second)]


@pytest.mark.parametrize("cut", ["before", "after"])
def test_creating_a_sweep_as_the_connection_breaks_is_reported_as_uncertain(through_wire, wire, settings, cut):
    wire.cut = cut
    with pytest.raises(StorageError, match="was being written") as caught:
        create_sweep(parse_sweep(settings()), sweep_id="b", storage=through_wire)
    assert "fersweep status" in caught.value.hint
    assert [found.id for found in list_sweeps(through_wire)] == (["a"] if cut == "before" else ["a", "b"])
