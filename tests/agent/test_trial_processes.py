"""The agent with forked trials: how a real process crashes, hangs, is killed or starved, and resumes.

Three smoke tests are part of the default run; what the agent makes of an end is tested in test_loop and test_requeue.
"""

import fcntl
import math
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.agent.failures import OnOom
from fer_sweep.agent.silence import Silence
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import AgentFailed
from fer_sweep.host_processes import is_paused
from fer_sweep.records import Cause, StopReason, TrialRequest, TrialState
from fer_sweep.worker.causes import cause_of, in_words
from fer_sweep.worker.own_process import keep_to_share
from fer_sweep.worker.trial_process import EpochReport, TrialJob
from tests.support import faulty_trials
from tests.support.agent_stage import ForkingStarter, Stage, View
from tests.support.processes import until
from tests.support.scripted_search import ENDLESS, ScriptedSearch, request

pytestmark = [
    pytest.mark.usefixtures("tiny_data"),
    pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and /proc as Linux has them"),
]

LARGE = {"channels": 128, "batch_size": 128, "hidden": 8, "epochs": 1, "precision": "fp32"}
"""An epoch on `tiny`, the first feature maps of whose batch take 150 MB."""
TOO_LITTLE_MB = 300.0


class Patience(Silence):
    """A limit that the test sets."""

    limit_s = math.inf

    def limit(self, *, has_begun: bool) -> float:
        return self.limit_s


@pytest.fixture
def stage(tmp_path: Path, tiny_cache: Path) -> Stage:
    return Stage(tmp_path / "trials", str(tiny_cache), ForkingStarter())


def test_a_trial_killed_with_kill_9_resumes_and_ends_with_the_same_bits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.worker.starters.run_in_fork", faulty_trials.killed_in_epoch_2)
    search = ScriptedSearch([request("0", epochs=5), request("never killed", epochs=5)])
    assert stage.run(search).ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 2}
    assert "SIGKILL" in (search.outcomes["0"][0].reason or "")
    assert stage.history("0") == [1, 2, 3, 4, 5]
    assert stage.result("0") == stage.result("never killed")
    killed, whole = (stage.folder / trial / "best.safetensors" for trial in ("0", "never killed"))
    assert killed.read_bytes() == whole.read_bytes()


def test_a_trial_that_takes_more_memory_than_its_share_ends_alone(stage: Stage) -> None:
    stage.starter.memory_mb = 2 * TOO_LITTLE_MB
    search = ScriptedSearch([request("0", **LARGE), request("1")])
    assert stage.run(search, slots=2).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    assert search.outcomes["0"][0].cause is Cause.OUT_OF_MEMORY
    assert stage.starter.all_have_ended


def test_a_trial_of_each_architecture_completes_and_leaves_its_files(stage: Stage) -> None:
    sizes: dict[str, dict[str, Any]] = {
        "simple_cnn": {"channels": 4, "hidden": 8},
        "deeper_cnn": {"width": 4},
        "resnet18": {"width": 8, "stem": "imagenet"},
        "vit": {"patch_size": 16, "dim": 16, "depth": 1, "head_dim": 8},
    }
    configs = {model: {"model": model, "data": "tiny", "epochs": 1, **size} for model, size in sizes.items()}
    search = ScriptedSearch([TrialRequest(model, parse_trial(config), config) for model, config in configs.items()])
    assert stage.run(search).ended == {TrialState.COMPLETE: len(sizes)}
    for model in sizes:
        files = {path.name for path in (stage.folder / model).iterdir()}
        assert {"config.json", "history.jsonl", "best.safetensors", "result.json", "trial.log"} <= files


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
def test_a_hung_trial_tells_where_it_hung(stage: Stage) -> None:
    stage.silence = patience = Patience()
    config = stage.folder / "0" / "config.json"
    config.parent.mkdir(parents=True)
    os.mkfifo(config)

    def hang() -> None:
        with config.open("w"):  # returns once the trial has opened the other end, from which it will read nothing
            patience.limit_s = 0.0
            until(lambda: stage.starter.all_have_ended)

    writer = threading.Thread(target=hang)
    writer.start()
    search = ScriptedSearch([request("0")])
    with pytest.raises(AgentFailed):
        stage.run(search)
    writer.join()
    reason = search.outcomes["0"][0].reason or ""
    assert reason.startswith("made no step for")
    assert "claim_folder" in reason


@pytest.mark.process
def test_a_trial_that_somebody_has_paused_has_not_hung(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.01)
    stage.silence = patience = Patience()
    looks = iter(range(3))

    def pause(trial_id: str, epoch: int) -> None:
        if epoch == 1:
            os.kill(stage.starter.pid_of["0"], signal.SIGSTOP)
            until(lambda: is_paused(stage.starter.pid_of["0"]))
            patience.limit_s = 0.0

    def answer(trial_id: str, epoch: int) -> StopReason | None:
        if patience.limit_s == 0.0 and next(looks, None) is None:
            patience.limit_s = math.inf
            os.kill(stage.starter.pid_of["0"], signal.SIGCONT)
        return None

    stage.view = View(pause)
    assert stage.run(ScriptedSearch([request("0", epochs=100)], answer)).ended == {TrialState.COMPLETE: 1}
    assert stage.history("0") == list(range(1, 101))


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
    assert "trial.log has all of it" in in_model
    assert "Traceback" in (stage.folder / "1" / "trial.log").read_text()


@pytest.mark.process
def test_out_of_memory_retries_with_a_smaller_micro_batch(stage: Stage) -> None:
    stage.starter.memory_mb = TOO_LITTLE_MB
    search = ScriptedSearch([request("0", **LARGE)])
    assert stage.run(search, on_oom=OnOom.SMALLER_MICRO_BATCH).ended[TrialState.COMPLETE] == 1
    first, *_, last = search.outcomes["0"]
    assert first.state is TrialState.PREEMPTED
    assert last.result is not None and last.result.micro_batch in (64, 32, 16, 8)


def convolve_without_memory(pipe: Any) -> None:
    import torch

    torch.set_num_threads(1)  # the stacks of more would be the first to find no room
    images, kernel = torch.zeros(8, 16, 24, 24), torch.zeros(32, 16, 3, 3)
    keep_to_share(0.0)
    try:
        torch.nn.functional.conv2d(images, kernel)
    except RuntimeError as error:
        pipe.send((cause_of(error), in_words(error)))


@pytest.mark.process
def test_a_librarys_own_words_for_want_of_memory_are_understood(stage: Stage) -> None:
    stage.starter.warm_up()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=convolve_without_memory, args=(theirs,))
    process.start()
    theirs.close()
    cause, words = ours.recv()
    process.join()
    assert cause is Cause.OUT_OF_MEMORY
    assert "memory" in words


@pytest.mark.process
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
def test_a_forkserver_that_is_dying_is_replaced(stage: Stage) -> None:
    stage.starter.warm_up()
    server: Any = forkserver._forkserver
    dying = server._forkserver_pid
    # Its socket is closed, but it has not ended yet: on a busy host there is time for five connections in between.
    server._forkserver_address = "\0nobody-listens-here"
    assert stage.run(ScriptedSearch([request("0")])).ended == {TrialState.COMPLETE: 1}
    assert server._forkserver_pid != dying


@pytest.mark.process
def test_a_folder_in_use_is_no_fault_of_the_trial(stage: Stage) -> None:
    (stage.folder / "0").mkdir(parents=True)
    with (stage.folder / "0" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        summary = stage.run(ScriptedSearch([request("0"), request("1")]), slots=2, count=2)
    assert summary.ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}


@pytest.mark.process
def test_a_later_attempt_ends_the_one_that_still_trains(stage: Stage) -> None:
    """As when an agent is paused for longer than its lease lasts, and another one reclaims its trial."""
    environment = {"CUDA_VISIBLE_DEVICES": "", "FERSWEEP_CACHE": stage.cache}
    config = request("0", **ENDLESS).config
    trials = []
    for attempt in (1, 2):
        job = TrialJob(config, stage.folder / "0", environment=environment, attempt=attempt)
        trials.append(stage.starter.start(job))
        while not isinstance(trials[-1].pipe.recv(), EpochReport):
            pass
    former, later = trials
    assert former.has_ended(60.0)
    assert former.process.exitcode == -signal.SIGKILL
    later.kill()
    former.close()
    later.close()
