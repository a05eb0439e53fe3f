"""One point: so many agents work through a sweep of so many trials on a PostgreSQL, and whether the sweep is whole."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from fer_sweep.search.entries import SweepEntry

from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.search import registry
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.database import Database
from fer_sweep.store.trials import Ledger
from tests.benchmarks.commands import REPOSITORY, SWEEPS
from tests.benchmarks.scale.crowd import Order, Work, worth

if TYPE_CHECKING:
    from tests.support.postgres import Server

EPOCHS = 3
LOOK_EVERY_S = 0.25
Histories = Mapping[int, Sequence[tuple[int, Mapping[str, float]]]]
"""By trial's number, epochs and what was reported of them, in the order of epochs."""
Times = tuple[float, float] | None
"""Of one call, as the agents waited: median and 99th percentile in milliseconds."""


@dataclass(frozen=True)
class Setting:
    """What is varied."""

    agents: int
    trials: int
    method: str = "random"
    hyperband: bool = False
    durable: bool = False
    """Whether each commit waits for the disk."""


@dataclass(frozen=True)
class Point:
    """What was measured."""

    setting: Setting
    per_s: float
    """Trials a second."""
    share: float
    """Of the machine's processor time that agents and PostgreSQL got; the rest went to other work, or was idle."""
    next_trial: Times
    report: Times
    finish: Times
    connections: int
    """At most at once, of the agents."""
    client_ms: float
    """Processor time of an agent a trial."""
    server_ms: float
    """The same of PostgreSQL's."""
    private_mb: float
    """Memory of an agent that it shares with no other; the median."""


@contextmanager
def server(*, durable: bool = False) -> "Iterator[Server]":
    """A PostgreSQL that takes 256 agents; unless it is durable, it waits for no disk, which then is not measured."""
    from tests.support.postgres import Server  # only here: the other rows are measured where no PostgreSQL is

    with closing(Server("max_connections = 400", f"fsync = {'on' if durable else 'off'}")) as started:
        yield started


def measure(postgres: "Server", setting: Setting) -> Point:
    """Measure one point.

    Raises:
        SystemExit: An agent failed, or the sweep is not whole.
    """
    with postgres.empty() as url, tempfile.TemporaryDirectory() as folder, _home(folder):
        entry = _create(Path(folder), url, setting)
        crowd = Crowd(Path(folder), entry, setting)
        with _Watch(postgres) as watch:
            crowd.go()
            seconds, works = crowd.end()
        check(entry, setting, works)
    done = sum(len(work.finished) for work in works)
    client_s = sum(work.cpu_s for work in works)
    return Point(
        setting=setting,
        per_s=done / seconds,
        share=(client_s + watch.server_s) / seconds / (os.cpu_count() or 1),
        next_trial=_times([took for work in works for _, took in work.next_trial]),
        report=_times([took for work in works for took in work.report]),
        finish=_times([took for work in works for took in work.finish]),
        connections=max(watch.connections),
        client_ms=1000 * client_s / done,
        server_ms=1000 * watch.server_s / done,
        private_mb=statistics.median(work.private_mb for work in works),
    )


def _times(seconds: Sequence[float]) -> Times:
    if not seconds:
        return None
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    return 1000 * float(p50), 1000 * float(p99)


def check(entry: SweepEntry, setting: Setting, works: Sequence[Work]) -> None:
    """See that a sweep that agents have worked through is whole.

    Raises:
        SystemExit: It is not; with what is wrong.
    """
    with closing(OptunaSearch(entry.id, storage=entry.database)) as search:
        found = list(_faults(search.records(), _histories(entry), setting.trials, works))
    if (state := registry.state_of(entry)) != "finished":
        found.append(f"the sweep is {state}, not finished")
    if found:
        raise SystemExit(f"{setting}: {len(found)} faults\n" + "\n".join(found[:20]))


def _faults(records: Sequence[TrialRecord], histories: Histories, trials: int, works: Sequence[Work]) -> Iterator[str]:
    finished = Counter(trial for work in works for trial, _ in work.finished)
    pruned = {trial for work in works for trial in work.pruned}
    times = Counter(json.dumps(record.parameters, sort_keys=True) for record in records)
    numbers = [int(record.trial_id) for record in records]
    if sorted(numbers) != list(range(trials)):
        yield f"trials {sorted(set(range(trials)).symmetric_difference(numbers))} are lost, doubled or beyond the cap"
    if again := [parameters for parameters, count in times.items() if count > 1]:
        yield f"a configuration is doubled: {again}"
    for number, record in zip(numbers, records, strict=True):
        state = TrialState.PRUNED if record.trial_id in pruned else TrialState.COMPLETE
        if record.state is not state:
            yield f"trial {number} is {record.state}, not {state}"
        if finished[record.trial_id] != 1 or record.attempt != 1:
            yield f"trial {number} was begun {record.attempt} times and finished {finished[record.trial_id]} times"
        history = histories.get(number, [])
        last = len(history) if record.trial_id in pruned else EPOCHS
        if list(history) != [(epoch, worth(number, epoch)) for epoch in range(1, last + 1)]:
            yield f"trial {number} has not the {last} epochs that were reported: {[epoch for epoch, _ in history]}"
    if strange := histories.keys() - set(numbers):
        yield f"trials {strange} have a history and no record"


def _histories(entry: SweepEntry) -> Histories:
    with closing(Database(entry.database)) as database, database.transaction(write=False) as connection:
        found: dict[int, list[tuple[int, dict[str, float]]]] = {}
        for row in Ledger(connection, entry.id).reports_after(0):
            found.setdefault(row["number"], []).append((row["epoch"], json.loads(row["metrics"])))
    return {number: sorted(history, key=lambda report: report[0]) for number, history in found.items()}


@contextmanager
def _home(folder: str) -> Iterator[None]:
    before = os.environ.copy()
    os.environ["FERSWEEP_HOME"] = folder
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _create(folder: Path, url: str, setting: Setting) -> SweepEntry:
    # The shipped space of fifteen parameters, with another search.
    spec = yaml.safe_load((SWEEPS / "simple_cnn.yaml").read_text()) | {"method": setting.method}
    del spec["early_terminate"]
    if setting.hyperband:
        spec["early_terminate"] = {"type": "hyperband", "min_iter": 1, "eta": 3}
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(spec))
    constants = {"data": "synthetic"}
    return registry.create(file, constants=constants, count=setting.trials, search="optuna", storage=url, seed=0)


class Crowd:
    """Agents of a sweep, each a process; they are ready to start."""

    def __init__(self, folder: Path, entry: SweepEntry, setting: Setting, *, one_host: bool = False) -> None:
        self._setting = setting
        self._out, order = folder / "out", folder / "order.json"
        self._out.mkdir()
        order.write_text(json.dumps(asdict(Order(entry.id, setting.agents, EPOCHS, str(self._out), one_host))))
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


class _Watch:
    """Counts the agents' connections several times a second, and the server's processor time."""

    def __init__(self, postgres: "Server") -> None:
        self._postgres = postgres
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.connections: list[int] = []
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
            sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fersweep'"
            self.connections.append(self._postgres.run(sql)[0][0])
            if self._over.wait(LOOK_EVERY_S):
                return
