"""What Tab offers, through the protocol of typer's completion in this process."""

import os
import shlex
import shutil
from pathlib import Path

import pytest

from fer_sweep.agent.failures import OnOom
from fer_sweep.cli import app
from fer_sweep.cli.options import sweep_ids
from fer_sweep.records import ExportFormat
from fer_sweep.sweeps.opening import SEARCHES
from tests.cli.conftest import write_sweep
from tests.support.documentation import REPOSITORY


@pytest.fixture
def tab(capsys):
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


def test_commands_options_their_values_and_the_fields_of_an_architecture(tab):
    assert tab("re") == ["retry", "resume", "rename", "report", "restore"]
    assert tab("agent", "--g") == ["--gpus"]
    assert tab("data", "") == ["prepare", "list", "audit", "share", "delete"]
    assert tab("create", "x.yaml", "--search", "") == list(SEARCHES)
    assert tab("agent", "--gpus", "n") == ["none"]
    assert tab("agent", "--on-oom", "") == list(OnOom)
    assert tab("export", "--format", "") == list(ExportFormat)
    assert tab("train", "--model", "") == ["simple_cnn", "deeper_cnn", "resnet18", "vit"]
    distillation = ["--distill_from", "--distill_weight", "--distill_temperature"]
    fields = ["--data", "--drop_val_copies", "--dropout", *distillation, "--dim", "--depth"]
    assert tab("train", "--model", "vit", "--d") == ["--device", *fields]
    assert tab("train", "--model", "vit", "--data", "x", "--channels") == []
    assert tab("create", "x.yaml", "--set", "label") == ["label_smoothing="]


def test_sweeps_data_sets_and_files(tab, shell, tiny_data):
    shutil.copytree(REPOSITORY / "sweeps", "sweeps")
    sweep = shell.json("create", write_sweep(name="own.yaml"))["sweep"]
    for command in ("agent", "best", "report", "export"):
        assert tab(command, sweep[:2]) == [sweep], command
    for words in (("train", "--folder", "s"), ("agent", "--pool", "agents/")):
        assert tab(*words) == []  # nothing of ours: bash completes the path
    assert sorted(tab("create", "--data", "")) == ["synthetic", tiny_data]
    assert tab("run", "")[0] == "own.yaml"
    assert tab("run", "sweeps/v") == ["sweeps/vit.yaml"]


def test_sweeps_are_offered_newest_first_with_their_names_and_damaged_ones_left_out():
    old, new = '{"name": "first"}', '{"name": null, "path": "lab/faces/new"}'
    for number, (name, content) in enumerate({"old": old, "new": new, "odd": "[1]", "torn": '{"na'}.items()):
        file = Path(".fersweep/sweeps", name, "sweep.json")
        file.parent.mkdir(parents=True)
        file.write_text(content)
        os.utime(file, (number, number))
    assert sweep_ids("") == [("new", ""), ("old", "first"), ("first", "old")]
    assert sweep_ids("lab/") == [("lab/faces/new", "")]
