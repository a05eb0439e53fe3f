"""What the tests of the searches share: sweeps, results, a clock to turn by hand, and one harness an engine."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialOutcome, TrialResult, TrialState
from fer_sweep.search import Search
from fer_sweep.search.database import default_storage
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, set_sweep_state, sweep_state


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class OptunaHarness:
    """How the conformance suite makes and steers sweeps of the embedded search."""

    lease_s = 60.0

    def __init__(self) -> None:
        self.clock = Clock()
        self._opened: list[OptunaSearch] = []
        self._count = 0

    def create(self, **sweep: Any) -> str:
        """A sweep of these settings; returns its id."""
        self._count += 1
        sweep_id = f"sweep{self._count}"
        create_sweep(parse_sweep(sweep), sweep_id=sweep_id, storage=default_storage())
        return sweep_id

    def agent(self, sweep_id: str, owner: str) -> Search:
        """One more agent at work on the sweep."""
        search = OptunaSearch(sweep_id, storage=default_storage(), owner=owner, lease_s=self.lease_s, clock=self.clock)
        self._opened.append(search)
        return search

    def steer(self, sweep_id: str, state: str) -> None:
        """Pause, resume (`running`), stop or cancel."""
        set_sweep_state(default_storage(), sweep_id, state)

    def state(self, sweep_id: str) -> str:
        """Where the sweep stands."""
        return sweep_state(default_storage(), sweep_id)

    def let_leases_run_out(self) -> None:
        """No agent has been heard of for long enough to be given up."""
        self.clock.now += self.lease_s + 1

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds

    def close(self) -> None:
        for search in self._opened:
            search.close()


HARNESSES: dict[str, Callable[[], OptunaHarness]] = {"optuna": OptunaHarness}
"""Another search joins the conformance suite by a line here."""


@pytest.fixture(params=HARNESSES)
def harness(request: pytest.FixtureRequest, own_folders: object) -> Iterator[OptunaHarness]:
    made = HARNESSES[request.param]()
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_result(**changes: Any) -> TrialResult:
    values: dict[str, Any] = {
        "best_val_acc": 0.5,
        "best_epoch": 1,
        "train_acc": 0.6,
        "train_val_gap": 0.1,
        "val_acc_clean": 0.5,
        "macro_f1": 0.4,
        "per_class_recall": (0.5,) * 7,
        "confusion_matrix": ((1,) * 7,) * 7,
        "epochs": 1,
        "parameters": 1000,
        "seconds": 1.0,
        "images_per_second": 1000.0,
        "peak_memory_mb": 100.0,
        "precision": "fp32",
        "verdict": "balanced",
    }
    return TrialResult(**{**values, **changes})


@pytest.fixture
def result() -> Callable[..., TrialResult]:
    return make_result


@pytest.fixture
def complete() -> Callable[..., TrialOutcome]:
    """An outcome: complete, with these values in its result."""

    def make(**changes: Any) -> TrialOutcome:
        return TrialOutcome(TrialState.COMPLETE, make_result(**changes))

    return make


@pytest.fixture
def settings() -> Callable[..., Mapping[str, Any]]:
    """A sweep file's content: a random search of the learning rate, unless changed."""

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
