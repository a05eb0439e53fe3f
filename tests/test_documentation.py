"""Every page that users read: its commands are run, what it names exists, its links lead somewhere; and docstrings."""

import doctest
import re
import shlex
import shutil
import tomllib
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from fer_sweep import api
from fer_sweep.cli import app
from fer_sweep.data.cache import prepare
from fer_sweep.sweeps.opening import checked
from tests.support.documentation import PAGES, REPOSITORY, TEXT, Block, blocks, code, rows, section
from tests.support.faces import Faces, prepare_synthetic, write_zip
from tests.support.processes import SWEEP, on_one_core
from tests.support.scripted_starter import ScriptedStarter, train_for_real
from tests.support.shell import Shell

SMALLER = {"create": ["--set", "epochs=1"], "run": ["--set", "epochs=1"]}
"""Added so that a block takes a second; with `--count 2`, every other word is the page's."""
SERVER = ("--project", "--wandb", "fersweep sync")
"""A block with one of these takes a W&B server."""

RUNNABLE = [block for block in blocks("sh") if "mlp" not in block.text and "faces.npz" not in block.text]
"""All but the blocks of docs/extending.md that need the changes above them; test_extending.py runs those."""
LOCAL = [block for block in RUNNABLE if not any(word in block.text for word in SERVER)]
SERVED = [block for block in RUNNABLE if block not in LOCAL]
GPU_LINES = [line for block in LOCAL for line in block.commands if re.search(r"--gpus \d", line)]


@pytest.fixture(scope="session")
def world_once(tmp_path_factory):
    """What the pages take for granted: our folders, an archive, a photo, prepared data and a trained sweep."""
    world = tmp_path_factory.mktemp("world")
    for name in ("sweeps", "agents"):
        shutil.copytree(REPOSITORY / name, world / name)
    faces = Faces.banded(val=10, test=10)
    write_zip(world / "archive.zip", faces.files())
    Image.fromarray(faces.images[0]).convert("RGB").resize((640, 480)).save(world / "photo.jpg")
    with on_one_core(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(world / "cache"))
        patch.setenv("FERSWEEP_HOME", str(world / ".fersweep"))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr("fer_sweep.agent.session.starter_for", lambda slots, models: ScriptedStarter(train_for_real))
        prepare(world / "archive.zip", "fer2013")
        prepare_synthetic()
        (world / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "2").replace("tiny", "fer2013"))
        api.create(world / "sweep.yaml").agent(gpus="none", slots=1)
    return world


@pytest.fixture
def world(world_once, own_folders, monkeypatch):
    """A copy of it, of which the test's folder consists; two cores, no GPU."""
    shutil.copytree(world_once, own_folders, dirs_exist_ok=True)
    monkeypatch.setattr("fer_sweep.worker.slots.usable_cores", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def run_block(block: Block, shell: Shell) -> None:
    """Run each command of a block, in little; an agent gets a new sweep where the last one is finished."""
    for line in block.commands:
        words = shlex.split(re.sub(r"--count \d+", "--count 2", line), comments=True)[1:]
        if words[0] == "agent" and shell.json("status")["state"] == "finished":
            assert shell("create", "sweep.yaml")[0] == 0
        code, out, err = shell(*words, *SMALLER.get(words[0], []))
        if line in GPU_LINES:
            assert code == 2 and re.search(r"gpus [\d,]+: unknown GPU '\d'", err), line
            continue
        assert code == 0, f"{line}\n{out}\n{err}"
        assert out, line


@pytest.mark.usefixtures("world", "played_trials", "one_core")
@pytest.mark.parametrize("block", LOCAL, ids=[block.place for block in LOCAL])
def test_every_command_succeeds(block, shell):
    run_block(block, shell)


@pytest.mark.stock
@pytest.mark.usefixtures("world", "played_trials", "one_core")
@pytest.mark.parametrize("block", SERVED, ids=[block.place for block in SERVED])
def test_every_command_about_servers_succeeds(block, shell, online):
    run_block(block, shell)
    (sweep,) = online.sweeps.values()
    assert sweep.run_ids


CLUSTER_LINES = [line for block in blocks("bash", "text") for line in block.commands]
INLINE = re.findall(r"`(fersweep (?!needs)[a-z][^`]*)`", TEXT.replace("\n", " "))


@pytest.mark.parametrize("line", dict.fromkeys([*CLUSTER_LINES, *INLINE]))
def test_commands_for_clusters_and_in_running_text_can_be_parsed(line):
    command, words = get_command(app), shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    if "--help" not in words:
        with command.make_context(line, words):  # an unknown name, option or value is an error
            pass


def test_there_are_commands_to_test():
    assert len(LOCAL) >= 6 and len(SERVED) >= 2 and len(GPU_LINES) >= 3 and len(CLUSTER_LINES) >= 10
    assert len(INLINE) >= 20
    assert {line.split()[1] for line in CLUSTER_LINES} >= {"create", "agent", "status", "best"}


def test_the_notebook_starts_on_one_machine_and_resumes_on_the_next(
    world, own_folders, shell, played_trials, monkeypatch
):
    pytest.importorskip("pandas", reason="pandas is not installed: pip install 'fersweep[notebook]'")
    drive = own_folders / "drive"
    drive.mkdir()
    monkeypatch.setenv("HOME", str(own_folders))  # for `data prepare auto`, which looks into Downloads
    cells = code(section("In a notebook"), "python")
    assert len(cells) == 7

    def run_cells(machine: str, agent: str) -> dict[str, Any]:
        """Run the cells as a fresh kernel of a machine does, in little; returns what they named."""
        monkeypatch.setenv("FERSWEEP_HOME", str(own_folders / machine / ".fersweep"))
        monkeypatch.setenv("FERSWEEP_CACHE", str(own_folders / machine / "cache"))
        named: dict[str, Any] = {}
        for cell in cells:
            text = cell.replace("/content/drive/MyDrive", str(drive)).replace("agent(", f"agent({agent}")
            text = text.replace("count=12", "count=2, constants={'epochs': 1}")
            commands = [line.removeprefix("!fersweep ") for line in text.splitlines() if line.startswith("!")]
            for command in commands:
                status, _, err = shell(*shlex.split(command))  # a cell continues whatever it returns
                assert status in (0, 3), err
            if not commands:
                exec(text, named)
        return named

    first = run_cells("first", "count=1, ")
    second = run_cells("second", "")
    assert second["sweep"] == first["sweep"]
    assert [str(trial.state) for trial in second["sweep"].trials()] == ["complete", "complete"]
    assert second["choice"].overall.winner is not None


def test_the_sweep_file_is_valid_and_binds(tmp_path):
    (block,) = code(section("The sweep file"), "yaml")
    file = tmp_path / "documented.yaml"
    file.write_text(block)
    assert checked(file).method == "bayes"


def test_every_command_is_named_and_options_in_the_table_of_commands_exist():
    commands = get_command(app).commands
    for name in commands:
        assert re.search(rf"`[^`\n]*\b{name}\b", TEXT), name
    found = rows("command")
    assert len(found) >= 15
    for row in found:
        for text in re.findall(r"`([^`]+)`", row[0]):
            name, options = text.split()[0], set(re.findall(r"--[a-z-]+", text))
            if name == "train" or not options:
                continue
            assert options <= {option for parameter in commands[name].params for option in parameter.opts}, text


def test_make_targets_modules_and_extras_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make (?:[A-Z]+=\S+ )?([a-z]+)\b", TEXT, flags=re.MULTILINE))
    assert {"sweep", "test", "check", "bench", "chaos"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    modules = set(re.findall(r"`python -m ([\w.]+)", TEXT))
    assert {"tests.pictures", "tests.benchmarks"} <= modules
    for module in modules:
        assert find_spec(module) is not None, module
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"pip install 'fersweep\[(\w+)\]'", TEXT)) <= set(extras)


def test_the_readme_has_at_most_10_kb_and_links_to_every_page():
    readme = (REPOSITORY / "README.md").read_text()
    assert len(readme.encode()) <= 10_000
    for page in REPOSITORY.glob("docs/**/*.md"):
        assert f"]({page.relative_to(REPOSITORY)})" in readme, page


RESULTS = REPOSITORY / "RESULTS.md"


def test_all_four_architectures_are_swept_on_a_gpu_and_on_two_cores_as_the_results_say(shell):
    commands = [
        shlex.split(line)[1:] for line in RESULTS.read_text().splitlines() if line.startswith("fersweep create")
    ]
    files = [f"sweeps/{name}.yaml" for name in ("simple_cnn", "deeper_cnn", "resnet", "vit")]
    assert [file for _, file, *_ in commands] == 2 * files
    for command, file, *options in commands:
        code, _, err = shell(command, str(REPOSITORY / file), *options)
        assert code == 0, err


MODULES = [path for path in sorted(REPOSITORY.glob("fer_sweep/**/*.py")) if ">>>" in path.read_text()]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_examples_in_docstrings_give_what_they_say(path):
    module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    failed, run = doctest.testmod(import_module(module))
    assert run > 0 and failed == 0


@pytest.mark.parametrize("page", [*PAGES, RESULTS], ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_and_pictures_lead_to_headings_and_files(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}, target
