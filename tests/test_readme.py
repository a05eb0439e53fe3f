"""Every command the README shows is run, in its order, in a folder with a small archive in the real layout."""

import io
import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from fer_sweep.cli import main
from tests.standin.server import StandIn

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
SHORTER = {"create": ["--set", "epochs=1"], "run": ["--set", "epochs=1"]}
"""Added so that a test takes seconds; every other word is the README's."""
FEWER = {"create": "--count 12", "run": "--count 6"}


ONLINE = "## With a W&B server"
"""What stands below this heading is run with a login."""


def _commands(text: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.usefixtures("one_core")
def test_every_command_of_the_readme_does_what_it_says(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_cache: Path
) -> None:
    unplugged, with_server = README.split(ONLINE)
    _run_all(_commands(unplugged), own_folders, monkeypatch, capsys, tiny_cache)
    assert len(_commands(with_server)) == 5


@pytest.mark.usefixtures("one_core")
def test_every_command_about_servers_does_what_it_says(
    online: StandIn,
    own_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_cache: Path,
) -> None:
    prepare = [command for command in _commands(README) if " prepare " in command]
    _run_all([*prepare, *_commands(README.split(ONLINE)[1])], own_folders, monkeypatch, capsys, tiny_cache)
    (sweep,) = online.sweeps.values()
    assert (sweep.project, sweep.state, len(sweep.run_ids)) == ("faces", "FINISHED", 2)


def _run_all(
    commands: list[str],
    own_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_cache: Path,
) -> None:
    shutil.copytree(REPOSITORY / "sweeps", own_folders / "sweeps")
    with zipfile.ZipFile(own_folders / "archive.zip", "w") as archive:
        for path in sorted((tiny_cache.parent / "faces").rglob("*.png")):
            archive.write(path, path.relative_to(tiny_cache.parent / "faces"))
            if path.name.startswith("PublicTest_"):  # the layout's test folder pools both test splits
                other = path.with_name(path.name.replace("PublicTest_", "PrivateTest_"))
                archive.writestr(str(other.relative_to(tiny_cache.parent / "faces")), _other_face(path))
    with Image.open(next((tiny_cache.parent / "faces").rglob("*.png"))) as face:
        face.convert("RGB").resize((640, 480)).save(own_folders / "photo.jpg")
    assert len(commands) >= 5
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


def _other_face(path: Path) -> bytes:
    """The face upside down: no copy of one in the validation split."""
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(stream, "PNG")
    return stream.getvalue()


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
