"""What Tab offers: through the completion's own protocol in this process, and once in a real bash."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fer_sweep.search.registry import SEARCHES

from fer_sweep.agent.failures import OnOom
from fer_sweep.cli import app
from fer_sweep.cli.completing import sweep_ids
from fer_sweep.records import ExportFormat
from tests.cli.conftest import write_sweep
from tests.support.processes import imported_by
from tests.support.shell import Shell

Tab = Callable[..., list[str]]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def tab(capsys: pytest.CaptureFixture[str]) -> Tab:
    """What is offered behind some words, the last of which is being typed."""

    def press(*words: str) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("_FERSWEEP_COMPLETE", "complete_bash")
            patch.setenv("COMP_WORDS", shlex.join(["fersweep", *words[:-1]]) + f" {words[-1]}")
            patch.setenv("COMP_CWORD", str(len(words)))
            with pytest.raises(SystemExit) as end:
                app(prog_name="fersweep")
        out, err = capsys.readouterr()
        assert (end.value.code, err) == (0, "")  # a message would stand in the middle of the command line
        return out.split()

    return press


def test_commands_options_and_their_values(tab: Tab) -> None:
    assert tab("re") == ["resume", "report", "restore"]
    assert tab("agent", "--g") == ["--gpus"]
    assert tab("data", "") == ["prepare", "list", "audit", "share"]
    assert tab("create", "x.yaml", "--search", "") == list(SEARCHES)
    assert tab("agent", "--on-oom", "") == list(OnOom)
    assert tab("export", "--format", "") == list(ExportFormat)


def test_train_knows_the_architectures_and_the_fields_of_the_given_one(tab: Tab) -> None:
    assert tab("train", "--model", "") == ["simple_cnn", "deeper_cnn", "resnet18", "vit"]
    fields = ["--data", "--drop_val_copies", "--dropout", "--dim", "--depth"]
    assert tab("train", "--model", "vit", "--d") == ["--device", *fields]
    assert tab("train", "--model", "vit", "--data", "x", "--channels") == []


def test_sweeps_data_sets_and_files(tab: Tab, shell: Shell, tiny_data: str) -> None:
    shutil.copytree(REPOSITORY / "sweeps", "sweeps")
    sweep = shell.json("create", write_sweep(name="own.yaml"))["sweep"]
    for command in ("agent", "best", "report", "export"):
        assert tab(command, sweep[:2]) == [sweep], command
    for words in (("train", "--folder", "s"), ("agent", "--pool", "agents/")):
        assert tab(*words) == []  # nothing of ours: bash completes the path
    assert sorted(tab("create", "--data", "")) == ["synthetic", tiny_data]
    shipped = sorted(f"sweeps/{path.name}" for path in (REPOSITORY / "sweeps").glob("*.yaml"))
    assert tab("run", "") == ["own.yaml", *shipped]
    assert tab("run", "sweeps/v") == ["sweeps/vit.yaml"]


def test_sweeps_are_offered_newest_first_with_their_names_and_damaged_ones_left_out(tmp_path: Path) -> None:
    contents = {
        "old": '{"name": "first"}',
        "new": '{"name": null, "path": "lab/faces/new"}',
        "odd": "[1]",
        "torn": '{"na',
    }
    for number, (name, content) in enumerate(contents.items()):
        file = tmp_path / ".fersweep" / "sweeps" / name / "sweep.json"
        file.parent.mkdir(parents=True)
        file.write_text(content)
        os.utime(file, (number, number))
    assert sweep_ids("") == [("new", ""), ("old", "first")]
    assert sweep_ids("ol") == [("old", "first")]
    assert sweep_ids("lab/") == [("lab/faces/new", "")]


def test_tab_imports_nothing_heavy() -> None:
    typed = {"_FERSWEEP_COMPLETE": "complete_bash", "COMP_WORDS": "fersweep agent ", "COMP_CWORD": "2"}
    found = imported_by("-c", "import sys; sys.argv = ['fersweep']; from fer_sweep.cli import main; main()", **typed)
    # pydantic is typer's own, for options.
    assert not {"torch", "wandb", "optuna", "numpy", "rich", "sqlalchemy", "yaml"} & found


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_once_the_documented_command_has_installed_it(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "fersweep"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom fer_sweep.cli import main\nmain()\n")
    program.chmod(0o755)
    script = """
        fersweep --install-completion >&2
        source ~/.bashrc
        COMP_WORDS=(fersweep re); COMP_CWORD=1
        _fersweep_completion fersweep
        printf "%s\\n" "${COMPREPLY[@]}"
    """
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    words = ["bash", "--norc", "-ec", script]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["resume", "report", "restore"], done.stderr
