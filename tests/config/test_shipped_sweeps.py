"""Every shipped sweep file is valid for W&B and for us, and each of its configurations can be trained."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from sweeps.config import SweepConfig, schema_violations_from_proposed_config

import sweeps
from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_sweep_file, parse_sweep, with_constants
from fer_sweep.config.trial import flatten, parse_trial
from tests.config.conftest import can_be_drawn

FOLDER = Path(__file__).resolve().parent.parent.parent / "sweeps"


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.stem)
def test_file_is_complete_and_means_the_same_to_wandb_and_every_configuration_can_be_trained(path):
    read = yaml.safe_load(path.read_text())
    assert schema_violations_from_proposed_config(read) == []
    SweepConfig(read)
    sweep, _ = load_sweep_file(path)
    assert sweep.to_plain() == read
    space = Space.from_sweep(sweep)
    assert bind(sweep) == ()
    rng = np.random.default_rng(0)
    for _ in range(100):
        parse_trial(space.sample(rng))
    for run in sweeps.next_runs({**read, "method": "random"}, [], n=20):
        values = flatten({name: entry["value"] for name, entry in run.config.items()})
        assert values.keys() == space.parameters.keys()
        assert all(can_be_drawn(found, values[name]) for name, found in space.parameters.items())
        parse_trial(values)
    assert (sweep.objectives[0].name, sweep.objectives[0].goal) == ("best_val_acc", "maximize")
    assert sweep.run_cap
    assert (sweep.program, sweep.command) == ("fersweep", ("${env}", "fersweep", "train", "${args}"))
    assert space.parameters["data"].quantile(0.5) == "fer2013"
    if sweep.scheduler is None:
        assert sweep.method == "bayes"
        assert sum(band < space.parameters["epochs"].quantile(0.5) for band in sweep.early_terminate.bands) >= 2


def test_shortened_sweep_of_the_readme_prunes_too():
    tour = with_constants(load_sweep_file(FOLDER / "simple_cnn.yaml")[0], {"epochs": 4})
    assert bind(parse_sweep({**tour.to_plain(), "run_cap": 6})) == ()
