"""RESULTS.md: its sweeps can be made as written, and what it shows is there and small."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.processes import fersweep

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = (REPOSITORY / "RESULTS.md").read_text()
CREATE = [line for line in RESULTS.splitlines() if line.startswith("fersweep create ")]


@pytest.mark.parametrize("line", CREATE)
@pytest.mark.usefixtures("own_folders")
def test_each_of_its_sweeps_is_made(line: str) -> None:
    _, command, file, *options = shlex.split(line)
    done = fersweep(command, str(REPOSITORY / file), *options)
    assert done.returncode == 0, done.stderr


def test_all_four_architectures_are_swept_on_a_gpu_and_on_two_cores() -> None:
    names = [shlex.split(line)[2] for line in CREATE]
    assert names == 2 * [f"sweeps/{name}.yaml" for name in ("simple_cnn", "deeper_cnn", "resnet", "vit")]


def test_its_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[[^]]+]\(([^)]+)\)", RESULTS)
    assert pictures
    for picture in pictures:
        content = (REPOSITORY / picture).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) < 300_000, picture
