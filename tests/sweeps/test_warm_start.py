"""What a new sweep begins with when no earlier one is given: the defaults of the training function."""

from pathlib import Path

import pytest

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_sweep_file, parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.search.sampling import default_trial
from fer_sweep.sweeps.warm_start import warm_start

SHIPPED = sorted(Path(__file__).parents[2].glob("sweeps/*.yaml"))
ACCURACY = {"name": "best_val_acc", "goal": "maximize"}


def file_of(method="bayes", **parameters):
    return parse_sweep({"method": method, "metric": ACCURACY, "parameters": parameters})


def trial_of(**parameters):
    return default_trial(Space.from_sweep(file_of(**parameters)))


def test_parameters_have_their_defaults_and_others_the_middle_of_their_range():
    ranges = {"lr": {"min": 0.01, "max": 0.03}, "channels": {"values": [8, 32, 64]}, "hidden": {"min": 7, "max": 512}}
    picked = trial_of(model={"value": "simple_cnn"}, epochs={"value": 3}, **ranges, **{"augment.shift": {"value": 0.1}})
    assert picked.parameters == {
        **{"model": "simple_cnn", "epochs": 3, "lr": pytest.approx(0.02)},
        **{"channels": 32, "hidden": 128, "augment.shift": 0.1},
    }
    assert picked.config == parse_trial(picked.parameters)


def test_defaults_that_cannot_be_trained_together_are_left_out():
    # The default head_dim, 32, divides no dim of the space.
    assert trial_of(model={"value": "vit"}, dim={"values": [48, 80]}) is None
    assert trial_of(lr={"min": 0.1, "max": 0.2}) is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_begin_with_a_configuration_of_their_space(path):
    sweep, _ = load_sweep_file(path)
    (picked,) = warm_start(sweep, []).queue
    space = Space.from_sweep(sweep)
    assert set(picked.parameters) == set(space.parameters)
    assert picked.config.model == sweep.parameters["model"].value
    assert picked.config.optimizer == ("sgd" if path.stem in ("deeper_cnn", "resnet") else "adamw")


def test_only_a_search_that_learns_begins_with_the_defaults():
    parameters = {"model": {"value": "simple_cnn"}, "lr": {"values": [0.001, 0.1]}}
    begun = {method: len(warm_start(file_of(method, **parameters), []).queue) for method in ("bayes", "grid", "random")}
    assert begun == {"bayes": 1, "grid": 0, "random": 0}
    scheduler = {"engine": "optuna", "source": "own.py"}
    own = {"method": "custom", "metric": ACCURACY, "parameters": parameters, "scheduler": scheduler}
    assert not warm_start(parse_sweep(own), []).queue
