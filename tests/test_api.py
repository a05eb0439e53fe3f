"""The Python API as a notebook uses it: on trials played by threads, and once on real ones in a script."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fer_sweep
from fer_sweep import api
from fer_sweep.errors import InputError, NothingToDo, SweepFileError
from fer_sweep.sweeps import known
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
        ("import fer_sweep; dir(fer_sweep)", {}, {"pydantic"}),
        ("import fer_sweep.cli", {}, {"pydantic"}),
        (COMMAND, TAB, set()),  # pydantic is typer's own there, for options
    ],
)
def test_importing_and_completing_import_nothing_heavy(code, environment, more):
    assert not (HEAVY | more) & imported_by("-c", code, **environment)


def test_public_names_exist_are_shown_and_no_module_shadows_one():
    assert {*fer_sweep.__all__, "__version__"} <= set(dir(fer_sweep))
    assert fer_sweep.__version__[0].isdigit()
    for name in fer_sweep.__all__:
        assert getattr(api, name).__doc__
        assert getattr(fer_sweep, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="'nonsense'"):
        fer_sweep.nonsense  # noqa: B018 what it is to raise is the point


def test_a_sweep_is_created_worked_on_and_reported(file, played_trials, capsys):
    sweep = fer_sweep.create(file, constants={"lr": 0.01}, count=2, seed=3)
    assert (sweep.state, sweep.trials()) == ("running", [])
    with pytest.raises(NothingToDo, match="no trials yet"):
        sweep.report("nothing.html")
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
    first = ["state", "best_val_acc", "train_val_gap", "verdict", "epochs_trained", "lr"]
    assert list(frame.columns[:6]) == first and {"seconds", "epochs", "reason"} <= set(frame.columns[6:])
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


@pytest.mark.usefixtures("played_trials", "tiny_data")
def test_a_sweep_is_a_dictionary_too_and_a_cell_that_is_run_again_opens_it(capsys):
    space = {
        "method": "grid",
        "parameters": {name: {"value": value} for name, value in {"model": "simple_cnn", "data": "tiny"}.items()},
    }
    space["parameters"]["lr"] = {"values": np.geomspace(0.001, 0.1, 3)}
    sweep = fer_sweep.open_or_create(space, name="rates", constants={"epochs": np.int64(1)}, count=2)
    assert fer_sweep.open_or_create(space, name="rates", constants={"epochs": 1}, count=2) == sweep
    assert fer_sweep.create(space).id != sweep.id and capsys.readouterr().out == ""
    fer_sweep.open_or_create(space, name="rates", constants={"epochs": 1}, count=3)
    assert "keeps its largest number of trials, 2" in capsys.readouterr().out
    plain = {**space, "method": "bayes", "metric": {"name": "val_acc", "goal": "maximize"}}
    for sampler in ("tpe", "random"):
        fer_sweep.open_or_create(plain, name="chosen", sampler=sampler)
    assert capsys.readouterr().out == "note: sweep chosen keeps its search, TPE\n"
    sweep.agent(gpus=[], slots=1)
    assert [trial.parameters["lr"] for trial in sweep.trials()] == pytest.approx([0.001, 0.01])
    with pytest.raises(InputError, match="other parameters"):
        fer_sweep.open_or_create(space, name="rates", constants={"epochs": 2})
    space["parameters"]["lr"]["values"] = [0.1, object()]
    with pytest.raises(SweepFileError, match=r"parameters\.lr\.values\.1: a value of type object"):
        fer_sweep.create(space)


@pytest.mark.parametrize(
    ("call", "said", "hint"),
    [
        (lambda sweep: sweep.agent(on_oom="cry"), "agent: on_oom cannot be 'cry'", "smaller_micro_batch"),
        (lambda sweep: sweep.agent(gpus=[0]), "unknown GPU '0'", "gpus none"),
        (lambda sweep: sweep.agent(gpus=0), "unknown GPU '0'", "gpus none"),
        (lambda sweep: sweep.agent(gpus=None), "gpus cannot be None", "auto, none, mps, a number"),
        (lambda sweep: sweep.agent(gpus=True), "gpus cannot be True", "auto, none, mps, a number"),
        (lambda sweep: sweep.agent(per_gpu="many"), "per_gpu cannot be 'many'", "auto or None"),
        (lambda sweep: sweep.agent(slots=0), "slots cannot be 0", "at least 1"),
        (lambda sweep: sweep.agent(gpu=0), "unexpected keyword argument 'gpu'", "did you mean gpus?"),
        (lambda sweep: sweep.plot("nonsense"), "no figure 'nonsense'", "pareto, accuracy"),
        (lambda sweep: fer_sweep.create(["a"]), "create: file cannot be", "or a dictionary"),
        (lambda sweep: fer_sweep.run("sweep.yaml", gpus=[7]), "unknown GPU '7'", "gpus none"),
        (lambda sweep: fer_sweep.run("sweep.yaml", slots="two"), "slots cannot be 'two'", "at least 1"),
        (lambda sweep: fer_sweep.run("sweep.yaml", data="nowhere"), "no data set 'nowhere'", "data prepare"),
        (lambda sweep: sweep.agent(deadline="8"), "deadline 8: not a time", "18:30"),
        (lambda sweep: fer_sweep.best([sweep]), "best: sweeps cannot be", "each an argument"),
    ],
)
def test_a_wrong_argument_is_refused_with_a_hint_before_anything_is_created(file, monkeypatch, call, said, hint):
    monkeypatch.setattr("fer_sweep.worker.slots.discover", lambda note: ())
    sweep = fer_sweep.create(file)
    with pytest.raises(InputError, match=re.escape(said)) as error:
        call(sweep)
    assert hint in str(error.value.hint) and f"hint: {error.value.hint}" in error.value.__notes__
    assert "--" not in f"{error.value} {error.value.hint}".partition("fersweep")[0], "an option of the command line"
    assert len(known()) == 1


@pytest.mark.parametrize(("argument", "measured"), [({"per_gpu": "auto"}, False), ({"slots": "auto"}, True)])
def test_auto_measures_how_many_trials_to_train_at_once(file, played_trials, monkeypatch, argument, measured):
    asked = []
    monkeypatch.setattr("fer_sweep.worker.slots.discover", lambda note: ())
    monkeypatch.setattr("fer_sweep.agent.session._measured", lambda *given: asked.append(given) or 1)
    assert repr(fer_sweep.create(file).agent(**argument)) == "<AgentSummary: 1 complete>"
    assert bool(asked) is measured


def test_a_cell_shows_a_sweep_and_a_choice_with_small_figures_and_plots_the_others(file, played_trials):
    sweep = fer_sweep.create(file, name="<b>faces</b>")
    assert repr(sweep) == f"<Sweep {sweep.id}, <b>faces</b>: running, 0 trials>"
    assert "no trials yet" in sweep._repr_html_() and "<b>faces" not in sweep._repr_html_()
    with pytest.raises(NothingToDo, match="no figure 'pareto'"):
        sweep.plot()
    sweep.agent(gpus="none", slots=1)
    choice = fer_sweep.best(sweep)
    winner = choice.overall.winner
    assert repr(sweep).endswith(f"finished, 1 trial, best {winner.result.best_val_acc:.1%} in trial 0>")
    assert repr(choice).startswith(f"<Choice: {winner.name}, best_val_acc {winner.result.best_val_acc:.1%}, gap ")
    for shown in (sweep, choice):
        assert shown._repr_html_().count('<svg viewBox="0 0') == 2
    assert sweep.plot("recall").data


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
