"""Every shipped sweep file is valid for W&B and for us, and each of its configurations can be trained."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from sweeps.config import SweepConfig, schema_violations_from_proposed_config

import sweeps
from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_sweep_file, with_constants, with_run_cap
from fer_sweep.config.trial import flatten, parse_trial

FOLDER = Path(__file__).resolve().parent.parent.parent / "sweeps"
NAMES = ["deeper_cnn", "multi_objective", "resnet", "simple_cnn", "vit"]
each_file = pytest.mark.parametrize("path", [FOLDER / f"{name}.yaml" for name in NAMES], ids=NAMES)


def test_the_four_architectures_and_an_example_are_shipped():
    assert sorted(path.stem for path in FOLDER.iterdir()) == NAMES


@each_file
def test_file_means_the_same_to_wandb_and_every_configuration_can_be_trained(path):
    read = yaml.safe_load(path.read_text())
    assert schema_violations_from_proposed_config(read) == []
    SweepConfig(read)
    sweep = load_sweep_file(path)
    assert sweep.to_plain() == read
    space = Space.from_sweep(sweep)
    assert bind(sweep, space) == ()
    rng = np.random.default_rng(0)
    for _ in range(100):
        parse_trial(space.sample(rng))
    for run in sweeps.next_runs({**read, "method": "random"}, [], n=20):
        values = flatten({name: entry["value"] for name, entry in run.config.items()})
        assert space.contains(values)
        parse_trial(values)


@each_file
def test_file_has_a_goal_a_cap_and_a_command_for_the_stock_agent(path):
    sweep = load_sweep_file(path)
    assert (sweep.objectives[0].name, sweep.objectives[0].goal) == ("best_val_acc", "maximize")
    assert sweep.run_cap
    assert sweep.program == "fersweep"
    assert sweep.command == ("${env}", "fersweep", "train", "${args}")
    space = Space.from_sweep(sweep)
    assert space.parameters["data"].quantile(0.5) == "fer2013"
    if sweep.scheduler is None:
        assert sweep.method == "bayes"
        assert sum(band < space.parameters["epochs"].quantile(0.5) for band in sweep.early_terminate.bands) >= 2


def test_shortened_sweep_of_the_readme_prunes_too():
    tour = with_run_cap(with_constants(load_sweep_file(FOLDER / "simple_cnn.yaml"), {"epochs": 4}), 6)
    assert bind(tour, Space.from_sweep(tour)) == ()
