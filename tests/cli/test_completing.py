"""Tab as bash presses it: the script that fersweep prints, sourced, and its function called with what was typed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_sweep.agent.failures import OnOom
from fer_sweep.cli.completing import sweep_ids
from fer_sweep.records import ExportFormat
from fer_sweep.search.registry import SEARCHES
from tests.cli.conftest import Shell
from tests.support.processes import SWEEP
from tests.test_readme import README

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")

Tab = Callable[..., list[str]]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The console script on the path, as an installation puts it there."""
    script = tmp_path / "bin" / "fersweep"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom fer_sweep.cli import main\nmain()\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return script


@pytest.fixture
def tab(program: Path) -> Tab:
    """What bash offers behind some words, the last of which is being typed."""

    def press(*words: str) -> list[str]:
        lines = (
            'source <(fersweep --show-completion bash); COMP_WORDS=(fersweep "$@"); COMP_CWORD=$#',
            '_fersweep_completion fersweep; printf "%s\\n" "${COMPREPLY[@]}"',
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", "\n".join(lines), "bash", *words], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""  # it would stand in the middle of the command line
        return done.stdout.split()

    return press


def test_commands_and_options(tab: Tab) -> None:
    assert tab("re") == ["resume", "report", "restore"]
    assert tab("agent", "--g") == ["--gpus"]
    assert tab("data", "") == ["prepare", "list", "audit", "share"]


def test_train_knows_the_architectures_and_the_fields_of_the_one_given(tab: Tab) -> None:
    assert tab("train", "--model", "") == ["simple_cnn", "deeper_cnn", "resnet18", "vit"]
    assert tab("train", "--model", "vit", "--d") == [
        "--device",
        "--data",
        "--drop_val_copies",
        "--dropout",
        "--dim",
        "--depth",
    ]
    assert tab("train", "--model", "vit", "--data", "x", "--channels") == []


def test_sweeps_data_sets_and_files(tab: Tab, shell: Shell, tiny_data: str) -> None:
    shutil.copytree(REPOSITORY / "sweeps", "sweeps")
    Path("own.yaml").write_text("name: mine\n" + SWEEP.replace("EPOCHS", "1"))
    sweep = shell.json("create", "own.yaml")["sweep"]
    for command in ("agent", "best", "report", "export"):
        assert tab(command, sweep[:2]) == [sweep], command
    for words in (("train", "--folder", "s"), ("agent", "--pool", "agents/")):
        assert tab(*words) == []  # nothing of ours: bash completes the path
    assert sorted(tab("create", "--data", "")) == ["synthetic", tiny_data]
    shipped = sorted(f"sweeps/{path.name}" for path in (REPOSITORY / "sweeps").glob("*.yaml"))
    assert tab("run", "") == ["own.yaml", *shipped]
    assert tab("run", "sweeps/v") == ["sweeps/vit.yaml"]


def test_the_words_of_options_are_those_there_are(tab: Tab) -> None:
    assert tab("create", "x.yaml", "--search", "") == list(SEARCHES)
    assert tab("agent", "--on-oom", "") == list(OnOom)
    assert tab("export", "--format", "") == list(ExportFormat)


def test_sweeps_come_newest_first_with_their_names_and_damaged_ones_are_left_out(tmp_path: Path) -> None:
    for number, (name, content) in enumerate(
        {
            "old": '{"name": "first"}',
            "new": '{"name": null, "path": "lab/faces/new"}',
            "odd": "[1]",
            "torn": '{"na',
        }.items()
    ):
        file = tmp_path / ".fersweep" / "sweeps" / name / "sweep.json"
        file.parent.mkdir(parents=True)
        file.write_text(content)
        os.utime(file, (number, number))
    assert sweep_ids("") == [("new", ""), ("old", "first")]
    assert sweep_ids("ol") == [("old", "first")]
    assert sweep_ids("lab/") == [("lab/faces/new", "")]


def test_tab_imports_nothing_heavy() -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*[m for m in sys.modules if '.' not in m], file=sys.stderr))\n"
        "sys.argv = ['fersweep']\n"
        "from fer_sweep.cli import main\n"
        "main()\n"
    )
    typed = {"_FERSWEEP_COMPLETE": "complete_bash", "COMP_WORDS": "fersweep agent ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **typed}
    )
    assert done.returncode == 0, done.stderr
    # pydantic is typer's own, for options.
    assert not {"torch", "wandb", "optuna", "numpy", "rich", "sqlalchemy", "yaml"} & set(done.stderr.split())


def test_the_line_of_the_readme_installs_it(program: Path, tmp_path: Path) -> None:
    assert "fersweep --install-completion" in README
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        # Behind a second command: bash would put itself in the place of fersweep, which asks what shell it is in.
        ["bash", "--norc", "-c", "fersweep --install-completion; exit $?"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ".bash_completions/fersweep.sh" in (tmp_path / ".bashrc").read_text()
    assert "complete_bash" in (tmp_path / ".bash_completions" / "fersweep.sh").read_text()
