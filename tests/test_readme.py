"""Every command the README shows is run, in its order, in a folder with a small archive in the real layout."""

import io
import re
import shlex
import shutil
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from fer_sweep.agent.gpus import choose, discover, visible_devices
from fer_sweep.cli import app, main
from tests.processes import QUICK, SWEEP, fersweep
from tests.standin.server import StandIn

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
SHORTER = {command: [f"--set={key}={value}" for key, value in QUICK.items()] for command in ("create", "run")}
"""Added to the commands of the README; every other word is its own."""
FEWER = {"create": "--count 12", "run": "--count 6"}


SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", README, flags=re.MULTILINE)}
"""By heading."""
ONLINE = "With a W&B server"
"""Run with a login."""
GPUS = "One GPU and several"
"""Each of its commands is run on a new sweep, since an agent leaves nothing to do for the next."""
CHANGED = "Extending"
"""Run in a copy that is changed as that section says: see test_readme_extending.py."""


def commands_of(text: str) -> list[str]:
    """The lines of the blocks marked `sh`."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.usefixtures("one_core")
def test_every_command_of_the_readme_does_what_it_says(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_cache: Path
) -> None:
    unplugged = "".join(text for name, text in SECTIONS.items() if name not in (ONLINE, GPUS, CHANGED))
    _run_all(commands_of(unplugged), own_folders, monkeypatch, capsys, tiny_cache)


@pytest.mark.usefixtures("one_core")
def test_every_command_about_servers_does_what_it_says(
    online: StandIn,
    own_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_cache: Path,
) -> None:
    prepare = [command for command in commands_of(README) if " prepare archive" in command]
    assert len(commands_of(SECTIONS[ONLINE])) == 5
    _run_all([*prepare, *commands_of(SECTIONS[ONLINE])], own_folders, monkeypatch, capsys, tiny_cache)
    (sweep,) = online.sweeps.values()
    assert (sweep.project, sweep.state, len(sweep.run_ids)) == ("faces", "FINISHED", 2)


@pytest.mark.parametrize("line", commands_of(SECTIONS[GPUS]))
def test_every_command_about_gpus_trains_where_it_says(line: str, tiny_data: str) -> None:
    program, *words = shlex.split(line, comments=True)
    assert program == "fersweep"
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    assert fersweep("create", "sweep.yaml").returncode == 0
    wanted = words[words.index("--gpus") + 1]
    done = fersweep(*words)
    if wanted == "none":
        assert done.returncode == 0, done.stderr
        assert "slots cpu0 (" in done.stdout and "cpu1 (" in done.stdout
        return
    here = {gpu.index for gpu in choose("auto", discover(), visible_devices())}
    if set(wanted.split(",")) <= here:
        assert done.returncode == 0, done.stderr
        assert "gpu0" in done.stdout
    else:
        assert done.returncode == 2
        assert re.search(rf"--gpus {wanted}: no GPU '\d' here", done.stderr)


def _run_all(
    commands: list[str],
    own_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_cache: Path,
) -> None:
    shutil.copytree(REPOSITORY / "sweeps", own_folders / "sweeps")
    pack(tiny_cache.parent / "faces", own_folders / "archive.zip")
    with Image.open(next((tiny_cache.parent / "faces").rglob("*.png"))) as face:
        face.convert("RGB").resize((640, 480)).save(own_folders / "photo.jpg")
    assert len(commands) >= 5
    for command in commands:
        program, *words = shlex.split(command, comments=True)
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


def pack(faces: Path, target: Path) -> None:
    """Make a zip in the layout of the Kaggle data set out of image folders."""
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
    pack(tiny_cache.parent / "faces", own_folders / "archive.zip")
    notebook = SECTIONS["In a notebook: Colab, Kaggle"]
    cells = re.findall(r"^```python\n(.*?)^```", notebook, flags=re.DOTALL | re.MULTILINE)
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
        text = text.replace("count=12", f"count=2, constants={QUICK}")
        commands = [line.removeprefix("!fersweep ") for line in text.splitlines() if line.startswith("!")]
        for command in commands:
            done = fersweep(*shlex.split(command))  # a cell goes on whatever it returns
            assert done.returncode in (0, 3), done.stderr
        if not commands:
            exec(text, named)
    return named


def test_the_sweep_file_of_the_readme_is_valid_and_binds(tmp_path: Path) -> None:
    from fer_sweep.search.registry import checked

    (block,) = re.findall(r"^```yaml\n(.*?)^```", SECTIONS["The sweep file"], flags=re.DOTALL | re.MULTILINE)
    file = tmp_path / "readme.yaml"
    file.write_text(block)
    assert checked(file).method == "bayes"


def test_the_readme_names_every_command() -> None:
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"`[^`\n]*\b{name}\b", README), name


def test_make_targets_modules_and_extras_of_the_readme_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make (?:[A-Z]+=\S+ )?([a-z]+)\b", README, flags=re.MULTILINE))
    assert {"sweep", "test", "check", "bench", "chaos", "fuzz"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    modules = set(re.findall(r"`python -m ([\w.]+)", README))
    assert {"tests.pictures", "tests.benchmarks"} <= modules
    for module in modules:
        assert find_spec(module) is not None, module
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"pip install 'fersweep\[(\w+)\]'", README)) <= set(extras)


def test_every_command_in_a_line_of_the_readme_is_one_that_fersweep_understands() -> None:
    """Commands in running text are at least taken apart: names, options and their values."""
    found = re.findall(r"`(fersweep (?!needs)[a-z][^`]*)`", README.replace("\n", " "))
    assert len(found) >= 20
    for line in found:
        command, words = get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        if "--help" not in words:
            with command.make_context(line, words):
                pass  # it has been parsed: a name, a value or a missing word would be an error


def test_options_in_the_table_of_commands_are_those_there_are() -> None:
    rows = re.findall(r"^\| (`.*?`) \| ", SECTIONS["Commands"].replace("\\|", " "), flags=re.MULTILINE)
    assert len(rows) >= 15
    for row in rows:
        for text in re.findall(r"`([^`]+)`", row):
            name, *rest = text.split()
            if name == "train" or not (options := set(re.findall(r"--[a-z-]+", text))):
                continue
            command = get_command(app).commands[name]  # type: ignore[attr-defined]
            known = {option for parameter in command.params for option in parameter.opts}
            assert options <= known, (name, rest)


def test_links_within_the_readme_lead_to_headings_and_files() -> None:
    headings = re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (REPOSITORY / target).is_file(), target
