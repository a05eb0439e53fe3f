"""What the tests of commands share."""

import shutil
from pathlib import Path

import pytest

from fer_sweep.config.trial import SimpleCNNConfig
from tests.support.processes import SWEEP, on_one_core
from tests.support.shell import Shell

__all__ = ["Shell"]


def write_sweep(trials: int = 1, epochs: int = 2, name: str = "sweep.yaml") -> str:
    """Write a sweep file of so many trials on `tiny` into the working directory; gives its name."""
    Path(name).write_text(SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}"))
    return name


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "trial"
    with on_one_core(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(tiny_cache))
        import torch

        from fer_sweep.training.loop import train

        torch.set_num_threads(1)
        train(SimpleCNNConfig(data="tiny", epochs=1, channels=4, hidden=16, batch_size=16, precision="fp32"), folder)
    return folder


@pytest.fixture
def trained(trained_once: Path, tiny_data: str, tmp_path: Path) -> Path:
    """The folder of a trained trial on `tiny`: `trial` in the working directory."""
    shutil.copytree(trained_once, tmp_path / "trial")
    return tmp_path / "trial"
