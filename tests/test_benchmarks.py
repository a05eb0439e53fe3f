"""The benchmarks run and compare like with like; what they measure is nobody's test."""

import argparse
import contextlib
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from fer_sweep.config.trial import parse_trial
from fer_sweep.models import build_model
from fer_sweep.records import FER2013
from tests.benchmarks import plain
from tests.benchmarks.commands import REPOSITORY
from tests.benchmarks.faces import draw_folders
from tests.benchmarks.rows import Row, table
from tests.benchmarks.search_efficiency.compare import quartiles, ranks, spent_by_seed, walk
from tests.benchmarks.search_efficiency.searches import SEARCHES, Trial, WholeTrials
from tests.benchmarks.search_efficiency.tables import TABLES, Table

CNN = TABLES["simple_cnn_12"]


class WithoutTarget(Table):
    """A table whose target no configuration reaches."""

    @property
    def target(self) -> float:
        return 1.0


UNREACHABLE = WithoutTarget(**{field.name: getattr(CNN, field.name) for field in fields(CNN)})


@pytest.mark.parametrize("model", ["simple_cnn", "deeper_cnn", "resnet18", "vit"])
def test_plain_script_has_the_same_model(model: str) -> None:
    ours = build_model(parse_trial({"model": model}), FER2013)
    theirs = plain.build(argparse.Namespace(**{**plain.OPTIONS, "model": model}))
    shapes = [sorted(tuple(p.shape) for p in network.parameters()) for network in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_plain_script_trains_on_the_drawn_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw_folders(tmp_path / "images", train=70, val=35)
    assert [len(list(folder.glob(f"{split}/*/*.jpg"))) for split in ("train", "test")] == [70, 35]
    words = [f"--folder={folder}", "--epochs=1", "--batch_size=32", "--channels=4", "--workers=0", "--device=cpu"]
    monkeypatch.setattr(sys, "argv", ["plain", *words])
    plain.main()
    result = json.loads(capsys.readouterr().out)
    assert result["images_per_second"] > 0
    assert 0.0 < result["best_val_acc"] <= 1.0


@pytest.mark.process
def test_chosen_row_is_measured_printed_and_written(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    words = ["-m", "tests.benchmarks", "--only", "help", "--repeats", "1", "--json", str(figures)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert "| `--help`, s | " in done.stdout
    assert list(json.loads(figures.read_text())) == ["help"]


def test_table_takes_ratios_within_a_repeat_and_says_how_far_sides_agree() -> None:
    rows = {
        "speed": Row("speed", {}, "more"),
        "wait": Row("wait", {}, "less"),
        "same": Row("accuracy", {}, "same"),
        "alone": Row("alone", {}, "less"),
    }
    figures = {
        "speed": {"fersweep": [10.0, 40.0, 20.0], "plain": [5.0, 10.0, 10.0]},
        "wait": {"fersweep": [1.0], "one": [3.0], "two": [4.5]},
        "same": {"bf16": [0.50, 0.52], "fp32": [0.51, 0.51]},
        "alone": {"fersweep": [0.05]},
    }
    assert table(rows, figures).splitlines()[2:] == [
        "| speed | 20.0 (10.0 to 40.0) | plain: 10.0 (5.00 to 10.0) | 2.0x (2.0 to 4.0) |",
        "| wait | 1.00 | one: 3.00; two: 4.50 | 3.0x (3.0 to 3.0); 4.5x (4.5 to 4.5) |",
        "| accuracy | 0.51 (0.50 to 0.52) | fp32: 0.51 (0.51 to 0.51) | +0.0% ± 1.0% |",
        "| alone | 0.050 |  |  |",
    ]


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.path.exists()])
def test_recorded_curves_are_whole_and_every_configuration_finds_its_own(name: str) -> None:
    recorded = TABLES[name]
    assert len(recorded.curves) == math.prod(map(len, recorded.grid.values()))
    assert {len(curve) for curve in recorded.curves} == {recorded.epochs}
    assert 0.25 < recorded.target < recorded.best < 0.7  # a quarter of the images is of the largest class
    last = {name: levels[-1] for name, levels in recorded.grid.items()}
    assert recorded.place(last) == tuple(len(levels) - 1 for levels in recorded.grid.values())
    assert set(recorded.parameters) == set(recorded.grid)


def test_nearest_configuration_is_nearest_by_the_logarithm_of_the_learning_rate() -> None:
    near = {"lr": 0.0005, "dropout": 0.3, "channels": 32, "hidden": 64, "batch_size": 128}
    assert CNN.place(near) == (1, 1, 1, 0, 1)


def trials_of_sixty_epochs(name: str, slots: int) -> Sequence[Trial]:
    """What a search of the comparison starts, and how far it trains each trial."""
    if name == "NePS":
        pytest.importorskip("neps")
    seen: list[Trial | None] = []
    player = SEARCHES[name](CNN, 0)

    class Remembering:
        stops, ended = player.stops, player.ended

        def next(self) -> Trial | None:
            seen.append(player.next())
            return seen[-1]

        def close(self) -> None:
            player.close()

    with contextlib.closing(Remembering()) as remembering:
        assert walk(remembering, UNREACHABLE, slots=slots, budget=60) == math.inf
    return [*{id(trial): trial for trial in seen if trial is not None}.values()]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("name", SEARCHES)
def test_search_of_the_comparison_is_charged_for_every_epoch_of_its_trials(name: str, slots: int) -> None:
    trials = trials_of_sixty_epochs(name, slots)
    assert sum(len(trial.accuracies) for trial in trials) == 60
    assert all(tuple(trial.accuracies) == CNN.curve(trial.values)[: len(trial.accuracies)] for trial in trials)


@pytest.mark.parametrize("name", ["random", "TPE"])
def test_search_without_hyperband_trains_every_trial_to_its_end(name: str) -> None:
    assert [len(trial.accuracies) for trial in trials_of_sixty_epochs(name, 1) if trial.accuracies] == [12] * 5


def test_walk_ends_with_the_first_epoch_that_reaches_the_target() -> None:
    class Script(WholeTrials):
        def __init__(self, *configurations: Mapping[str, float]) -> None:
            self._waiting = [Trial(values) for values in configurations]

        def next(self) -> Trial | None:
            return self._waiting.pop(0) if self._waiting else None

        def ended(self, trial: Trial) -> None:
            pass

    places = list(itertools.product(*CNN.grid.values()))
    good, bad = (
        next(dict(zip(CNN.grid, place, strict=True)) for place in places if reaches(place) is wanted)
        for wanted in (True, False)
    )
    epoch = next(epoch for epoch, accuracy in enumerate(CNN.curve(good), 1) if accuracy >= CNN.target)
    assert walk(Script(bad, good), CNN, slots=1, budget=99) == CNN.epochs + epoch
    assert walk(Script(bad, good), CNN, slots=2, budget=99) == 2 * epoch
    assert walk(Script(bad, good), CNN, slots=1, budget=CNN.epochs + epoch - 1) == math.inf
    assert walk(Script(bad), CNN, slots=2, budget=99) == math.inf


def reaches(place: Sequence[float]) -> bool:
    return max(CNN.curve(dict(zip(CNN.grid, place, strict=True)))) >= CNN.target


def test_freeze_thaw_finds_a_good_model_in_a_third_of_the_epochs_of_random_search() -> None:
    spent = spent_by_seed(SEARCHES["freeze-thaw"], CNN, slots=1, seeds=8, budget=240)
    assert quartiles(spent)[1] < 80, "random search takes 237"


def test_mean_ranks_and_their_critical_difference() -> None:
    # Demsar 2006: with four searches and fourteen blocks, 1.25.
    ordered = {name: [10.0 * place + block for block in range(14)] for place, name in enumerate("abcd")}
    means, p, difference = ranks(ordered)
    assert means == {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert p < 1e-6
    assert difference == pytest.approx(1.25, abs=0.005)
    means, _, _ = ranks({"a": [5.0, math.inf], "b": [math.inf, math.inf], "c": [math.inf, math.inf]})
    assert means == {"a": 1.5, "b": 2.25, "c": 2.25}
