"""Shared by the tests of the searches: sweeps, storages, a manual clock, and one harness for each search."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import StopReason, TrialOutcome, TrialRecord, TrialRequest, TrialState, Wait
from fer_sweep.search import Search
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.sweeps import create_sweep, default_storage, record_sweep, set_sweep_state, sweep_state
from fer_sweep.wandb_client.account import Account
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import SweepPath
from fer_sweep.wandb_client.server_search import WandbSearch
from fer_sweep.wandb_client.slots import Pace
from tests.support.standin.runs import file_stream, upsert_run
from tests.support.standin.server import StandIn

if TYPE_CHECKING:
    from tests.support.postgres import Server

LEASE_S = 3600.0
"""On the manual clock. The keeper of leases wakes by the real one, every quarter of it: in no test."""


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class OptunaHarness:
    """How the conformance suite creates and steers sweeps of the embedded search."""

    lease_s = LEASE_S
    cannot: Mapping[str, str] = {}
    """What this search need not do, and why."""
    stopped = "stopped"
    """The state of a sweep that has been stopped."""

    def __init__(self, storage: str) -> None:
        self.clock = Clock()
        self._storage = storage
        self._opened: list[Search] = []
        self._count = 0

    def create(self, **sweep: Any) -> str:
        """A sweep of these settings; returns its id."""
        self._count += 1
        sweep_id = f"sweep{self._count}"
        create_sweep(parse_sweep(sweep), sweep_id=sweep_id, storage=self._storage)
        return sweep_id

    def agent(self, sweep_id: str, owner: str) -> Search:
        """One more agent of the sweep."""
        search = OptunaSearch(sweep_id, storage=self._storage, owner=owner, lease_s=self.lease_s, clock=self.clock)
        self._opened.append(search)
        return search

    def steer(self, sweep_id: str, state: str) -> None:
        """Pause, resume (`running`), stop or cancel."""
        set_sweep_state(self._storage, sweep_id, state)

    def state(self, sweep_id: str) -> str:
        return sweep_state(self._storage, sweep_id)

    def expire_leases(self) -> None:
        """Let all leases expire."""
        self.clock.now += self.lease_s + 1

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds

    def close(self) -> None:
        for search in self._opened:
            search.close()


class TrackedSearch:
    """A search on a server whose runs are logged as an agent logs them through wandb, straight into the stand-in."""

    def __init__(self, search: WandbSearch, server: StandIn) -> None:
        self._search = search
        self._server = server
        self._tracked: set[str] = set()

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        request = self._search.next_trial(slot)
        if isinstance(request, TrialRequest):
            self._tracked.add(request.trial_id)
            run = self._server.runs[request.trial_id]
            with self._server.store.changed:
                config = {name: {"value": value} for name, value in request.config.model_dump(mode="json").items()}
                given = {"name": run.id, "id": run.storage_id, "host": "here", "config": json.dumps(config)}
                upsert_run(self._server.store, run.entity, given)
        return request

    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        run = self._server.runs.get(trial_id)
        if metrics and run is not None and epoch > len(run.history):
            lines = {"offset": len(run.history), "content": [json.dumps({**metrics, "_step": epoch})]}
            self._post(trial_id, {"files": {"wandb-history.jsonl": lines}})
        return self._search.report(trial_id, epoch, metrics)

    def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
        self._search.finish(trial_id, outcome)
        if trial_id not in self._tracked:
            return  # its run has ended already
        self._tracked.remove(trial_id)
        result = outcome.result.model_dump(mode="json") if outcome.result else {}
        summary = {"offset": 0, "content": [json.dumps({**result, "state": outcome.state})]}
        good = outcome.state in (TrialState.COMPLETE, TrialState.PRUNED)
        preempting = {"preempting": True} if outcome.state is TrialState.PREEMPTED else {}
        self._post(trial_id, {"files": {"wandb-summary.json": summary}, **preempting})
        self._post(trial_id, {"complete": True, "exitcode": 0 if good else 1})

    def records(self) -> Sequence[TrialRecord]:
        return self._search.records()

    def close(self) -> None:
        self._search.close()

    def _post(self, run_id: str, body: Mapping[str, Any]) -> None:
        with self._server.store.changed:
            file_stream(self._server.store, self._server.runs[run_id], dict(body))
            self._server.store.changed.notify_all()


class WandbHarness(OptunaHarness):
    """How the conformance suite creates and steers sweeps of a W&B server: the stand-in, over HTTP."""

    cannot: ClassVar = {
        "exhaust": "a server draws independently: a finite space has no end, and a configuration that comes again "
        "is answered with what it came to before",
        "replace": "a server keeps what was logged first: a run's history only grows",
    }
    stopped = "finished"  # the server's state for both
    _words: ClassVar = {"paused": "PAUSED", "running": "RUNNING", "stopped": "FINISHED", "cancelled": "CANCELED"}

    def __init__(self, storage: str) -> None:
        super().__init__(storage)
        self.server = StandIn().start()

    def create(self, **sweep: Any) -> str:
        made = self.server.create_sweep({"program": "fersweep", **sweep})
        record_sweep(parse_sweep(sweep), made.id, self._storage)
        return made.id

    def agent(self, sweep_id: str, owner: str) -> Search:
        account = Account(self.server.url, self.server.url, None, None, self.server.api_key)
        search = WandbSearch(
            SweepPath("tester", "faces", sweep_id),
            connect=lambda: WandbServer(account),
            storage=self._storage,
            owner=owner,
            lease_s=self.lease_s,
            clock=self.clock,
            # Each question waits for the server's answer, however long that takes.
            pace=Pace(idle_s=0.0, longest_idle_s=0.0, freshness_s=0.0, patience_s=120.0),
        )
        self._opened.append(search)
        return TrackedSearch(search, self.server)

    def steer(self, sweep_id: str, state: str) -> None:
        self.server.set_sweep_state(sweep_id, self._words[state])

    def state(self, sweep_id: str) -> str:
        words = {word: state for state, word in self._words.items()}
        return {**words, "FINISHED": "finished"}[self.server.sweeps[sweep_id].state]

    def close(self) -> None:
        super().close()
        self.server.close()


Harness = OptunaHarness
HARNESSES: dict[str, Callable[[str], Harness]] = {"optuna": OptunaHarness, "wandb": WandbHarness}
"""Another search joins the conformance suite by a line here and its storages in ``harness``."""


@contextlib.contextmanager
def _empty_storage(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    if kind == "postgres":
        server: Server = request.getfixturevalue("postgres_server")
        with server.empty() as url:
            yield url
    else:
        folder: Path = request.getfixturevalue("tmp_path")
        yield f"sqlite:///{folder / 'storage.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty storage of each engine."""
    with _empty_storage(request.param, request) as url:
        yield url


@pytest.fixture
def made(storage: str, settings: Callable[..., Mapping[str, Any]]) -> str:
    """The same with a sweep `a` in it, of at most seven trials."""
    create_sweep(parse_sweep(settings(run_cap=7)), sweep_id="a", storage=storage)
    return storage


@pytest.fixture
def agents() -> Iterator[Callable[..., OptunaSearch]]:
    """Opens agents of the embedded search, and closes them at the end."""
    with contextlib.ExitStack() as stack:

        def agent(sweep_id: str = "a", *, storage: str | None = None, **options: Any) -> OptunaSearch:
            search = OptunaSearch(sweep_id, storage=storage or default_storage(), **options)
            return stack.enter_context(contextlib.closing(search))

        yield agent


@pytest.fixture
def harness_on() -> Iterator[Callable[[str, str], Harness]]:
    """Makes a harness: of which search, on which storage."""
    with contextlib.ExitStack() as stack:
        yield lambda search, storage: stack.enter_context(contextlib.closing(HARNESSES[search](storage)))


@pytest.fixture(
    params=[
        pytest.param(("optuna", "sqlite"), id="optuna-sqlite"),
        pytest.param(("optuna", "postgres"), id="optuna-postgres"),
        pytest.param(("wandb", "sqlite"), id="wandb-sqlite"),
        pytest.param(("wandb", "postgres"), id="wandb-postgres", marks=pytest.mark.cluster),
    ]
)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    search, kind = request.param
    with _empty_storage(kind, request) as url, contextlib.closing(HARNESSES[search](url)) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings() -> Callable[..., Mapping[str, Any]]:
    """A sweep file's content: a random search of the learning rate, with changes."""

    def make(**changes: Any) -> Mapping[str, Any]:
        plain = {
            "method": "random",
            "metric": {"name": "best_val_acc", "goal": "maximize"},
            "parameters": {
                "model": {"value": "simple_cnn"},
                "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
            },
        }
        return {key: value for key, value in {**plain, **changes}.items() if value is not None}

    return make
