"""Databases under many processes, and databases that go away, are held, or run out of disk."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import StorageError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.database import LOCK_TIMEOUT_S, Database, database_path, default_storage
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, list_sweeps, sweep_state
from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until

if TYPE_CHECKING:
    from tests.support.postgres import Server

CROWD = """
import os, sys, traceback
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.optuna_embedded import OptunaSearch

storage, folder, size = sys.argv[1], sys.argv[2], int(sys.argv[3])

def work(number):
    search = OptunaSearch("s", storage=storage)
    with open(f"{folder}/{number}", "w") as done:
        while request := search.next_trial("cpu/0"):
            for epoch in (1, 2):
                search.report(request.trial_id, epoch, {"val_loss": request.config.lr * epoch})
            search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
            print(request.trial_id, request.attempt, file=done, flush=True)
    search.close()

agents = []
for number in range(size):
    if (agent := os.fork()) == 0:
        try:
            work(number)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    agents.append(agent)
assert "torch" not in sys.modules
assert not any([os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]) for agent in agents])
"""
"""So many agents, each a process of its own, forked for the sake of time from one that has imported everything."""


class Crowd:
    """Agents at work on sweep `s`, and what each of them says it has finished."""

    def __init__(self, storage: str, folder: Path, size: int) -> None:
        self._folder = folder
        folder.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CROWD, storage, str(folder), str(size)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )

    def finished(self) -> list[tuple[int, int]]:
        """Trials and their attempts."""
        lines = [line for path in self._folder.iterdir() for line in path.read_text().splitlines() if " " in line]
        return [(int(trial), int(attempt)) for trial, attempt in (line.split() for line in lines)]

    def end(self) -> list[tuple[int, int]]:
        """Wait until all have ended well; gives what they finished."""
        _, said = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, said
        assert not said
        return self.finished()


def make_sweep(storage: str, run_cap: int) -> None:
    parameters = {"model": {"value": "simple_cnn"}, "lr": {"min": 0.001, "max": 0.1}}
    settings = {"method": "random", "metric": {"name": "val_loss"}, "run_cap": run_cap, "parameters": parameters}
    create_sweep(parse_sweep(settings), sweep_id="s", storage=storage)


def check_complete(storage: str, run_cap: int) -> None:
    assert sweep_state(storage, "s") == "finished"
    with closing(OptunaSearch("s", storage=storage)) as search:
        records = search.records()
    assert [record.trial_id for record in records] == [str(number) for number in range(run_cap)]
    assert {record.state for record in records} == {TrialState.COMPLETE}
    assert len({json.dumps(record.parameters) for record in records}) == run_cap
    database = Database(storage)
    with database.transaction(write=False) as connection:
        (counted,) = connection.rows("SELECT COUNT(*) AS reports FROM fersweep_reports")
    database.close()
    assert counted["reports"] == 2 * run_cap


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("postgres") if request.param == "postgres" else default_storage()


def test_32_agents_on_one_database_lose_and_double_nothing(storage: str, tmp_path: Path) -> None:
    make_sweep(storage, 128)
    finished = Crowd(storage, tmp_path / "crowd", 32).end()
    assert sorted(finished) == [(number, 1) for number in range(128)]
    check_complete(storage, 128)


def test_a_postgres_restarted_and_crashed_under_agents_ends_none_of_them(
    postgres: str, postgres_server: "Server", tmp_path: Path
) -> None:
    make_sweep(postgres, 240)
    crowd = Crowd(postgres, tmp_path / "crowd", 8)
    # One that finds no server when it starts says so and ends, which is not what this is about.
    until(lambda: len(list((tmp_path / "crowd").iterdir())) == 8)
    for progress, mode in ((30, "fast"), (90, "immediate"), (150, "fast")):
        until(lambda progress=progress: len(crowd.finished()) >= progress)
        postgres_server.control("restart", mode)
    finished = crowd.end()
    # One whose handing out was in doubt is handed out anew; its first attempt has run nowhere.
    assert sorted(trial for trial, _ in finished) == list(range(240))
    assert max(attempt for _, attempt in finished) <= 2
    check_complete(postgres, 240)


@pytest.mark.usefixtures("one_core")
def test_two_agents_started_at_once_work_on_through_a_restart_of_their_postgres(
    postgres: str, postgres_server: "Server", tiny_data: str, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "40").replace("run_cap: 1", "run_cap: 4"))
    created = fersweep("create", "sweep.yaml", "--storage", postgres, "--json")
    assert created.returncode == 0, created.stderr
    trials = tmp_path / ".fersweep" / "sweeps" / json.loads(created.stdout)["sweep"] / "trials"
    agents = [
        subprocess.Popen(
            [*COMMAND, "agent", "--gpus", "none", "--slots", "1", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    until(lambda: any(path.stat().st_size for path in trials.glob("*/history.jsonl")))
    postgres_server.control("restart")
    said = [agent.communicate(timeout=120) for agent in agents]
    # Where one was faster than the other, there is nothing left to do for that one.
    assert {agent.returncode for agent in agents} in ({0}, {0, 3}), said
    ended = [json.loads(out)["ended"] for (out, _), agent in zip(said, agents, strict=True) if agent.returncode == 0]
    assert sum(one.get("complete", 0) for one in ended) == 4
    assert {state for one in ended for state in one} == {"complete"}
    status = json.loads(fersweep("status", "--json").stdout)
    assert (status["state"], [trial["state"] for trial in status["trials"]]) == ("finished", ["complete"] * 4)
    assert not (tmp_path / ".fersweep" / "sweeps.db").exists()


@pytest.mark.usefixtures("one_core")
def test_ctrl_c_is_heard_while_a_stopped_postgres_is_waited_for(
    postgres: str, postgres_server: "Server", tiny_data: str, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "5000"))
    created = fersweep("create", "sweep.yaml", "--storage", postgres, "--json")
    assert created.returncode == 0, created.stderr
    trial = tmp_path / ".fersweep" / "sweeps" / json.loads(created.stdout)["sweep"] / "trials" / "0"
    words = [*COMMAND, "agent", "--gpus", "none", "--slots", "1"]
    agent = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert agent.stdout is not None
    family: set[int] = set()
    took = {}
    try:
        until(lambda: (trial / "history.jsonl").is_file() and (trial / "history.jsonl").stat().st_size > 0)
        family = descendants(agent.pid)
        postgres_server.control("stop")
        try:
            for said in ("no new trials; 1 running will finish", "writing checkpoints and stopping"):
                began = time.monotonic()
                agent.send_signal(signal.SIGINT)
                next(line for line in agent.stdout if said in line)
                took[said] = time.monotonic() - began
            began = time.monotonic()
            rest = agent.stdout.read()
            assert agent.wait(timeout=60) == 130, rest
            took["the end"] = time.monotonic() - began
        finally:
            postgres_server.control("start")
    finally:
        if agent.poll() is None:
            agent.kill()
            agent.wait()
        agent.stdout.close()
    # It takes a tenth of a second; a wait that nothing ends would take the best part of a minute.
    assert max(took.values()) < LOCK_TIMEOUT_S / 3, took
    assert "Traceback" not in rest
    assert "trial 0 could not be handed back" in rest
    assert (trial / "last.ckpt").is_file()
    until(lambda: not any(alive(pid) for pid in family))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as again:
        assert again.stdout is not None
        next(line for line in again.stdout if "trial 0 (attempt 2)" in line)
        again.terminate()
        rest = again.stdout.read()
    assert again.returncode == 130, rest


@pytest.fixture
def held() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the whole SQLite file, until it reads a line or is killed."""
    code = (
        "import sqlite3, sys\n"
        "raw = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "raw.execute('BEGIN EXCLUSIVE')\n"
        "raw.execute('DELETE FROM fersweep_trials')\n"
        "print('held', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    make_sweep(default_storage(), 2)
    words = [sys.executable, "-c", code, str(database_path(default_storage()))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process
        process.kill()


def test_a_file_that_another_process_holds_for_long_is_an_error_and_goes_on_after_it(
    held: subprocess.Popen[str],
) -> None:
    search = OptunaSearch("s", storage=default_storage())
    request = search.next_trial("cpu0")
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    search._database._engine._raw.execute("PRAGMA busy_timeout = 200")  # a minute otherwise
    began = time.monotonic()
    with pytest.raises(StorageError, match="locked") as caught:
        search.report(request.trial_id, 1, {"val_loss": 0.5})
    assert 0.2 <= time.monotonic() - began < 30
    assert "holds the database" in (caught.value.hint or "")
    assert search.records()[0].metrics == {}  # readers do not wait
    held.kill()
    held.wait()
    search.report(request.trial_id, 1, {"val_loss": 0.5})
    search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
    assert [(record.state, record.metrics) for record in search.records()] == [("complete", {"val_loss": 0.5})]
    search.close()
    check_integrity(database_path(default_storage()))


def check_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


SMALL_DISK = """
import sqlite3, sys
from contextlib import closing
from pathlib import Path
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import StorageError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, list_sweeps

disk = Path(sys.argv[1])
assert disk.is_mount()
path = disk / "sweeps.db"
sweep = parse_sweep({"method": "random", "parameters": {"model": {"value": "vit"}, "lr": {"min": 0.001, "max": 0.1}}})

def check_integrity():
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

create_sweep(sweep, sweep_id="s", storage=f"sqlite:///{path}")
search = OptunaSearch("s", storage=f"sqlite:///{path}")
request = search.next_trial("cpu0")
with open(disk / "filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(b"x" * 4096)
    except OSError:
        pass
written = 0
for call in (
    lambda: search.report(request.trial_id, written + 1, {f"metric_{n}": 0.5 for n in range(300)}),
    lambda: search.next_trial("cpu1"),
    lambda: create_sweep(sweep, sweep_id="t", storage=f"sqlite:///{path}"),
):
    try:
        while True:
            call()
            written += 1
    except StorageError as error:
        print(error, "--", error.hint)
    check_integrity()
assert [record.trial_id for record in search.records()][0] == "0"
(disk / "filler").unlink()
search.report(request.trial_id, 10_000, {"val_loss": 0.5})
search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
assert search.records()[0].state == "complete"
search.close()
create_sweep(sweep, sweep_id="t", storage=f"sqlite:///{path}")
assert [found.id for found in list_sweeps(f"sqlite:///{path}")] == ["s", "t"]
check_integrity()
"""


def test_a_disk_that_fills_up_under_the_database_damages_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs '{disk}'"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "sh", "-c", mount]).returncode != 0:
        pytest.skip("no file system can be mounted here: user namespaces are switched off")
    words = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", SMALL_DISK, str(disk)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 3
    assert all("sweeps.db: database or disk is full -- " in line and "make room" in line for line in said)


def test_a_postgres_whose_disk_is_full_says_so(postgres: str, postgres_server: "Server") -> None:
    make_sweep(postgres, 2)
    postgres_server.run("CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE disk_full; END$$")
    database = Database(postgres)
    with database.transaction(write=True) as connection:
        connection.change("CREATE TRIGGER full_up BEFORE INSERT ON fersweep_trials EXECUTE FUNCTION public.full_up()")
    search = OptunaSearch("s", storage=postgres)
    with pytest.raises(StorageError) as caught:
        search.next_trial("cpu0")
    assert "the server's disk is full" in (caught.value.hint or "")
    with database.transaction(write=True) as connection:
        connection.change("DROP TRIGGER full_up ON fersweep_trials")
    assert search.next_trial("cpu0").trial_id == "0"
    search.close()
    database.close()
    postgres_server.run("DROP FUNCTION full_up")


def test_a_file_deleted_under_an_agent_ends_it_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    make_sweep(default_storage(), 10_000)
    path = database_path(default_storage())
    (tmp_path / "kept").mkdir()
    crowd = Crowd(default_storage(), tmp_path / "crowd", 2)
    until(lambda: len(crowd.finished()) >= 3)
    for part in path.parent.glob("sweeps.db*"):
        part.rename(tmp_path / "kept" / part.name)
    with pytest.raises(AssertionError, match="has been removed or replaced while in use"):
        crowd.end()
    assert not path.exists()
    check_integrity(tmp_path / "kept" / "sweeps.db")
    storage = f"sqlite:///{tmp_path / 'kept' / 'sweeps.db'}"
    (summary,) = list_sweeps(storage)
    assert summary.trials >= len(crowd.finished())
