"""What the tests of commands share."""

import shutil
from pathlib import Path

import pytest

from fer_sweep import api
from fer_sweep.files import home, trial_folder
from tests.support.processes import SWEEP, on_one_core
from tests.support.scripted_starter import ScriptedStarter, train_for_real

GRID = """\
program: fersweep
method: grid
metric: {name: best_val_acc, goal: maximize}
parameters:
  data: {value: whole}
  batch_size: {value: 16}
  lr: {values: [0.005, 0.00001]}
"""
MODELS = {
    "deeper_cnn": "  model: {value: deeper_cnn}\n  width: {value: 4}\n  epochs: {value: 6}\n",
    "simple_cnn": "  model: {value: simple_cnn}\n  channels: {value: 4}\n  hidden: {value: 16}\n  epochs: {value: 3}\n",
}
"""With fewer epochs, both collapse, and there is no winner."""


def write_sweep(trials: int = 1, epochs: int = 2, name: str = "sweep.yaml", *, method: str = "random") -> str:
    """Write a sweep file of so many trials on `tiny` into the working directory; gives its name."""
    text = SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}")
    Path(name).write_text(text.replace("method: random", f"method: {method}"))
    return name


@pytest.fixture(scope="session")
def home_with_sweeps(tmp_path_factory, whole_cache):
    """A home with finished sweeps of two DeeperCNNs and, after it, of two SimpleCNNs, and the ids of the two."""
    folder = tmp_path_factory.mktemp("searched")
    ids = []
    with on_one_core(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_HOME", str(folder / ".fersweep"))
        patch.setenv("FERSWEEP_CACHE", str(whole_cache))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr("fer_sweep.agent.session.starter_for", lambda slots, models: ScriptedStarter(train_for_real))
        for model, parameters in MODELS.items():
            file = folder / f"{model}.yaml"
            file.write_text(GRID + parameters)
            sweep = api.create(file)
            sweep.agent(gpus="none", slots=1)
            ids.append(sweep.id)
    return folder / ".fersweep", *ids


@pytest.fixture
def both(home_with_sweeps, whole_data):
    """The sweeps of SimpleCNNs, searched last, and of DeeperCNNs, in the test's own home."""
    there, deeper, simple = home_with_sweeps
    shutil.copytree(there, home())
    return simple, deeper


@pytest.fixture
def searched(both):
    """The sweep searched last."""
    return both[0]


@pytest.fixture
def trained(searched):
    """The folder `trial` in the working directory: of the first trial of that sweep."""
    return str(shutil.copytree(trial_folder(searched, "0"), "trial"))
