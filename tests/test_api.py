"""The Python API as a notebook uses it: on trials played by threads, and once on real ones in a script."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fer_sweep
from fer_sweep import api
from fer_sweep.errors import InputError, NothingToDo
from tests.support.processes import SWEEP, imported_by

HEAVY = {"torch", "torchvision", "transformers", "wandb", "optuna", "numpy", "scipy", "rich", "sqlalchemy", "yaml"}
HEAVY |= {"plotly", "jinja2", "optuna_dashboard"}
COMMAND = "import sys; sys.argv = ['fersweep']; from fer_sweep.cli import main; main()"
TAB = {"_FERSWEEP_COMPLETE": "complete_bash", "COMP_WORDS": "fersweep agent ", "COMP_CWORD": "2"}


@pytest.fixture
def file(tiny_data):
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "2"))
    return "sweep.yaml"


@pytest.mark.parametrize(
    ("code", "environment", "more"),
    [
        ("import fer_sweep", {}, {"pydantic"}),
        ("import fer_sweep.cli", {}, {"pydantic"}),
        (COMMAND, TAB, set()),  # pydantic is typer's own there, for options
    ],
)
def test_importing_and_completing_import_nothing_heavy(code, environment, more):
    assert not (HEAVY | more) & imported_by("-c", code, **environment)


def test_public_names_exist_and_no_module_shadows_one():
    for name in fer_sweep.__all__:
        assert getattr(fer_sweep, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="'nonsense'"):
        fer_sweep.nonsense  # noqa: B018 what it is to raise is the point


def test_a_sweep_is_created_worked_on_and_reported(file, played_trials, capsys):
    sweep = fer_sweep.create(file, constants={"lr": 0.01}, count=2, seed=3)
    assert (sweep.state, sweep.trials()) == ("running", [])
    with pytest.raises(NothingToDo, match="no trials yet"):
        sweep.report("nothing.html")
    with pytest.raises(InputError, match="on_oom 'cry'"):
        sweep.agent(on_oom="cry")
    assert not sweep.agent(gpus="none", slots=1).interrupted
    assert sweep.state == "finished"
    (trial,) = sweep.trials()  # a constant learning rate leaves a single configuration
    assert trial.parameters["lr"] == 0.01
    winner = sweep.best().overall.winner
    assert winner is not None and winner.record == trial
    for choice in (fer_sweep.best(), fer_sweep.best(sweep), fer_sweep.best(sweep.id)):
        assert choice.overall.winner == winner
    assert fer_sweep.sweep() == fer_sweep.sweep(sweep.id) == sweep
    assert sweep.id in sweep.report("looked-at.html").read_text()
    said = capsys.readouterr().out
    assert "trial 0 complete" in said and "\x1b" not in said
    with pytest.raises(NothingToDo, match="finished"):
        sweep.agent(gpus="none", slots=1)


def test_an_agent_runs_outside_the_main_thread_and_its_records_are_data_frames(file, played_trials, monkeypatch):
    pytest.importorskip("pandas", reason="pandas is not installed: pip install 'fersweep[notebook]'")
    sweep = fer_sweep.create(file)
    assert sweep.records().empty
    thread = threading.Thread(target=sweep.agent, kwargs={"gpus": "none", "slots": 1})
    thread.start()
    thread.join()
    frame = sweep.records()
    assert frame.loc["0", "state"] == "complete"
    assert frame.loc["0", "best_val_acc"] == sweep.trials()[0].metrics["best_val_acc"]
    assert frame["lr"].dtype == float
    history = sweep.history(0)
    assert list(history.index) == [1, 2]
    assert {"val_acc", "train_loss"} <= set(history.columns)
    with pytest.raises(InputError, match="no trial 7"):
        sweep.history(7)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pandas is not installed") as error:
        sweep.records()
    assert "fersweep[notebook]" in str(error.value.hint)


SCRIPT = """\
import json, sys, fer_sweep
open("script-was-run", "a").write("x")
sweep = fer_sweep.run("sweep.yaml", count=1, gpus="none", slots=1)
print(json.dumps([sweep.state, [m for m in ("torch", "torchvision", "transformers") if m in sys.modules]]))
"""


@pytest.mark.process
@pytest.mark.usefixtures("one_core", "file")
def test_a_script_without_a_main_guard_trains_is_run_by_no_fork_and_never_imports_torch():
    Path("script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["finished", []]
    # A fork that ran the main module again would pay for its imports, and break when they change on disk.
    assert Path("script-was-run").read_text() == "x"
