"""What is gathered of sweeps: records, the choice and its certainty, curves of the best."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fer_sweep.choosing import choose, chosen, with_further_seeds
from fer_sweep.search.entries import SweepEntry

from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import fingerprint_of_test
from fer_sweep.files import home, sweep_folder
from fer_sweep.openings import Opening, write_down
from fer_sweep.records import TrialOutcome
from fer_sweep.reports.shown import Axis
from fer_sweep.reports.sources import CURVES_SHOWN, gather
from fer_sweep.search import registry
from tests.support.scripted_search import TINY


def made(
    folder: Path, results: list[TrialOutcome], *, max_gap: float | None = None, data: str = "synthetic"
) -> SweepEntry:
    """An embedded sweep whose trials came to these results."""
    parameters: Mapping[str, Any] = {
        **{name: {"value": value} for name, value in {**TINY, "data": data}.items()},
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "dropout": {"distribution": "normal", "mu": 0.3, "sigma": 0.01},
        "optimizer": {"values": ["adamw", "sgd"]},
    }
    sweep = {"method": "random", "metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": parameters}
    (folder / "s.yaml").write_text(json.dumps(sweep))
    entry = registry.create(folder / "s.yaml", search="optuna", max_gap=max_gap)
    finish(entry, results)
    return entry


def finish(entry: SweepEntry, results: list[TrialOutcome]) -> None:
    """End a sweep's next trials with these results."""
    search = registry.open_search(entry)
    try:
        for outcome in results:
            request = search.next_trial("slot")
            search.report(request.trial_id, 1, {"epoch": 1.0, "val_acc": 0.5})  # type: ignore[union-attr]
            search.finish(request.trial_id, outcome)  # type: ignore[union-attr]
    finally:
        search.close()


def opened(name: str, *, fingerprint: str = "other", split: str = "other split") -> Opening:
    return Opening(name, 1.0, f"x/{name}", "w", "whole", fingerprint, split, "none", 100, 61, False)


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
    winner = report.selection.winner
    assert winner is not None and winner.sweep == tight.id
    assert (winner.sweep, "0") in report.curves, "the winner's curve is there, whatever its place"
    assert "--max-gap 0.1" in report.sweeps[1].create


def test_a_report_has_the_choice_of_best_with_its_caveats(
    tmp_path: Path, complete: Callable[..., TrialOutcome]
) -> None:
    entry = made(tmp_path, [complete(best_val_acc=0.50), complete(best_val_acc=0.51)])
    report = gather([entry])
    assert report.choice == choose([entry])
    assert report.choice.caveats


def test_further_seeds_of_any_trial_are_gathered(tmp_path: Path, complete: Callable[..., TrialOutcome]) -> None:
    entry = made(tmp_path, [complete(best_val_acc=0.5), complete(best_val_acc=0.9)])
    confirmation = with_further_seeds(entry, chosen(entry, "0"), 2)
    finish(confirmation, [complete(best_val_acc=0.4), complete(best_val_acc=0.6)])
    choice = gather([entry]).choice
    (found,) = choice.confirmed
    assert found.name == f"{entry.id}/0" and found.accuracy is not None
    assert (found.accuracy.count, round(found.accuracy.mean, 6)) == (2, 0.5)
    assert choice.winner_confirmed is None, "the winner is trial 1"


def test_openings_of_the_same_test_images_are_gathered(
    tmp_path: Path, whole_data: str, complete: Callable[..., TrialOutcome]
) -> None:
    entry = made(tmp_path, [complete()], data=whole_data)
    dataset = open_dataset(whole_data)
    write_down(opened("same-data", fingerprint=dataset.info.fingerprint, split="s"), home())
    write_down(opened("same-split", split="s"), home())
    write_down(opened("same-images", split=fingerprint_of_test(dataset)), home())
    write_down(opened("unrelated"), home())
    assert [o.id for o in gather([entry]).openings] == ["same-data", "same-split", "same-images"]


def test_sweeps_of_different_content_under_one_name_have_no_winner(
    tmp_path: Path, whole_data: str, complete: Callable[..., TrialOutcome]
) -> None:
    first, second = (made(tmp_path, [complete()], data=whole_data) for _ in range(2))
    pin = sweep_folder(second.id) / f"data-{whole_data}.json"
    pin.write_text(json.dumps({**json.loads(pin.read_text()), "fingerprint": "f" * 64}))
    report = gather([first, second])
    assert report.selection.winner is None
    assert "different data (whole (" in report.selection.reason and f"whole ({'f' * 12})" in report.selection.reason
    assert gather([first]).selection.winner is not None
