"""The files of paused trials on this host: within their share of the disk, and settled when the search prunes them."""

import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.sweeps import Sweep
from fer_sweep.sweeps.opened import OpenSearch
from fer_sweep.sweeps.paused import DISK_SHARE, limit_disk, settle_pruned
from tests.support.records import make_result
from tests.support.searches import create

SIZE = 1000
"""Bytes of each trial's checkpoint."""


@pytest.fixture(params=["maximize", "minimize"])
def sweep(request: pytest.FixtureRequest) -> Sweep:
    metric = {"name": "val_loss" if request.param == "minimize" else "val_acc", "goal": request.param}
    parameters = {"model": {"value": "simple_cnn"}, "lr": {"min": 1e-4, "max": 1e-1}, "epochs": {"value": 4}}
    Path("sweep.yaml").write_text(
        json.dumps({"method": "bayes", "metric": metric, "run_cap": 4, "parameters": parameters})
    )
    return create(Path("sweep.yaml"), search="optuna")


@pytest.fixture
def search(sweep: Sweep) -> Iterator[OpenSearch]:
    with closing(sweep.search()) as search:
        yield search


def pause(sweep: Sweep, search: OpenSearch, *, worth: float, epochs_here: int = 1) -> Path:
    """A new trial, paused after an epoch, of which this host has so many; gives its folder."""
    request = search.next_trial("cpu0")
    metrics = {"epoch": 1.0, "val_acc": worth, "val_loss": -worth}
    search.report(request.trial_id, 1, metrics)
    folder = sweep.trial_folder(request.trial_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.jsonl").write_text((json.dumps(metrics) + "\n") * epochs_here)
    for name in ("last.ckpt", "best.safetensors"):
        (folder / name).write_bytes(bytes(SIZE))
    search.finish(request.trial_id, TrialOutcome(TrialState.PAUSED, make_result(best_val_acc=worth)))
    return folder


def kept(*folders: Path) -> list[bool]:
    assert all((folder / "best.safetensors").exists() for folder in folders)
    return [(folder / "last.ckpt").exists() for folder in folders]


def test_the_worst_trials_lose_their_checkpoints_while_all_take_too_much_of_the_disk(
    sweep: Sweep, search: OpenSearch
) -> None:
    folders = [pause(sweep, search, worth=worth) for worth in (0.3, 0.1, 0.4, 0.2)]

    def limit(free: float) -> tuple[list[str], list[bool]]:
        return list(limit_disk(sweep, free=lambda path: int(free))), kept(*folders)

    enough = 4 * SIZE * (1 / DISK_SHARE - 1)
    assert limit(enough) == ([], [True] * 4)
    assert limit(enough - 1) == (["1"], [True, False, True, True])
    assert limit(0) == (["3", "0"], [False, False, True, False]), "the best one is to be trained to the end"
    assert limit(0) == ([], [False, False, True, False])
    assert search.next_trial("cpu0").trial_id == "2"


def test_a_trial_without_a_finite_value_is_the_worst(sweep: Sweep, search: OpenSearch) -> None:
    folders = [pause(sweep, search, worth=worth) for worth in (0.3, math.nan)]
    assert limit_disk(sweep, free=lambda path: 0) == ["1"]
    assert kept(*folders) == [True, False]


def test_trials_pruned_while_paused_get_their_result_and_lose_their_checkpoints(
    sweep: Sweep, search: OpenSearch
) -> None:
    first = pause(sweep, search, worth=0.1)
    partly = pause(sweep, search, worth=0.2, epochs_here=0)
    assert settle_pruned(sweep) == []
    assert kept(first, partly) == [True, True], "they may be resumed"
    sweep.set_state("stopped")
    with sweep.ledger(write=True) as ledger:
        for row in ledger.paused():
            result = make_result(best_val_acc=0.1)
            ledger.end(row["number"], TrialOutcome(TrialState.PRUNED, result), now=0.0)
    assert settle_pruned(sweep) == ["0"]
    assert kept(first, partly) == [False, False]
    assert json.loads((first / "result.json").read_text())["best_val_acc"] == 0.1
    assert not (partly / "result.json").exists(), "the weights here are of another epoch"
    assert settle_pruned(sweep) == []
