"""What is gathered of sweeps: records, the choice and its certainty, curves of the best."""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer_sweep.config.parameters import Categorical, Constant, LogUniform, Normal, QLogNormal
from fer_sweep.config.space import Space
from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import fingerprint_of_test
from fer_sweep.files import data_folder, home, sweep_folder
from fer_sweep.openings import Opening, write_down
from fer_sweep.records import TrialOutcome, TrialRequest
from fer_sweep.reports.sources import CURVES_SHOWN, Axis, axes_of, gather, models_of
from fer_sweep.sweeps import Sweep
from fer_sweep.sweeps.choosing import choose, chosen, with_further_seeds
from tests.support.scripted_search import TINY
from tests.support.searches import create

Complete = Callable[..., TrialOutcome]


def made(
    folder: Path,
    results: Sequence[TrialOutcome],
    *,
    max_gap: float | None = None,
    data: str = "synthetic",
    **words: Any,
) -> Sweep:
    """An embedded sweep whose trials came to these results; more words are keys of its file."""
    fixed = {name: {"value": value} for name, value in {**TINY, "data": data}.items()}
    parameters = {**fixed, "lr": {"min": 0.001, "max": 0.01}}
    sweep = {"method": "random", "metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": parameters}
    (folder / "s.yaml").write_text(yaml.safe_dump({**sweep, **words}))
    entry = create(folder / "s.yaml", search="optuna", max_gap=max_gap)
    finish(entry, results)
    return entry


def finish(entry: Sweep, results: Sequence[TrialOutcome]) -> None:
    """End a sweep's next trials with these results."""
    with contextlib.closing(entry.search()) as search:
        for outcome in results:
            request = search.next_trial("slot")
            assert isinstance(request, TrialRequest)
            search.report(request.trial_id, 1, {"epoch": 1.0, "val_acc": 0.5})
            search.finish(request.trial_id, outcome)


def test_axes_say_how_they_are_searched() -> None:
    space = Space(
        {
            "model": Categorical(values=["simple_cnn", "vit"]),
            "lr": LogUniform(min=1e-4, max=1e-2),
            "epochs": Constant(value=3),
        }
    )
    bounds = pytest.approx(1e-4), pytest.approx(1e-2)
    assert axes_of(space, []) == (Axis("model", False, models_of(space, [])), Axis("lr", True, None, bounds))
    assert models_of(space, []) == ("simple_cnn", "vit")
    unbounded = Space({"dropout": Normal(mu=0.3, sigma=0.01), "weight_decay": QLogNormal(mu=-7.0, sigma=0.1, q=1e-5)})
    dropout, decay = axes_of(unbounded, [])
    assert dropout.bounds is not None and 0.2 < dropout.bounds[0] < 0.3 < dropout.bounds[1] < 0.4
    assert (dropout.log, decay.log) == (False, True)


def test_curves_of_the_best_trials_and_the_choice_of_best_with_its_caveats(tmp_path: Path, complete: Complete) -> None:
    gaps = [0.0] + [0.5] * 11
    entry = made(tmp_path, [complete(best_val_acc=0.3 + n / 200, train_val_gap=gap) for n, gap in enumerate(gaps)])
    report = gather([entry])
    assert len(report.trials) == 12 and len(report.curves) == CURVES_SHOWN
    assert [name.partition("/")[2] for name in report.curves] == ["11", "10", "9", "8", "7", "6", "5", "0"], (
        "the winner's last"
    )
    assert report.choice == choose([entry])
    assert report.choice.caveats


def test_the_tightest_constraint_chooses(tmp_path: Path, complete: Complete) -> None:
    loose = made(tmp_path, [complete(best_val_acc=0.9, train_val_gap=0.3)], max_gap=0.4)
    tight = made(tmp_path, [complete(best_val_acc=0.5, train_val_gap=0.05)], max_gap=0.1)
    report = gather([loose, tight])
    winner = report.selection.winner
    assert winner is not None and winner.sweep == tight.id
    assert "--max-gap 0.1" in report.sweeps[1].create


def test_further_seeds_of_any_trial_are_gathered(tmp_path: Path, complete: Complete) -> None:
    entry = made(tmp_path, [complete(best_val_acc=0.5), complete(best_val_acc=0.9)])
    confirmation = with_further_seeds(entry, chosen(entry, "0"), 2)
    finish(confirmation, [complete(best_val_acc=0.4), complete(best_val_acc=0.6)])
    choice = gather([entry]).choice
    (found,) = choice.confirmed
    assert found.name == f"{entry.id}/0" and found.accuracy is not None
    assert (found.accuracy.count, round(found.accuracy.mean, 6)) == (2, 0.5)
    assert choice.winner_confirmed is None, "the winner is trial 1"


def test_openings_of_the_same_test_images_are_gathered(tmp_path: Path, whole_data: str, complete: Complete) -> None:
    dataset = open_dataset(whole_data)
    damaged = data_folder() / "damaged.json"
    damaged.write_text((data_folder() / f"{whole_data}.json").read_text().replace(whole_data, damaged.stem))
    entries = [made(tmp_path, [complete()], data=data) for data in (damaged.stem, whole_data)]
    damaged.write_text("{")
    for name, fingerprint, split in (
        ("same-data", dataset.info.fingerprint, "s"),
        ("same-split", "other", "s"),
        ("same-images", "other", fingerprint_of_test(dataset)),
        ("unrelated", "other", "other split"),
    ):
        write_down(Opening(name, 1.0, f"x/{name}", "w", "d", fingerprint, split, "none", 100, 61, False), home())
    for sweeps in (entries[1:], entries):
        assert [o.id for o in gather(sweeps).openings] == ["same-data", "same-split", "same-images"]


def test_different_content_under_one_name_has_no_winner(tmp_path: Path, whole_data: str, complete: Complete) -> None:
    first, second = (made(tmp_path, [complete()], data=whole_data) for _ in range(2))
    pin = sweep_folder(second.id) / f"data-{whole_data}.json"
    pin.write_text(json.dumps({**json.loads(pin.read_text()), "fingerprint": "f" * 64}))
    report = gather([first, second])
    assert report.selection.winner is None
    assert "different data (whole (" in report.selection.reason and f"whole ({'f' * 12})" in report.selection.reason
    assert gather([first]).selection.winner is not None
