"""What is PostgreSQL's own: URLs and secrets, connections that break, locks, snapshots and the server's clock."""

import contextlib
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import InputError, StorageError
from fer_sweep.files import sweep_folder
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search import registry
from fer_sweep.search.database import Database, recorded
from fer_sweep.search.engine import ConnectionLost, Interrupted
from fer_sweep.search.ledger import Ledger
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, list_sweeps
from tests.support.processes import COMMAND, until

postgres_module = pytest.importorskip(
    "fer_sweep.search.postgres", reason="no psycopg: pip install 'fersweep[postgres]'"
)

PLACE = "postgresql+psycopg://"
FILE = """\
program: fersweep
method: random
metric: {name: val_acc, goal: maximize}
parameters:
  model: {value: simple_cnn}
  lr: {min: 0.001, max: 0.1}
"""
EVERYBODY_OUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fersweep'"


@pytest.fixture
def made(postgres, settings):
    """A storage with a sweep `a` in it."""
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=postgres)
    return postgres


# URLs and secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("me:secret@host/db", "me@host/db"),
        ("me:sec%40ret%2F@host:5433/db", "me@host:5433/db"),
        ("me:se?c#ret&=@host/db?sslmode=require", "me@host/db?sslmode=require"),
        ("me@host/db", "me@host/db"),
        ("host", "host"),
        ("", ""),
        ("/db?host=/run/postgresql&user=me&password=secret", "/db?host=/run/postgresql&user=me"),
        ("me@[::1]:5432,other:5433/db?sslpassword=secret", "me@[::1]:5432,other:5433/db"),
        ("?service=lab", "?service=lab"),
        ("me@%2Frun%2Fpg/db", "me@%2Frun%2Fpg/db"),
    ],
)
def test_a_url_is_written_down_without_its_secrets(url: str, shown: str) -> None:
    assert recorded(PLACE + url) == PLACE + shown
    assert recorded(recorded(PLACE + url)) == PLACE + shown


@pytest.mark.parametrize(
    "url",
    [
        "me:sec@ret@host/db",
        "me:sec/ret@host/db",
        "me:secret/x@host",
        "me:secret@host/db/secret",
        "me:secret@host/db?secret",
        "me:secret@host/db?secret=secret",
        "me:secret@host:port/db",
        "me:secret@host/d%zzb",
        "me:secret@host/d%00b",
        "me:secret%00@host/db",
        "me:secret\0@host/db",
    ],
)
def test_a_url_that_would_be_misread_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InputError, match="cannot be read") as caught:
        recorded(PLACE + url)
    assert "PGPASSWORD" in (caught.value.hint or "")
    assert not re.search("sec|ret@", str(caught.value) + (caught.value.hint or "").replace("PGPASSWORD", ""))


@given(password=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_no_password_gets_into_what_is_written_down(password: str) -> None:
    url = PLACE + "me:{}@host/db?application_name=x"
    assert recorded(url.format(quote(password, safe=""))) == PLACE + "me@host/db?application_name=x"
    marked = f"~{password}~"  # so that it cannot also stand elsewhere
    try:
        shown = recorded(url.format(marked))
    except InputError as error:
        shown = f"{error} {error.hint}"
    assert marked not in shown


@given(url=st.text() | st.text(alphabet="me:@/?&=%0,[]#host"))
def test_any_text_is_a_url_or_is_refused(url: str) -> None:
    with contextlib.suppress(InputError):
        shown = recorded(PLACE + url)
        assert recorded(shown) == shown


def test_without_psycopg_there_is_a_hint_and_sqlite_does_not_want_it(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(FILE)
    code = "import sys; sys.modules['psycopg'] = None; from fer_sweep.cli import main; main()"
    words = [sys.executable, "-c", code, "create", "sweep.yaml", "--search", "optuna"]
    done = subprocess.run([*words, "--storage", f"{PLACE}me:secret@host/db"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'fersweep[postgres]'" in done.stderr
    assert "secret" not in done.stderr
    assert subprocess.run(words, capture_output=True).returncode == 0


@pytest.fixture
def locked(postgres_server) -> Iterator[str]:
    """The storage URL, less its password, of a database that wants one; the password is `p@ss/wörd`."""
    rules = postgres_server.folder / "pg_hba.conf"
    before = rules.read_text()
    postgres_server.run("CREATE ROLE worker LOGIN PASSWORD 'p@ss/wörd'")
    postgres_server.run("CREATE DATABASE locked OWNER worker")
    rules.write_text(f"local locked worker scram-sha-256\n{before}")
    postgres_server.control("reload")
    yield postgres_server.url("locked", user="worker")
    rules.write_text(before)
    postgres_server.control("reload")
    postgres_server.run("DROP DATABASE locked WITH (FORCE)")
    postgres_server.run("DROP ROLE worker")


def test_a_password_stays_in_memory_and_later_commands_say_that_they_want_it(
    locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep.yaml").write_text(FILE)
    secret = quote("p@ss/wörd", safe="")
    notes: list[str] = []
    entry = registry.create(
        tmp_path / "sweep.yaml", storage=locked.replace("worker@", f"worker:{secret}@"), note=notes.append
    )
    assert entry.storage == locked
    assert any("PGPASSWORD" in note for note in notes)
    search = registry.open_search(entry)  # `fersweep run` goes on in the same process
    assert search.next_trial("cpu0") is not None
    search.close()
    assert json.loads((sweep_folder(entry.id) / "sweep.json").read_text())["storage"] == locked
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not re.search("p(@|%40)ss", path.read_text())

    def status(**environment: str) -> subprocess.CompletedProcess[str]:
        words = [*COMMAND, "status"]
        return subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=False)

    for wrong in ({}, {"PGPASSWORD": "wr@ng"}):
        refused = status(**wrong)
        assert refused.returncode == 1
        assert "hint: give the password by PGPASSWORD or ~/.pgpass" in refused.stderr
        assert not re.search("p@ss/|wr@ng|Traceback", refused.stderr)
    assert status(PGPASSWORD="p@ss/wörd").returncode == 0
    (tmp_path / "pgpass").write_text("*:*:locked:worker:p@ss/wörd\n")
    (tmp_path / "pgpass").chmod(0o600)
    assert status(PGPASSFILE=str(tmp_path / "pgpass")).returncode == 0


def test_the_environment_can_name_the_storage_of_every_new_sweep(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep.yaml").write_text(FILE)
    monkeypatch.setenv("FERSWEEP_STORAGE", made)
    entry = registry.create(tmp_path / "sweep.yaml")
    monkeypatch.delenv("FERSWEEP_STORAGE")
    assert registry.state_of(entry) == "running"
    assert [found.id for found in list_sweeps(made)] == ["a", entry.id]
    assert not (tmp_path / ".fersweep" / "sweeps.db").exists()


def test_a_server_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError, match="No such file") as caught:
        list_sweeps(f"{PLACE}/db?host={quote(str(tmp_path), safe='')}")
    assert time.monotonic() - began < 30
    assert "see that the server runs" in (caught.value.hint or "")


def test_a_database_that_is_not_there_is_named(postgres_server) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        list_sweeps(postgres_server.url("nowhere"))


def test_a_user_who_may_not_make_tables_is_told_so(postgres_server, settings) -> None:
    postgres_server.run("CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(StorageError, match="permission denied") as caught:
            create_sweep(parse_sweep(settings()), sweep_id="a", storage=postgres_server.url(user="guest"))
        assert "GRANT" in (caught.value.hint or "")
    finally:
        postgres_server.run("DROP ROLE guest")


def test_a_value_that_postgres_has_no_text_for_is_stored_all_the_same(made: str) -> None:
    search = OptunaSearch("a", storage=made)
    search.finish(search.next_trial("cpu\0").trial_id, TrialOutcome(TrialState.FAILED, reason="last words: \0ü%?"))
    assert search.records()[0].reason == "last words: \N{SYMBOL FOR NULL}ü%?"
    search.close()


# Connections that break


def test_a_connection_that_broke_while_idle_is_made_again(made: str, postgres_server) -> None:
    database = Database(made)
    for breaking in (lambda: postgres_server.run(EVERYBODY_OUT), lambda: postgres_server.control("restart")):
        for write in (False, True):
            breaking()
            with database.transaction(write=write) as connection:
                assert connection.row("SELECT id FROM fersweep_sweeps")["id"] == "a"
    database.close()


@pytest.mark.parametrize("write", [False, True])
def test_a_connection_that_breaks_within_a_transaction_leaves_nothing_of_it(
    made: str, postgres_server, write: bool
) -> None:
    database = Database(made)
    with pytest.raises(ConnectionLost, match="nothing has changed"), database.transaction(write=write) as connection:
        if write:
            connection.change("DELETE FROM fersweep_sweeps")
        postgres_server.run(EVERYBODY_OUT)
        connection.rows("SELECT id FROM fersweep_sweeps")
    with database.transaction(write=True) as connection:
        assert connection.row("SELECT id FROM fersweep_sweeps")["id"] == "a"
    database.close()


def test_an_error_of_the_callers_is_told_even_if_the_connection_broke_as_well(made: str, postgres_server) -> None:
    database = Database(made)
    with pytest.raises(ZeroDivisionError), database.transaction(write=True):
        postgres_server.run(EVERYBODY_OUT)
        raise ZeroDivisionError
    with database.transaction(write=True) as connection:
        assert connection.row("SELECT id FROM fersweep_sweeps")["id"] == "a"
    database.close()


def test_a_server_that_is_away_is_waited_for(made: str, postgres_server) -> None:
    search = OptunaSearch("a", storage=made)
    postgres_server.control("stop")
    taken = []
    agent = threading.Thread(target=lambda: taken.append(search.next_trial("cpu0")))
    agent.start()
    postgres_server.control("start")
    agent.join(timeout=60)
    assert [request.trial_id for request in taken] == ["0"]
    search.close()


def test_a_server_that_stays_away_is_an_error_and_can_still_come_back(made: str, postgres_server) -> None:
    database = Database(made, lock_timeout_s=0.3)
    postgres_server.control("stop")
    try:
        with pytest.raises(StorageError) as caught, database.transaction(write=True):
            raise AssertionError("there was no server")
        assert "see that the server runs" in (caught.value.hint or "")
    finally:
        postgres_server.control("start")
    with database.transaction(write=True) as connection:
        assert connection.row("SELECT id FROM fersweep_sweeps")["id"] == "a"
    database.close()


class Wire:
    """A socket that leads to the server, and breaks at the next COMMIT of what was written if it is told to."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.cut: str | None = None
        """``before`` the COMMIT gets through, or ``after`` the server has done it and before anybody hears of it."""
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
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
                            server.recv(65536)  # its word that it is done
                        return
                    (server if readable is client else client).sendall(data)


@pytest.fixture
def wire(postgres_server) -> Iterator[Wire]:
    folder = Path(tempfile.mkdtemp(prefix="fersweep-wire-"))  # short: a socket's path has at most 107 bytes
    with contextlib.closing(Wire(folder, postgres_server.socket_folder)) as made:
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def through_wire(made: str, wire: Wire, postgres_server) -> str:
    """The storage of sweep `a` by way of the wire."""
    folder = wire._listener.getsockname().rpartition("/")[0]
    return made.replace(quote(str(postgres_server.socket_folder), safe=""), quote(folder, safe=""))


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_trial_handed_out_as_the_connection_broke_is_neither_lost_nor_doubled(
    through_wire: str, wire: Wire, settings, complete, cut: str, method: str
) -> None:
    create_sweep(parse_sweep(settings(method=method, run_cap=2)), sweep_id="b", storage=through_wire)
    search = OptunaSearch("b", storage=through_wire)
    wire.cut = cut
    request = search.next_trial("cpu0")
    assert wire.cut is None
    # What the server had written is known again, and handed out as another attempt; nobody runs the first one.
    assert (request.trial_id, request.attempt) == ("0", 1 if cut == "before" else 2)
    second = search.next_trial("cpu1")
    assert (second.trial_id, second.attempt) == ("1", 1)
    assert search.next_trial("cpu2") is None
    for held in (request, second):
        search.report(held.trial_id, 1, {"best_val_acc": 0.5})
        search.finish(held.trial_id, complete())
    assert search.next_trial("cpu0") is None
    assert [record.state for record in search.records()] == [TrialState.COMPLETE] * 2
    search.close()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_trial_handed_out_to_an_agent_that_never_heard_of_it_is_free_once_that_one_closes(
    through_wire: str, wire: Wire, made: str, cut: str
) -> None:
    search, other = OptunaSearch("a", storage=through_wire), OptunaSearch("a", storage=made)
    wire.cut = cut
    with pytest.raises(ConnectionLost), search._leases.ledger() as ledger:
        search._start_new(ledger, "cpu0")
    search.close()
    taken = other.next_trial("cpu0")
    assert (taken.trial_id, taken.attempt) == ("0", 1 if cut == "before" else 2)
    other.close()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_run_of_a_wandb_server_begun_as_the_connection_broke_is_begun_once(
    through_wire: str, wire: Wire, harness_on, settings, complete, cut: str
) -> None:
    harness = harness_on("wandb", through_wire)
    search = harness.agent(harness.create(**settings(run_cap=1)), "a")
    wire.cut = cut
    request = search.next_trial("cpu0")
    assert wire.cut is None
    assert request.attempt == (1 if cut == "before" else 2)
    wire.cut = cut
    search.report(request.trial_id, 1, {"val_acc": 0.5})
    wire.cut = cut
    search.finish(request.trial_id, complete())
    assert wire.cut is None
    assert [(record.trial_id, record.state) for record in search.records()] == [(request.trial_id, "complete")]


@pytest.mark.parametrize("cut", ["before", "after"])
def test_reports_and_ends_said_as_the_connection_broke_are_there_once(
    through_wire: str, wire: Wire, complete, cut: str
) -> None:
    search = OptunaSearch("a", storage=through_wire)
    request = search.next_trial("cpu0")
    wire.cut = cut
    assert search.report(request.trial_id, 1, {"val_acc": 0.5}) is None
    assert wire.cut is None
    with search._leases.ledger(write=False) as ledger:
        assert ledger.reports_of(0) == [{"val_acc": 0.5}]
    wire.cut = cut
    search.finish(request.trial_id, complete(best_val_acc=0.6))
    assert wire.cut is None
    (record,) = search.records()
    assert (record.state, record.attempt, record.metrics["best_val_acc"]) == (TrialState.COMPLETE, 1, 0.6)
    search.close()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_sweep_created_as_the_connection_broke_is_said_to_be_uncertain(
    through_wire: str, wire: Wire, settings, cut: str
) -> None:
    wire.cut = cut
    with pytest.raises(StorageError, match="was being written") as caught:
        create_sweep(parse_sweep(settings()), sweep_id="b", storage=through_wire)
    assert "fersweep status" in (caught.value.hint or "")
    assert [found.id for found in list_sweeps(through_wire)] == (["a"] if cut == "before" else ["a", "b"])


# Locks, snapshots and time


def test_a_writer_that_waited_sees_what_was_written_meanwhile(made: str, postgres_server) -> None:
    holder, waiter = Database(made), Database(made)
    seen = []

    def wait() -> None:
        with waiter.transaction(write=True) as connection:
            seen.append(connection.row("SELECT state FROM fersweep_sweeps")["state"])

    thread = threading.Thread(target=wait)
    with holder.transaction(write=True) as connection:
        thread.start()
        until(lambda: bool(postgres_server.run("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")))
        connection.change("UPDATE fersweep_sweeps SET state = 'paused'")
    thread.join(timeout=60)
    assert seen == ["paused"]
    holder.close()
    waiter.close()


def test_a_wait_for_the_lock_can_be_ended_and_changes_nothing(made: str, postgres_server) -> None:
    hurried = threading.Event()
    holder, waiter = Database(made), Database(made, end_waiting=hurried.is_set)
    with holder.transaction(write=True) as connection:
        ending = threading.Thread(
            target=lambda: (
                until(lambda: bool(postgres_server.run("SELECT 1 FROM pg_locks WHERE NOT granted"))),
                hurried.set(),
            )
        )
        ending.start()
        with pytest.raises(Interrupted), waiter.transaction(write=True) as never:
            never.change("DELETE FROM fersweep_sweeps")
        ending.join()
        connection.change("UPDATE fersweep_sweeps SET state = 'paused'")
    with waiter.transaction(write=True) as connection:  # where nothing is to be waited for, there is time for it
        assert connection.row("SELECT state FROM fersweep_sweeps")["state"] == "paused"
    holder.close()
    waiter.close()


def test_a_reader_sees_one_moment_and_waits_for_nobody(made: str) -> None:
    reader, writer = Database(made), Database(made)
    with reader.transaction(write=False) as reading:
        before = reading.row("SELECT state FROM fersweep_sweeps")["state"]
        with writer.transaction(write=True) as writing:
            writing.change("UPDATE fersweep_sweeps SET state = 'paused'")
        assert reading.row("SELECT state FROM fersweep_sweeps")["state"] == before == "running"
    with reader.transaction(write=False) as reading:
        assert reading.row("SELECT state FROM fersweep_sweeps")["state"] == "paused"
    reader.close()
    writer.close()


def test_reading_changes_nothing(made: str) -> None:
    database = Database(made)
    with pytest.raises(StorageError, match="read-only"), database.transaction(write=False) as connection:
        connection.change("DELETE FROM fersweep_sweeps")
    database.close()


def test_a_holder_of_the_lock_that_falls_silent_is_given_up(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, waiter = Database(made), Database(made)
    monkeypatch.setattr(postgres_module, "SILENCE_S", 1.0)
    with pytest.raises(ConnectionLost), holder.transaction(write=True) as holding:
        holding.change("DELETE FROM fersweep_sweeps")
        with waiter.transaction(write=True) as connection:  # comes to its turn although the holder never ends
            assert connection.row("SELECT id FROM fersweep_sweeps")["id"] == "a"
        holding.rows("SELECT id FROM fersweep_sweeps")
    holder.close()
    waiter.close()


def test_leases_go_by_the_servers_clock(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time
    hours = 3600.0
    ahead = OptunaSearch("a", storage=made, owner="a host whose clock is hours ahead")
    usual = OptunaSearch("a", storage=made, owner="a host whose clock is right")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + 5 * hours)
        held = ahead.next_trial("cpu0")
        started = ahead.records()[0].started_at
    assert abs(started - right()) < hours
    assert usual.next_trial("cpu0").trial_id != held.trial_id
    with usual._leases.ledger(write=False) as ledger:
        assert [row["lease_until"] < right() + hours for row in ledger.all()] == [True, True]
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + 5 * hours)
        assert ahead.next_trial("cpu1").trial_id not in (held.trial_id, "1"), "the other's lease had not run out"
    ahead.close()
    usual.close()


def test_reports_come_in_the_order_of_their_ids(made: str) -> None:
    search, other = OptunaSearch("a", storage=made, owner="a"), OptunaSearch("a", storage=made, owner="b")
    trials = [(search, search.next_trial("cpu0").trial_id), (other, other.next_trial("cpu0").trial_id)]
    reader = Database(made)
    latest, seen = 0, []
    for epoch in range(1, 6):
        for agent, trial in trials:
            agent.report(trial, epoch, {"val_acc": 0.1 * epoch})
        with reader.transaction(write=False) as connection:
            news = Ledger(connection, "a").reports_after(latest)
        latest = news[-1]["id"]
        seen += [(row["number"], row["epoch"]) for row in news]
    assert seen == [(number, epoch) for epoch in range(1, 6) for number in (0, 1)]
    for database in (search, other, reader):
        database.close()


# A server that has no connection left


@pytest.fixture
def single(postgres_server) -> Iterator[str]:
    """The storage URL of a database that takes one connection at a time."""
    postgres_server.run("CREATE ROLE single LOGIN CONNECTION LIMIT 1")
    postgres_server.run("CREATE DATABASE single OWNER single")
    yield postgres_server.url("single", user="single")
    postgres_server.run("DROP DATABASE single")
    postgres_server.run("DROP ROLE single")


def test_an_agent_with_no_connection_left_says_what_to_do(single: str, settings) -> None:
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=single)
    with contextlib.closing(Database(single)):
        with pytest.raises(StorageError, match="too many connections") as caught:
            Database(single, lock_timeout_s=0.3)
        assert "max_connections" in (caught.value.hint or "")
        assert "PgBouncer" in (caught.value.hint or "")
        with pytest.raises(Interrupted, match="too many connections"):
            Database(single, end_waiting=lambda: True)


def test_an_agent_with_no_connection_left_waits_for_one(single: str, settings, monkeypatch: pytest.MonkeyPatch) -> None:
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=single)
    holder = Database(single)

    def pauses() -> Iterator[float]:
        yield 0.0
        holder.close()  # another agent ends while this one waits
        while True:
            yield 0.01

    monkeypatch.setattr(postgres_module, "_pauses", pauses)
    with contextlib.closing(OptunaSearch("a", storage=single)) as waiter:
        assert waiter.next_trial("cpu0").trial_id == "0"
