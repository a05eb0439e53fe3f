"""RESULTS.md: its sweeps can be created as written, and its pictures exist and are small."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.shell import Shell

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = (REPOSITORY / "RESULTS.md").read_text()
CREATE = [line for line in RESULTS.splitlines() if line.startswith("fersweep create ")]


@pytest.mark.parametrize("line", CREATE)
def test_each_sweep_can_be_created(line: str, shell: Shell) -> None:
    _, command, file, *options = shlex.split(line)
    code, _, err = shell(command, str(REPOSITORY / file), *options)
    assert code == 0, err


def test_all_four_architectures_are_swept_on_a_gpu_and_on_two_cores() -> None:
    names = [shlex.split(line)[2] for line in CREATE]
    assert names == 2 * [f"sweeps/{name}.yaml" for name in ("simple_cnn", "deeper_cnn", "resnet", "vit")]


def test_pictures_exist_and_are_small() -> None:
    pictures = re.findall(r"!\[[^]]+]\(([^)]+)\)", RESULTS)
    assert pictures
    for picture in pictures:
        content = (REPOSITORY / picture).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) < 300_000, picture
