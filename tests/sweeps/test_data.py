"""Which data sets a sweep pins: all that its trials may ask for."""

import pytest

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.sweeps.data import data_names

OWN = {
    "method": "custom",
    "metrics": [{"name": "val_acc"}, {"name": "val_loss"}],
    "scheduler": {"engine": "optuna", "source": "own.py", "search_space": "space"},
}
"""The changes for a space in code."""


@pytest.mark.parametrize(
    ("given", "changes", "names"),
    [
        (None, {}, ["fer2013"]),
        ({"value": "faces"}, {}, ["faces"]),
        ({"values": ["faces", "synthetic"]}, {}, ["faces", "synthetic"]),
        ({"values": ["a", "b", "never"], "probabilities": [0.9, 0.1, 0.0]}, {}, ["a", "b"]),
        (None, OWN, []),
        ({"value": "faces"}, OWN, ["faces"]),
    ],
)
def test_the_data_sets_that_trials_may_ask_for(given, changes, names):
    parameters = {"model": {"value": "simple_cnn"}, **({"data": given} if given else {})}
    file = parse_sweep({"method": "random", "parameters": parameters, **changes})
    assert data_names(file, Space.from_sweep(file)) == names
