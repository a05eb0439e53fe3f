"""The fifth architecture and the further data layout of the pages, put into a copy of the package as they stand."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_sweep.data.cache import open_dataset
from tests.support.documentation import REPOSITORY, Block, code, section
from tests.support.processes import fersweep

ARCHITECTURE, LAYOUT = section("An architecture"), section("A data layout")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package, which processes started in it import."""
    folder = tmp_path / "copy"
    shutil.copytree(REPOSITORY / "fer_sweep", folder / "fer_sweep", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sweeps").mkdir()
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.chdir(folder)
    return folder


def follow(text: str, folder: Path) -> list[Path]:
    """Write the files and make the changes that a piece of a page shows; returns what it has touched."""
    touched = []
    shown = r"`([\w/.]+)`:\n\n```(?:python|yaml)\n(.*?)^```"
    for name, content in re.findall(shown, text, flags=re.DOTALL | re.MULTILINE):
        assert not (folder / name).exists()
        (folder / name).write_text(content)
        touched.append(folder / name)
    (diff,) = code(text, "diff")
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
    """Run the commands that a piece of a page shows; returns what they print."""
    (block,) = code(text, "sh")
    said = ""
    for line in Block("", "sh", block).commands:
        done = fersweep(*shlex.split(line)[1:])
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        said += done.stdout
    return said


@pytest.mark.parametrize("text", [ARCHITECTURE, LAYOUT], ids=["architecture", "layout"])
def test_the_shown_changes_apply_and_are_in_style(text, copy):
    touched = follow(text, copy)
    assert len(touched) >= 2
    files = [str(path) for path in touched if path.suffix == ".py"]
    for step in (["format", "--check"], ["check"]):
        words = [sys.executable, "-m", "ruff", *step, "--no-cache", *files]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
@pytest.mark.usefixtures("one_core", "small_synthetic")
def test_the_fifth_architecture_is_swept_and_the_further_layout_prepared_and_trained_on(copy):
    follow(ARCHITECTURE, copy)
    said = run(ARCHITECTURE)
    assert said.count("winner: trial") == 1 and "hidden" in said
    follow(LAYOUT, copy)
    faces = np.random.default_rng(0).integers(0, 256, (140, 48, 48), dtype=np.uint8)
    np.savez_compressed("faces.npz", images=faces, labels=np.arange(140) % 7)
    assert "mine: 140 images from faces.npz (numpy arrays)" in run(LAYOUT)
    assert len(open_dataset("mine").images) == 140
