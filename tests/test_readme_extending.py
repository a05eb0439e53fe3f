"""The README's fifth architecture and further layout, put into a copy as they stand there, train and prepare."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_sweep.data.cache import open_dataset
from tests.support.processes import COMMAND
from tests.test_readme import REPOSITORY, SECTIONS, commands_of

pytestmark = pytest.mark.usefixtures("one_core")

ARCHITECTURE, LAYOUT = re.findall(r"^### An? .*?(?=^### )", SECTIONS["Extending"], flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, which processes started in it import."""
    folder = tmp_path / "copy"
    shutil.copytree(REPOSITORY / "fer_sweep", folder / "fer_sweep", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sweeps").mkdir()
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.chdir(folder)
    return folder


def follow(text: str, folder: Path) -> list[Path]:
    """Write the files and make the changes that a piece of the README shows; returns what it has touched."""
    touched = []
    for name, content in re.findall(
        r"`([\w/.]+)`:\n\n```(?:python|yaml)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE
    ):
        assert not (folder / name).exists()
        (folder / name).write_text(content)
        touched.append(folder / name)
    (diff,) = re.findall(r"^```diff\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    for part in re.split(r"^\+\+\+ ", diff, flags=re.MULTILINE)[1:]:
        name, _, changes = part.partition("\n")
        for change in re.split(r"^@@\n", changes, flags=re.MULTILINE):
            lines = change.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            content = (folder / name).read_text()
            assert content.count(before) == 1, f"{name}: {before}"
            (folder / name).write_text(content.replace(before, after))
        touched.append(folder / name)
    return touched


def run(text: str) -> str:
    """Run the commands that a piece of the README shows; returns what they print."""
    said = ""
    for command in commands_of(text):
        program, *words = shlex.split(command)
        assert program == "fersweep"
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        said += done.stdout
    return said


def check_style(paths: list[Path], folder: Path) -> None:
    words = [sys.executable, "-m", "ruff"]
    if subprocess.run([*words, "--version"], capture_output=True, check=False).returncode != 0:
        return  # the development tools need not be where only the tests are run
    files = [str(path) for path in paths if path.suffix == ".py"]
    for step in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [*words, *step, "--no-cache", *files], capture_output=True, text=True, check=False, cwd=folder
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_fifth_architecture_trains_and_sweeps(copy: Path) -> None:
    check_style(follow(ARCHITECTURE, copy), copy)
    said = run(ARCHITECTURE)
    assert said.count("winner: trial") == 1
    assert "hidden=" in said
    code = "from fer_sweep.config.trial import known_names; print('hidden' in known_names('mlp'))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"


def test_the_further_layout_is_prepared_and_trained_on(copy: Path) -> None:
    check_style(follow(LAYOUT, copy), copy)
    random = np.random.default_rng(0)
    faces = random.integers(0, 256, (140, 48, 48), dtype=np.uint8)
    np.savez_compressed("faces.npz", images=faces, labels=np.arange(140) % 7)
    said = run(LAYOUT)
    assert "mine: 140 images from faces.npz (numpy arrays)" in said
    assert len(open_dataset("mine").images) == 140


@pytest.mark.parametrize(
    ("arrays", "needle"),
    [
        ({"images": np.zeros((7, 48, 47), np.uint8), "labels": np.arange(7)}, "images are (7, 48, 47) uint8"),
        ({"images": np.zeros((7, 48, 48), np.uint8), "labels": np.arange(7) + 1}, "labels beyond 0 to 6"),
        ({"images": np.array([{}] * 7), "labels": np.arange(7)}, "cannot be read"),
    ],
)
def test_the_further_layout_refuses_what_is_none(copy: Path, arrays: dict[str, np.ndarray], needle: str) -> None:
    follow(LAYOUT, copy)
    np.savez("faces.npz", **arrays)
    words = [*COMMAND, "data", "prepare", "faces.npz"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert needle in done.stderr and "Traceback" not in done.stderr
