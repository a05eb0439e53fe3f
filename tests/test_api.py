"""The Python API as a notebook uses it: on trials played by threads, and once on real ones in a script."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fer_sweep
from fer_sweep import api
from fer_sweep.errors import DataError, InputError, NothingToDo, SweepFileError
from tests.support.processes import SWEEP, imported_by
from tests.support.scripted_starter import ScriptedStarter

HEAVY = {"torch", "torchvision", "transformers", "wandb", "optuna", "numpy", "scipy", "pydantic", "rich", "sqlalchemy"}


@pytest.fixture
def file(tiny_data: str, tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("EPOCHS", "2"))
    return path


def test_importing_fersweep_imports_nothing_heavy() -> None:
    assert not HEAVY & imported_by("-c", "import fer_sweep")


def test_public_names_exist_and_no_module_shadows_one() -> None:
    for name in fer_sweep.__all__:
        assert getattr(fer_sweep, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="'nonsense'"):
        fer_sweep.nonsense  # noqa: B018 what it is to raise is the point


def test_a_sweep_is_created_worked_on_and_reported(
    file: Path, played_trials: ScriptedStarter, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = fer_sweep.create(str(file), constants={"lr": 0.01}, count=2, seed=3)
    assert sweep.state == "running"
    assert sweep.trials() == []
    with pytest.raises(NothingToDo, match="no trial yet"):
        sweep.report("nothing.html")
    done = sweep.agent(gpus="none", slots=1)
    assert not done.interrupted
    assert sweep.state == "finished"
    (trial,) = sweep.trials()  # a constant learning rate leaves a single configuration
    assert trial.parameters["lr"] == 0.01
    winner = sweep.best().overall.winner
    assert winner is not None
    assert winner.record == trial
    for choice in (fer_sweep.best(), fer_sweep.best(sweep), fer_sweep.best(sweep.id)):
        assert choice.overall.winner == winner
    assert fer_sweep.sweep() == fer_sweep.sweep(sweep.id) == sweep
    page = sweep.report("looked-at.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert sweep.id in page
    said = capsys.readouterr()
    assert "trial 0 complete" in said.out
    assert "\x1b" not in said.out
    with pytest.raises(NothingToDo, match="finished"):
        sweep.agent(gpus="none", slots=1)


def test_records_and_histories_are_data_frames(file: Path, played_trials: ScriptedStarter) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: pip install 'fersweep[notebook]'")
    sweep = fer_sweep.create(file)
    assert sweep.records().empty
    sweep.agent(gpus="none", slots=1)
    frame = sweep.records()
    assert list(frame.index) == ["0"]
    assert frame.loc["0", "state"] == "complete"
    assert frame.loc["0", "best_val_acc"] == sweep.trials()[0].metrics["best_val_acc"]
    assert frame["lr"].dtype == float
    history = sweep.history(0)
    assert list(history.index) == [1, 2]
    assert {"val_acc", "train_loss"} <= set(history.columns)
    with pytest.raises(InputError, match="no trial 7"):
        sweep.history(7)


def test_without_pandas_the_error_says_what_to_install(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pandas is not installed") as error:
        fer_sweep.create(file).records()
    assert "fersweep[notebook]" in str(error.value.hint)


def test_an_agent_runs_outside_the_main_thread(file: Path, played_trials: ScriptedStarter) -> None:
    sweep = fer_sweep.create(file)
    thread = threading.Thread(target=sweep.agent, kwargs={"gpus": "none", "slots": 1})
    thread.start()
    thread.join()
    assert sweep.state == "finished"


def test_bad_arguments_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(SweepFileError, match="epocs"):
        fer_sweep.create(file, constants={"epocs": 3})
    with pytest.raises(InputError, match="on_oom 'cry'"):
        fer_sweep.create(file).agent(on_oom="cry")
    with pytest.raises(InputError, match="no sweep 'nonsense'"):
        fer_sweep.sweep("nonsense")
    with pytest.raises(DataError, match="no such file"):
        fer_sweep.prepare(tmp_path / "nowhere.zip")
    with pytest.raises(NothingToDo, match="no mirror"):
        fer_sweep.restore(tmp_path / "nowhere")


@pytest.mark.process
@pytest.mark.usefixtures("one_core")
def test_a_script_without_a_main_guard_trains_and_never_imports_torch(file: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys, fer_sweep\n"
        f"sweep = fer_sweep.run({str(file)!r}, count=1, gpus='none', slots=1)\n"
        "heavy = [m for m in ('torch', 'transformers') if m in sys.modules]\n"
        "print(json.dumps([sweep.state, heavy]))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["finished", []]
