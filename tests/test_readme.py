"""Every command the README shows is run, in its order, in a folder with a small archive in the real layout."""

import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from fer_sweep.cli import main

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
SHORTER = {"create": ["--set", "epochs=1"], "run": ["--set", "epochs=1"]}
"""Added so that a test takes seconds; every other word is the README's."""
FEWER = {"create": "--count 12", "run": "--count 6"}


def _commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.usefixtures("one_core")
def test_every_command_of_the_readme_does_what_it_says(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_cache: Path
) -> None:
    shutil.copytree(REPOSITORY / "sweeps", own_folders / "sweeps")
    with zipfile.ZipFile(own_folders / "archive.zip", "w") as archive:
        for path in sorted((tiny_cache.parent / "faces").rglob("*.png")):
            archive.write(path, path.relative_to(tiny_cache.parent / "faces"))
    commands = _commands()
    assert len(commands) >= 10
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "fersweep"
        if fewer := FEWER.get(words[0]):
            assert fewer in command
            words = shlex.split(command.replace(fewer, "--count 2"))[1:]
        monkeypatch.setattr(sys, "argv", [program, *words, *SHORTER.get(words[0], [])])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert code == 0, f"{command}\n{out}\n{err}"
        assert out or words[0] == "agent", command


def test_the_sweep_file_of_the_readme_is_valid_and_binds(tmp_path: Path) -> None:
    from fer_sweep.search.registry import checked

    (block,) = re.findall(r"^```yaml\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    file = tmp_path / "readme.yaml"
    file.write_text(block)
    assert checked(file).method == "bayes"


def test_the_readme_names_every_command() -> None:
    from typer.main import get_command

    from fer_sweep.cli import app

    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"`[^`\n]*\b{name}\b", README), name


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (sweep|test|check|bench|lock)\b", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
