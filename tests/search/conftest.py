"""Shared by the tests of the searches: sweeps, storages, a manual clock, and one harness for each search."""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState, Wait
from fer_sweep.search import Search
from fer_sweep.search.embedded import EmbeddedSearch, create_sweep
from fer_sweep.store.database import Database, default_storage
from fer_sweep.store.sweeps import record_sweep
from fer_sweep.wandb_client.account import Account
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import SweepPath
from fer_sweep.wandb_client.server_search import WandbSearch
from fer_sweep.wandb_client.slots import Pace
from tests.support.searches import OwnSearch, embedded_search, state_in, steer
from tests.support.standin.runs import file_stream, upsert_run
from tests.support.standin.server import StandIn

LEASE_S = 3600.0
"""On the manual clock. The keeper of leases wakes by the real one, every quarter of it: in no test."""
AT_ONCE = Pace(idle_s=0.0, longest_idle_s=0.0, running_s=0.0, patience_s=120.0, report_patience_s=120.0)
"""Each question to a server waits for its answer, however long that takes."""
_numbers = itertools.count(1)


class Clock:
    """Time that stands until it is moved."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def take(search: Search) -> TrialRequest:
    """A trial for a slot of its own: a slot runs one trial at a time."""
    request = search.next_trial(f"cpu/{next(_numbers)}")
    assert isinstance(request, TrialRequest), request
    return request


class EmbeddedHarness:
    """How the conformance suite creates and steers sweeps of the embedded search."""

    cannot: ClassVar[Mapping[str, str]] = {}
    """What this search need not do, and why."""
    stopped = "stopped"
    """The state of a sweep that has been stopped."""

    def __init__(self, storage: str) -> None:
        self.clock = Clock()
        self.storage = storage
        self._opened = contextlib.ExitStack()

    def create(self, **sweep: Any) -> str:
        """A sweep of these settings; returns its id."""
        sweep_id = f"sweep{next(_numbers)}"
        create_sweep(parse_sweep(sweep), sweep_id=sweep_id, storage=self.storage)
        return sweep_id

    def agent(self, sweep_id: str, owner: str, **options: Any) -> Search:
        """One more agent of the sweep."""
        search = OwnSearch(sweep_id, self.storage, owner=owner, lease_s=LEASE_S, clock=self.clock, **options)
        return self._opened.enter_context(contextlib.closing(search))

    def steer(self, sweep_id: str, state: str) -> None:
        """Pause, resume (`running`), stop or cancel."""
        steer(self.storage, sweep_id, state)

    def state(self, sweep_id: str) -> str:
        return state_in(self.storage, sweep_id)

    def expire_leases(self) -> None:
        self.clock.now += LEASE_S + 1

    def close(self) -> None:
        self._opened.close()


class FreezeThawHarness(EmbeddedHarness):
    """The same for sweeps that are searched by freeze-thaw, wherever their file allows it."""

    def create(self, **sweep: Any) -> str:
        return super().create(**{**sweep, "method": sweep["method"].replace("random", "bayes")})


class TrackedSearch(WandbSearch):
    """A search on a server whose runs are logged as an agent logs them through wandb, straight into the stand-in."""

    def __init__(
        self, server: StandIn, sweep_id: str, storage: str | None = None, *, pace: Pace = AT_ONCE, **options: Any
    ) -> None:
        self.stand_in = server
        self.tracked: set[str] = set()
        account = Account(server.url, server.url, server.api_key)
        self.server = WandbServer(account)
        path = SweepPath("tester", "faces", sweep_id)
        self.database = Database(storage or default_storage())
        super().__init__(path, self.database, connect=lambda: self.server, pace=pace, **options)

    def close(self) -> None:
        super().close()
        self.server.close()
        self.database.close()

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        request = super().next_trial(slot)
        if isinstance(request, TrialRequest):
            self.tracked.add(request.trial_id)
            run = self.stand_in.runs[request.trial_id]
            config = {name: {"value": value} for name, value in request.config.model_dump(mode="json").items()}
            given = {"name": run.id, "id": run.storage_id, "host": "here", "config": json.dumps(config)}
            with self.stand_in.store.changed:
                upsert_run(self.stand_in.store, run.entity, given)
        return request

    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        run = self.stand_in.runs.get(trial_id)
        if metrics and run is not None and epoch > len(run.history):
            line = {"offset": len(run.history), "content": [json.dumps({**metrics, "_step": epoch})]}
            self._stream(trial_id, files={"wandb-history.jsonl": line})
        return super().report(trial_id, epoch, metrics)

    def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
        super().finish(trial_id, outcome)
        if trial_id in self.tracked:  # otherwise its run has ended already
            self.tracked.remove(trial_id)
            result = outcome.result.model_dump(mode="json") if outcome.result else {}
            summary = json.dumps({**result, "state": outcome.state, "reason": outcome.reason})
            preempting = {"preempting": True} if outcome.state is TrialState.PREEMPTED else {}
            self._stream(trial_id, files={"wandb-summary.json": {"offset": 0, "content": [summary]}}, **preempting)
            self._stream(trial_id, complete=True, exitcode=0 if outcome.state.has_value else 1)

    def _stream(self, run_id: str, **body: Any) -> None:
        with self.stand_in.store.changed:
            file_stream(self.stand_in.store, self.stand_in.runs[run_id], body)
            self.stand_in.store.changed.notify_all()


class WandbHarness(EmbeddedHarness):
    """How the conformance suite creates and steers sweeps of a W&B server: the stand-in, over HTTP."""

    cannot: ClassVar[Mapping[str, str]] = {
        "exhaust": "a server draws independently, so a finite space has no end",
        "replace": "a server keeps what was logged first: a run's history only grows",
    }
    stopped = "finished"  # the server's state for both

    def __init__(self, storage: str) -> None:
        super().__init__(storage)
        self._server = self._opened.enter_context(StandIn())

    def create(self, **sweep: Any) -> str:
        made = self._server.create_sweep({"program": "fersweep", **sweep})
        record_sweep(parse_sweep(sweep), made.id, self.storage)
        return made.id

    def agent(self, sweep_id: str, owner: str) -> Search:
        options = {"owner": owner, "lease_s": LEASE_S, "clock": self.clock}
        search = TrackedSearch(self._server, sweep_id, self.storage, **options)
        return self._opened.enter_context(contextlib.closing(search))

    def steer(self, sweep_id: str, state: str) -> None:
        words = {"stopped": "FINISHED", "cancelled": "CANCELED"}
        self._server.set_sweep_state(sweep_id, words.get(state, state.upper()))

    def state(self, sweep_id: str) -> str:
        return self._server.sweeps[sweep_id].state.lower().replace("canceled", "cancelled")


@contextlib.contextmanager
def _empty_storage(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    if kind == "postgres":
        with request.getfixturevalue("postgres_server").empty() as url:
            yield url
    else:
        yield f"sqlite:///{request.getfixturevalue('tmp_path')}/dëeper/a b?c=1&d#e%41'\".db"


@contextlib.contextmanager
def refused(error: type[Exception], match: str | None = None, *, hint: str = ".") -> Iterator[None]:
    """The block raises this error, whose hint says this."""
    with pytest.raises(error, match=match) as caught:
        yield
    assert re.search(hint, caught.value.hint)


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty storage of each engine, in SQLite at a path that would need quotes elsewhere."""
    with _empty_storage(request.param, request) as url:
        yield url


@pytest.fixture
def made(storage, settings) -> str:
    """The same with a sweep `a` in it, of at most seven trials."""
    create_sweep(parse_sweep(settings(run_cap=7)), sweep_id="a", storage=storage)
    return storage


@pytest.fixture
def agents() -> Callable[..., EmbeddedSearch]:
    """Opens agents of the embedded search."""
    return lambda sweep_id="a", *, storage=None, **options: embedded_search(sweep_id, storage, **options)


@pytest.fixture(
    params=[
        *(("optuna", "sqlite"), ("optuna", "postgres"), ("wandb", "sqlite")),
        *(("freeze-thaw", "sqlite"), ("freeze-thaw", "postgres")),
        pytest.param(("wandb", "postgres"), marks=pytest.mark.cluster),
    ],
    ids="-".join,
)
def harness(request: pytest.FixtureRequest) -> Iterator[EmbeddedHarness]:
    """Another search joins the conformance suite by its harness and its storages here."""
    search, kind = request.param
    make = {"optuna": EmbeddedHarness, "wandb": WandbHarness, "freeze-thaw": FreezeThawHarness}[search]
    with _empty_storage(kind, request) as url, contextlib.closing(make(url)) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings() -> Callable[..., Mapping[str, Any]]:
    """A sweep file's content: a random search of the learning rate, with changes."""
    lr = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}
    plain = {
        "method": "random",
        "metric": {"name": "best_val_acc", "goal": "maximize"},
        "parameters": {"model": {"value": "simple_cnn"}, "lr": lr},
    }

    def make(**changes: Any) -> Mapping[str, Any]:
        return {key: value for key, value in {**plain, **changes}.items() if value is not None}

    return make


@pytest.fixture
def sweep_file(settings, own_folders) -> Callable[..., Path]:
    """Writes the same to a file."""

    def write(**changes: Any) -> Path:
        path = own_folders / "weird 'name' ünï.yaml"
        path.write_text(yaml.safe_dump(settings(**changes)))
        return path

    return write
