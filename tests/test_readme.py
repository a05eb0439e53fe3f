"""Every command the README shows is run, in its order, in a folder with a small archive in the real layout."""

import io
import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fer_sweep.cli import main
from tests.processes import fersweep
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
    _pack(tiny_cache.parent / "faces", own_folders / "archive.zip")
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


def _pack(faces: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(faces.rglob("*.png")):
            archive.write(path, path.relative_to(faces))
            if path.name.startswith("PublicTest_"):  # the layout's test folder pools both test splits
                other = path.with_name(path.name.replace("PublicTest_", "PrivateTest_"))
                archive.writestr(str(other.relative_to(faces)), _other_face(path))


def _other_face(path: Path) -> bytes:
    """The face upside down: no copy of one in the validation split."""
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.usefixtures("one_core")
def test_the_notebook_of_the_readme_begins_on_one_machine_and_goes_on_on_the_next(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, tiny_cache: Path
) -> None:
    pytest.importorskip("pandas", reason="no pandas here: pip install 'fersweep[notebook]'")
    drive = own_folders / "drive"
    drive.mkdir()
    monkeypatch.setenv("HOME", str(own_folders))  # nobody's Downloads
    shutil.copytree(REPOSITORY / "sweeps", own_folders / "sweeps")
    _pack(tiny_cache.parent / "faces", own_folders / "archive.zip")
    cells = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len(cells) == 4

    first = _notebook(cells, drive, agent="count=1, ")
    second_home = own_folders / "next" / ".fersweep"
    monkeypatch.setenv("FERSWEEP_HOME", str(second_home))
    monkeypatch.setenv("FERSWEEP_CACHE", str(own_folders / "next" / "cache"))
    second = _notebook(cells, drive, agent="")
    assert second["sweep"] == first["sweep"]
    assert [str(trial.state) for trial in second["sweep"].trials()] == ["complete", "complete"]
    assert second["choice"].overall.winner is not None


def _notebook(cells: list[str], drive: Path, *, agent: str) -> dict[str, Any]:
    """Run cells as a fresh kernel does, in little; returns what they named."""
    named: dict[str, Any] = {}
    for cell in cells:
        text = cell.replace("/content/drive/MyDrive", str(drive)).replace("agent(", f"agent({agent}")
        text = text.replace("count=12", "count=2, constants={'epochs': 1}")
        commands = [line.removeprefix("!fersweep ") for line in text.splitlines() if line.startswith("!")]
        for command in commands:
            done = fersweep(*shlex.split(command))  # a cell goes on whatever it returns
            assert done.returncode in (0, 3), done.stderr
        if not commands:
            exec(text, named)
    return named


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
