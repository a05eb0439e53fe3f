"""One point: so many agents work through a sweep of so many trials on a PostgreSQL of their own."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from fer_sweep.search import registry
from fer_sweep.search.database import Database
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.ledger import Ledger
from fer_sweep.search.optuna_embedded import OptunaSearch
from tests.benchmarks.commands import REPOSITORY, SWEEPS
from tests.benchmarks.scale.checks import Histories, faults
from tests.benchmarks.scale.crowd import Order, Work, worth

if TYPE_CHECKING:
    from tests.support.postgres import Server

EPOCHS = 3
LOOK_EVERY_S = 0.25
SERVER = ("max_connections = 400",)
"""Otherwise as PostgreSQL comes."""


@dataclass(frozen=True)
class Setting:
    """What is varied."""

    agents: int
    trials: int
    method: str = "random"
    hyperband: bool = False
    asks: int = 0
    """See ``Order``; then there is a trial for each agent."""
    durable: bool = False
    """Whether each commit waits for the disk."""


@dataclass(frozen=True)
class Times:
    """Of one call, as the agents waited; milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times | None":
        """Those of measured times; None if there are none."""
        if not seconds:
            return None
        p50, p99 = np.quantile(seconds, [0.5, 0.99])
        return cls(1000 * float(p50), 1000 * float(p99))


@dataclass(frozen=True)
class Point:
    """What was measured."""

    setting: Setting
    seconds: float
    per_s: float
    """Trials a second; or questions, of agents that only ask."""
    share: float
    """Of the machine's processor time that agents and PostgreSQL got; the rest went to other work, or was idle."""
    next_trial: Times | None
    report: Times | None
    finish: Times | None
    ask: Times | None
    late_next_trial: Times | None
    """Of the last tenth of the trials alone."""
    connections: int
    """At most at once, of the agents."""
    waiting: float
    """How many of the agents waited for the lock of writers, on average."""
    client_ms: float
    """Processor time of an agent a trial; or a question."""
    server_ms: float
    """The same of PostgreSQL's."""
    private_mb: float
    """Memory of an agent that it shares with no other; the median."""
    pruned: int


@contextmanager
def server(*, durable: bool = False) -> "Iterator[Server]":
    """A PostgreSQL that takes 256 agents; unless it is durable, it waits for no disk, which then is not measured."""
    from tests.support.postgres import Server  # only here: the other rows are measured where no PostgreSQL is

    with closing(Server(*SERVER, f"fsync = {'on' if durable else 'off'}")) as started:
        yield started


def measure(postgres: "Server", setting: Setting) -> Point:
    """Measure one point.

    Raises:
        SystemExit: An agent failed, or the sweep is not whole.
    """
    with postgres.empty() as url, tempfile.TemporaryDirectory() as folder, _home(Path(folder)):
        entry = _create(Path(folder), url, setting)
        seconds, works, watch = _run(postgres, Path(folder), entry, setting)
        if not setting.asks:
            check(entry, setting, works)
    done = sum(len(work.ask) if setting.asks else len(work.finished) for work in works)
    client_s = sum(work.cpu_s for work in works)
    proposals = sorted(proposal for work in works for proposal in work.next_trial)
    return Point(
        setting=setting,
        seconds=seconds,
        per_s=done / seconds,
        share=(client_s + watch.server_s) / seconds / (os.cpu_count() or 1),
        next_trial=Times.of([took for _, took in proposals]),
        report=Times.of([took for work in works for took in work.report]),
        finish=Times.of([took for work in works for took in work.finish]),
        ask=Times.of([took for work in works for took in work.ask]),
        late_next_trial=Times.of([took for _, took in proposals[-max(1, len(proposals) // 10) :]]),
        connections=max(watch.connections),
        waiting=statistics.fmean(watch.waiting),
        client_ms=1000 * client_s / done,
        server_ms=1000 * watch.server_s / done,
        private_mb=statistics.median(work.private_mb for work in works),
        pruned=sum(len(work.pruned) for work in works),
    )


def check(entry: SweepEntry, setting: Setting, works: Sequence[Work]) -> None:
    """See that the sweep is whole.

    Raises:
        SystemExit: It is not; with what is wrong.
    """
    with closing(OptunaSearch(entry.id, storage=entry.database)) as search:
        records = search.records()
    found = faults(
        records,
        histories(entry),
        trials=setting.trials,
        epochs=EPOCHS,
        finished=[(trial, attempt) for work in works for trial, attempt in work.finished],
        pruned={trial for work in works for trial in work.pruned},
        reported=worth,
    )
    if (state := registry.state_of(entry)) != "finished":
        found.append(f"the sweep is {state}, not finished")
    if found:
        raise SystemExit(f"{setting}: {len(found)} faults\n" + "\n".join(found[:20]))


def histories(entry: SweepEntry) -> Histories:
    """All that the database has of a sweep's epochs, in the order of epochs."""
    with closing(Database(entry.database)) as database, database.transaction(write=False) as connection:
        found: dict[int, list[tuple[int, dict[str, float]]]] = {}
        for row in Ledger(connection, entry.id).reports_after(0):
            found.setdefault(row["number"], []).append((row["epoch"], json.loads(row["metrics"])))
    return {number: sorted(history, key=lambda report: report[0]) for number, history in found.items()}


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    before = os.environ.get("FERSWEEP_HOME")
    os.environ["FERSWEEP_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["FERSWEEP_HOME"]
        else:
            os.environ["FERSWEEP_HOME"] = before


def _create(folder: Path, url: str, setting: Setting) -> SweepEntry:
    # The shipped space of fifteen parameters, with another search.
    spec = yaml.safe_load((SWEEPS / "simple_cnn.yaml").read_text())
    spec["method"] = setting.method
    if setting.hyperband:
        spec["early_terminate"] = {"type": "hyperband", "min_iter": 1, "eta": 3}
    else:
        del spec["early_terminate"]
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(spec))
    return registry.create(
        file, constants={"data": "synthetic"}, count=setting.trials, search="optuna", storage=url, seed=0
    )


class Crowd:
    """Agents of a sweep, each a process; they are ready to start."""

    def __init__(self, folder: Path, entry: SweepEntry, setting: Setting, *, one_host: bool = False) -> None:
        self._setting = setting
        self._out = folder / "out"
        self._out.mkdir()
        order = folder / "order.json"
        fields = asdict(Order(entry.id, setting.agents, EPOCHS, str(self._out), setting.asks, one_host))
        order.write_text(json.dumps(fields))
        words = [sys.executable, "-m", "tests.benchmarks.scale.crowd", str(order)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY
        )
        if self._answer() != "ready\n":
            raise SystemExit(f"{setting}: the agents did not start")

    def go(self) -> None:
        """Let them start, all at once."""
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)

    def end(self) -> tuple[float, list[Work]]:
        """Wait until all have ended; gives the seconds that they took and what each has done.

        Raises:
            SystemExit: One failed.
        """
        seconds = self._answer()
        self._process.communicate()
        if self._process.returncode:
            raise SystemExit(f"{self._setting}: an agent failed")
        return float(seconds), [Work(**json.loads(path.read_text())) for path in self._out.iterdir()]

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _run(postgres: "Server", folder: Path, entry: SweepEntry, setting: Setting) -> tuple[float, list[Work], "_Watch"]:
    crowd = Crowd(folder, entry, setting)
    with _Watch(postgres) as watch:
        crowd.go()
        seconds, works = crowd.end()
    return seconds, works, watch


class _Watch:
    """Looks at the server several times a second, and at its processor time before and after."""

    def __init__(self, postgres: "Server") -> None:
        self._postgres = postgres
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.connections: list[int] = []
        self.waiting: list[int] = []
        self.server_s = 0.0

    def __enter__(self) -> "_Watch":
        self.server_s = -self._postgres.processor_s()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.server_s += self._postgres.processor_s()

    def _look(self) -> None:
        while True:
            ((connections, waiting),) = self._postgres.run(
                "SELECT count(*), count(*) FILTER (WHERE wait_event = 'advisory') FROM pg_stat_activity"
                " WHERE application_name = 'fersweep'"
            )
            self.connections.append(connections)
            self.waiting.append(waiting)
            if self._over.wait(LOOK_EVERY_S):
                return
