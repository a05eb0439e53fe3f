"""The Python API on real small trainings, as a notebook uses it."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fer_sweep
from fer_sweep import api
from fer_sweep.errors import DataError, InputError, NothingToDo, SweepFileError
from tests.cli.test_process import HEAVY
from tests.support.processes import SWEEP

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def file(tiny_data: str, tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("EPOCHS", "2"))
    return path


def test_importing_fersweep_imports_nothing_heavy() -> None:
    code = "import sys, fer_sweep; print(' '.join(m for m in sys.modules if '.' not in m))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(found)


def test_the_names_promised_are_there_and_no_module_hides_one() -> None:
    for name in fer_sweep.__all__:
        assert getattr(fer_sweep, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="'nonsense'"):
        fer_sweep.nonsense  # noqa: B018 what it is to raise is the point


def test_a_sweep_is_made_worked_on_and_looked_at(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    choice = sweep.best()
    assert choice.overall.winner is not None
    assert choice.overall.winner.record == trial
    assert fer_sweep.best(sweep).overall.winner == fer_sweep.best(sweep.id).overall.winner == choice.overall.winner
    assert fer_sweep.best().overall.winner == choice.overall.winner
    assert fer_sweep.sweep() == fer_sweep.sweep(sweep.id) == sweep
    page = sweep.report("looked-at.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert sweep.id in page
    said = capsys.readouterr()
    assert "trial 0 complete" in said.out
    assert "\x1b" not in said.out
    with pytest.raises(NothingToDo, match="finished"):
        sweep.agent(gpus="none", slots=1)


def test_records_are_a_data_frame(file: Path) -> None:
    pytest.importorskip("pandas", reason="no pandas here: pip install 'fersweep[notebook]'")
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


def test_without_pandas_it_says_how_to_get_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pandas is not installed") as error:
        fer_sweep.create(file).records()
    assert "fersweep[notebook]" in str(error.value.hint)


def test_an_agent_beside_the_main_thread_works(file: Path) -> None:
    sweep = fer_sweep.create(file)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            sweep.agent(gpus="none", slots=1)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert sweep.state == "finished"


def test_what_cannot_be_used_is_said(file: Path, tmp_path: Path) -> None:
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


def test_a_script_without_a_main_guard_may_train(file: Path, tmp_path: Path) -> None:
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
