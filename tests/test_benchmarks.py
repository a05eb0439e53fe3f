"""The benchmarks run and compare like with like; what they measure is nobody's test."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_sweep.config.trial import parse_trial
from fer_sweep.models import build_model
from fer_sweep.records import FER2013
from tests.benchmarks import plain
from tests.benchmarks.commands import REPOSITORY
from tests.benchmarks.faces import draw_folders
from tests.benchmarks.rows import Row, table
from tests.benchmarks.search_efficiency.compare import PARAMETERS, SEARCHES, Seen, Table, place, reached, walk
from tests.benchmarks.search_efficiency.record import EPOCHS, GRID


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


def test_recorded_curves_are_whole_and_every_configuration_finds_its_own() -> None:
    curves = Table()
    assert len(curves.curves) == 324
    assert {len(curve) for curve in curves.curves} == {EPOCHS}
    assert 0.4 < curves.best < 0.5
    assert place({name: levels[-1] for name, levels in GRID.items()}) == tuple(len(v) - 1 for v in GRID.values())
    near = {"lr": 0.0005, "dropout": 0.3, "channels": 32, "hidden": 64, "batch_size": 128}
    assert place(near) == (1, 1, 1, 0, 1), "by the logarithm of the learning rate"
    assert set(PARAMETERS) == set(GRID)


@pytest.mark.parametrize("name", SEARCHES)
def test_search_of_the_comparison_spends_its_budget(name: str) -> None:
    spent = []

    def counted(table: Table, seed: int) -> Seen:
        for took, accuracy in SEARCHES[name](table, seed):
            spent.append(took)
            yield took, accuracy

    bests = walk(counted, Table(), seed=0, budget=60)
    first = spent[0]
    assert first <= EPOCHS and sum(spent[:-1]) <= 60 < sum(spent)
    assert np.isnan(bests[:first]).all() and list(bests[first:]) == sorted(bests[first:])
    assert (reached(bests, 0.0), reached(bests, 1.0)) == (first, math.inf)
