"""The wheel, built from the checkout: installed, it has what its commands and hints name, in an empty folder, too."""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.processes import QUICK

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", REPOSITORY], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    words = ["pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", folder / "site", wheel]
    subprocess.run([uv, *words], check=True)
    return folder / "site"


@pytest.fixture
def installed_python(installed: Path) -> Callable[..., str]:
    """Runs a Python program of the installed wheel to its end; returns what it prints."""

    def run(*words: str | Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}  # before the checkout, if that is installed, too
        done = subprocess.run(
            [sys.executable, "-P", *words], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.mark.usefixtures("small_synthetic", "one_core")
def test_an_installed_wheel_trains_and_reports_a_shipped_sweep_in_an_empty_folder(
    installed_python: Callable[..., str], installed: Path
) -> None:
    fersweep = functools.partial(installed_python, installed / "bin" / "fersweep")
    assert str(installed) in installed_python("-c", "import fer_sweep; print(fer_sweep.__file__)")
    settings = [f"--set={name}={value}" for name, value in QUICK.items()]
    for file in ("simple_cnn", "sweeps/simple_cnn.yaml"):
        assert "1/1 trials" in fersweep("run", file, "--data=synthetic", *settings, "--count=1", "--gpus=none")
    fersweep("report", "--output=report.html")
    assert Path("report.html").is_file()
    hints = "".join(fersweep(name, "--help") for name in ("create", "run", "edit", "agent")) + fersweep("init")
    named = set(re.findall(r"(?:sweeps|agents)/\w+\.yaml", hints))
    assert named and all(Path(name).is_file() for name in named)
