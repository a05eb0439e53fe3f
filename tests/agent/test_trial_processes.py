"""The agent with real trials: how a real process crashes, hangs, is killed or starved, and resumes.

Two smoke tests are part of the default run; what the agent makes of an end is tested in test_loop.
"""

import os
import signal
import sys
import threading
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.errors import AgentFailed
from fer_sweep.records import Cause, StopReason, TrialState
from fer_sweep.worker.trial_process import EpochReport, FolderInUse, StopFlag, TrialJob, train_here
from tests.support import faulty_trials
from tests.support.agent_stage import RealStarter, Stage, View
from tests.support.processes import SWEEP, fersweep, until
from tests.support.scripted_search import ENDLESS, ScriptedSearch, request

pytestmark = [
    pytest.mark.usefixtures("tiny_data"),
    pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and /proc as Linux has them"),
]


@pytest.fixture
def stage(tmp_path: Path, tiny_cache: Path) -> Stage:
    return Stage(tmp_path / "trials", str(tiny_cache), RealStarter())


def test_a_trial_killed_with_kill_9_resumes_and_ends_with_the_same_bits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_trials.play(faulty_trials.killed_in_epoch_2, monkeypatch)
    search = ScriptedSearch([request("0", epochs=5), request("never killed", epochs=5)])
    assert stage.run(search).ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 2}
    assert "SIGKILL" in (search.outcomes["0"][0].reason or "")
    assert stage.history("0") == [1, 2, 3, 4, 5]
    assert stage.result("0") == stage.result("never killed")
    killed, whole = (stage.folder / trial / "best.safetensors" for trial in ("0", "never killed"))
    assert killed.read_bytes() == whole.read_bytes()


def test_a_trial_that_takes_more_memory_than_its_share_ends_alone(stage: Stage) -> None:
    stage.starter.memory_mb = 600.0
    large = request("0", channels=128, batch_size=128, epochs=1, precision="fp32")  # 150 MB for the first feature maps
    search = ScriptedSearch([large, request("1")])
    assert stage.run(search, slots=2).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    assert search.outcomes["0"][0].cause is Cause.OUT_OF_MEMORY
    assert stage.starter.all_have_ended


def test_trials_import_no_module_of_the_working_directory_and_start_under_a_long_tmpdir(tmp_path: Path) -> None:
    for module in ("random", "queue", "socket", "torch"):
        Path(f"{module}.py").write_text(f"raise SystemExit('{module} of the working directory')")
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    assert fersweep("create", "sweep.yaml").returncode == 0
    temporary = tmp_path / ("t" * 100)
    temporary.mkdir()
    done = fersweep("agent", "--gpus", "none", "--slots", "1", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT])
def test_a_crash_is_a_failure_with_the_place_it_happened_in(stage: Stage, number: signal.Signals) -> None:
    stage.view = View(lambda *report: os.kill(stage.starter.pid_of["0"], number) if report == ("0", 1) else None)
    search = ScriptedSearch([request("0", **ENDLESS), request("1")])
    assert stage.run(search).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    reason = search.outcomes["0"][0].reason or ""
    assert number.name in reason
    assert "training/loop.py" in reason, "faulthandler's last words, from the tail of trial.log"


@pytest.mark.process
def test_a_hung_trial_tells_where_it_hung(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stage.folder / "0" / "config.json"
    config.parent.mkdir(parents=True)
    os.mkfifo(config)

    def hang() -> None:
        with config.open("w"):  # returns once the trial has opened the other end, from which it will read nothing
            monkeypatch.setattr("fer_sweep.agent.running.START_LIMIT_S", 0.0)
            until(lambda: stage.starter.all_have_ended)

    writer = threading.Thread(target=hang)
    writer.start()
    with pytest.raises(AgentFailed, match=r"made no step for[\s\S]*claim_folder"):
        stage.run(ScriptedSearch([request("0")]))
    writer.join()


@pytest.mark.process
def test_a_stop_in_the_middle_of_an_epoch_is_obeyed(stage: Stage) -> None:
    # Epoch 0 is the answer to an empty report, made while the first epoch runs.
    config = {**ENDLESS, "batch_size": 2, "channels": 64, "hidden": 512}
    answers = iter([StopReason.PREEMPTED])
    search = ScriptedSearch([request("0", **config)], lambda trial_id, epoch: next(answers, None))
    assert stage.run(search, count=1).ended == {TrialState.PREEMPTED: 1}
    assert stage.history("0") == []


@pytest.mark.process
def test_a_failed_trial_has_a_reason_and_leaves_more_in_its_log(stage: Stage) -> None:
    broken = request("1")
    object.__setattr__(broken.config, "hidden", -1)  # past validation, as a mistake in a model's own code would be
    search = ScriptedSearch([request("0", data="nowhere"), broken, request("2")])
    assert stage.run(search).ended == {TrialState.FAILED: 2, TrialState.COMPLETE: 1}
    no_data, in_model = (search.outcomes[trial][0].reason or "" for trial in ("0", "1"))
    assert "nowhere" in no_data and "fersweep data prepare" in no_data
    assert "nowhere" in (stage.folder / "0" / "trial.log").read_text()
    assert "the traceback is in trial.log" in in_model
    assert "Traceback" in (stage.folder / "1" / "trial.log").read_text()


@pytest.mark.process
@pytest.mark.skipif(os.environ.get("FERSWEEP_START") == "spawn", reason="about the forkserver, which is not used here")
def test_trials_of_a_killed_forkserver_resume_under_the_next_one(stage: Stage) -> None:
    def kill_forkserver(trial_id: str, epoch: int) -> None:
        if epoch == 2 and len(stage.starter.pids) == 1:
            server: Any = forkserver._forkserver
            os.kill(server._forkserver_pid, signal.SIGKILL)

    stage.view = View(kill_forkserver)
    search = ScriptedSearch([request("0", epochs=100)])
    assert stage.run(search).ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}
    assert "forkserver" in (search.outcomes["0"][0].reason or "")
    assert stage.history("0") == list(range(1, 101))


@pytest.mark.process
def test_two_processes_never_train_in_one_folder(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when an agent is paused for longer than its lease lasts, and another one reclaims its trial."""
    monkeypatch.setattr("fer_sweep.worker.trial_process._LOCK_WAIT_S", 0.0)
    environment = {"CUDA_VISIBLE_DEVICES": "", "FERSWEEP_CACHE": stage.cache}
    job = TrialJob(request("0", **ENDLESS).config, stage.folder / "0", environment=environment)
    former = stage.starter.start(job)
    while not isinstance(former.pipe.recv(), EpochReport):
        pass
    with pytest.raises(FolderInUse, match="another process trains in"):
        train_here(job, StopFlag(), lambda message: None)
    former.kill()
    former.close()
