"""RESULTS.md: its sweeps can be created as written, and its pictures exist and are small."""

import re
import shlex

from tests.support.documentation import REPOSITORY
from tests.support.shell import Shell

RESULTS = (REPOSITORY / "RESULTS.md").read_text()


def test_all_four_architectures_are_swept_on_a_gpu_and_on_two_cores(shell: Shell) -> None:
    commands = [shlex.split(line)[1:] for line in RESULTS.splitlines() if line.startswith("fersweep create ")]
    names = [file for _, file, *_ in commands]
    assert names == 2 * [f"sweeps/{name}.yaml" for name in ("simple_cnn", "deeper_cnn", "resnet", "vit")]
    for command, file, *options in commands:
        code, _, err = shell(command, str(REPOSITORY / file), *options)
        assert code == 0, err


def test_pictures_exist_and_are_small() -> None:
    pictures = re.findall(r"!\[[^]]+]\(([^)]+)\)", RESULTS)
    assert pictures
    for picture in pictures:
        content = (REPOSITORY / picture).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) < 300_000, picture
