"""Shipped files are found by name from any folder, unless the folder has its own, and are copied by ``init``."""

import tomllib
from pathlib import Path

import pytest

from fer_sweep.shipped import resolve, shipped_folder
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("given", ["simple_cnn", "sweeps/simple_cnn.yaml"])
def test_own_files_come_before_shipped_ones(own_folders, given):
    assert resolve("sweeps", Path(given)) == REPOSITORY / "sweeps" / "simple_cnn.yaml"
    own = Path("sweeps/simple_cnn.yaml")
    own.parent.mkdir()
    own.touch()
    assert resolve("sweeps", Path(given)) == own
    for unknown in (Path("resnet.yaml"), Path("elsewhere/resnet.yaml"), Path("nothing")):
        assert resolve("sweeps", unknown) == unknown


def test_init_copies_what_the_commands_take_by_name(shell):
    assert shell("validate", "simple_cnn")[0] == 0
    code, out, _ = shell("init")
    assert code == 0 and "sweeps/: deeper_cnn.yaml, multi_objective.yaml, resnet.yaml, simple_cnn.yaml, vit.yaml" in out
    for kind in ("sweeps", "agents"):
        shipped = {path.name: path.read_bytes() for path in shipped_folder(kind).iterdir()}
        assert {path.name: path.read_bytes() for path in Path(kind).iterdir()} == shipped
    code, _, err = shell("init")
    assert code == 2 and "already here: sweeps, agents" in err


def test_the_wheel_has_the_shipped_files():
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {kind: f"fer_sweep/shipped_files/{kind}" for kind in ("sweeps", "agents")}
