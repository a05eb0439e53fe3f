"""What is gathered of sweeps: records, the choice under the tightest constraint, curves of the best."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fer_sweep.records import TrialOutcome
from fer_sweep.reports.shown import Axis
from fer_sweep.reports.sources import CURVES_SHOWN, gather
from fer_sweep.search import registry
from fer_sweep.search.entries import SweepEntry
from tests.support.scripted_search import TINY


def made(folder: Path, results: list[TrialOutcome], *, max_gap: float | None = None) -> SweepEntry:
    """An embedded sweep whose trials came to these results."""
    parameters: Mapping[str, Any] = {
        **{name: {"value": value} for name, value in TINY.items()},
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "dropout": {"distribution": "normal", "mu": 0.3, "sigma": 0.01},
        "optimizer": {"values": ["adamw", "sgd"]},
    }
    sweep = {"method": "random", "metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": parameters}
    (folder / "s.yaml").write_text(json.dumps(sweep))
    entry = registry.create(folder / "s.yaml", search="optuna", max_gap=max_gap)
    search = registry.open_search(entry)
    try:
        for outcome in results:
            request = search.next_trial("slot")
            search.report(request.trial_id, 1, {"epoch": 1.0, "val_acc": 0.5})  # type: ignore[union-attr]
            search.finish(request.trial_id, outcome)  # type: ignore[union-attr]
    finally:
        search.close()
    return entry


def test_axes_say_how_they_are_searched(tmp_path: Path, complete: Callable[..., TrialOutcome]) -> None:
    report = gather([made(tmp_path, [complete()])])
    dropout, lr, optimizer = report.sweeps[0].axes
    assert lr == Axis("lr", True, None, lr.bounds) and lr.bounds is not None
    assert [round(bound, 6) for bound in lr.bounds] == [1e-4, 1e-2]
    assert optimizer == Axis("optimizer", False, ("adamw", "sgd"))
    assert dropout.bounds is not None and 0.2 < dropout.bounds[0] < 0.3 < dropout.bounds[1] < 0.4


def test_curves_of_the_best_trials_only(tmp_path: Path, complete: Callable[..., TrialOutcome]) -> None:
    accuracies = [0.3 + place / 100 for place in range(12)]
    report = gather([made(tmp_path, [complete(best_val_acc=a) for a in accuracies])])
    assert len(report.trials) == 12 and len(report.curves) == CURVES_SHOWN
    assert (report.sweeps[0].id, "11") in report.curves and (report.sweeps[0].id, "0") not in report.curves


def test_the_tightest_constraint_chooses(tmp_path: Path, complete: Callable[..., TrialOutcome]) -> None:
    loose = made(tmp_path, [complete(best_val_acc=0.9, train_val_gap=0.3)], max_gap=0.4)
    tight = made(tmp_path, [complete(best_val_acc=0.5, train_val_gap=0.05)], max_gap=0.1)
    report = gather([loose, tight])
    assert report.max_gap == 0.1
    winner = report.selection.winner
    assert winner is not None and winner.sweep == tight.id
    assert (winner.sweep, "0") in report.curves, "the winner's curve is there, whatever its place"
    assert "--max-gap 0.1" in report.sweeps[1].create
