"""Every starter begins, stops and ends the processes of trials alike."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.errors import AgentFailed
from fer_sweep.records import Cause, StopReason, TrialOutcome, TrialState
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.starters import Starter, TrialHandle
from fer_sweep.worker.starters.forkserver import ForkserverStarter
from fer_sweep.worker.starters.spawn import SpawnStarter
from fer_sweep.worker.trial_process import Beat, TrialJob
from tests.support import faulty_trials
from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until, words_of
from tests.support.scripted_search import ENDLESS, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and /proc as Linux has them")

STARTERS = {"forkserver": ForkserverStarter, "spawn": SpawnStarter}
Jobs = Callable[..., TrialJob]


@pytest.fixture(params=STARTERS)
def starter(request: pytest.FixtureRequest) -> Iterator[Starter]:
    starter = STARTERS[request.param](["simple_cnn"])
    yield starter
    if isinstance(starter, SpawnStarter):  # the forkserver serves the next test too
        starter.close()


@pytest.fixture
def slot(tiny_cache: Path) -> Slot:
    return Slot("cpu0", "cpu", 2, {"CUDA_VISIBLE_DEVICES": "", "FERSWEEP_CACHE": str(tiny_cache)})


@pytest.fixture
def job(tmp_path: Path, slot: Slot) -> Jobs:
    """A trial of three epochs in the slot, unless its configuration says otherwise."""
    return lambda **config: TrialJob(
        request("0", **config).config, tmp_path / "0", slot.device, slot.threads, slot.environment
    )


def received(handle: TrialHandle, kind: type) -> Any:
    """The trial's next message of a kind."""
    while not isinstance(message := handle.pipe.recv(), kind):
        pass
    return message


def at_hand(starter: Starter) -> int:
    """The process that makes the next trial start at once: the forkserver, or the spare."""
    if isinstance(starter, SpawnStarter):
        (spare,) = starter._spares.values()
        return spare.process.pid or 0
    server: Any = forkserver._forkserver
    return server._forkserver_pid


def test_a_trial_gets_its_job_and_ends_with_its_outcome(
    starter: Starter, slot: Slot, job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_trials.play(faulty_trials.telling_its_surroundings, monkeypatch)
    starter.warm_up(slot)
    with closing(starter.start(job())) as handle:
        assert received(handle, dict) == {**slot.environment, "threads": 2}
        assert received(handle, TrialOutcome).state is TrialState.COMPLETE
        with pytest.raises(EOFError):
            received(handle, TrialOutcome)
        assert handle.has_ended(300)
        assert handle.process.exitcode == 0


@pytest.mark.process
@pytest.mark.parametrize("reason", StopReason)
def test_a_running_trial_obeys_a_stop(starter: Starter, job: Jobs, reason: StopReason) -> None:
    with closing(starter.start(job(**ENDLESS))) as handle:
        received(handle, Beat)
        handle.ask_to_stop(reason)
        assert received(handle, TrialOutcome).state == TrialState(reason)


@pytest.mark.process
@pytest.mark.parametrize(
    ("end", "reason", "cause"),
    [
        (TrialHandle.kill, "by SIGKILL, by its agent", Cause.KILLED),
        (lambda handle: os.kill(handle.process.pid, signal.SIGKILL), "by SIGKILL, by a user", Cause.KILLED),
        (TrialHandle.abort, "by SIGABRT; last lines of trial.log:", None),
    ],
)
def test_a_killed_trial_says_why_it_ended(
    starter: Starter, job: Jobs, end: Callable[[TrialHandle], None], reason: str, cause: Cause | None
) -> None:
    with closing(starter.start(job(**ENDLESS))) as handle:
        received(handle, Beat)
        end(handle)
        with pytest.raises((EOFError, ConnectionError)):
            received(handle, TrialOutcome)
        said, found = handle.why_it_died()
        assert reason in said
        assert found is cause


@pytest.mark.process
@pytest.mark.parametrize("is_warmed_up_again", [False, True])
def test_a_killed_forkserver_or_spare_is_replaced_and_ends_at_the_close(
    starter: Starter, slot: Slot, job: Jobs, is_warmed_up_again: bool
) -> None:
    starter.warm_up(slot)
    killed = at_hand(starter)
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed))
    if is_warmed_up_again:
        starter.warm_up(slot)
    with closing(starter.start(job())) as handle:
        assert received(handle, TrialOutcome).state is TrialState.COMPLETE
    starter.warm_up(slot)
    last = at_hand(starter)
    starter.close()
    assert not alive(last)


@pytest.mark.process
def test_signals_to_the_group_end_neither_what_is_at_hand_nor_a_trial_that_starts(
    starter: Starter, slot: Slot, job: Jobs
) -> None:
    starter.warm_up(slot)
    before = at_hand(starter)
    os.kill(before, signal.SIGINT)
    os.kill(before, signal.SIGHUP)
    with closing(starter.start(job())) as handle:
        after = handle.process.pid if isinstance(starter, SpawnStarter) else at_hand(starter)
        os.kill(handle.process.pid, signal.SIGINT)
        # A spare hears of the SIGHUP once it is a trial.
        assert received(handle, TrialOutcome).state in (TrialState.COMPLETE, TrialState.PREEMPTED)
    assert before == after


@pytest.mark.process
@pytest.mark.parametrize("name", STARTERS)
def test_the_death_of_the_agent_ends_the_trial_and_what_is_at_hand(name: str, tiny_data: str) -> None:
    def started() -> set[int]:
        kinds = ("multiprocessing.forkserver", "multiprocessing.spawn")
        return {pid for pid in descendants(agent.pid) if any(kind in words_of(pid) for kind in kinds)}

    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "10000"))
    assert fersweep("create", "sweep.yaml").returncode == 0
    words = [*COMMAND, "agent", "--gpus", "none", "--slots", "1"]
    with subprocess.Popen(words, env={**os.environ, "FERSWEEP_START": name}, stdout=subprocess.DEVNULL) as agent:
        until(lambda: len(started()) == 2)  # the forkserver and the trial, or the trial and the spare
        family = started()
        agent.kill()
    until(lambda: not any(alive(pid) for pid in family))


@pytest.fixture
def few_open_files() -> Iterator[None]:
    """No file can be opened beside those that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files_for_a_trial_are_an_error_with_a_hint(
    starter: Starter, slot: Slot, job: Jobs, few_open_files: None
) -> None:
    starter.warm_up(slot)
    with pytest.raises(AgentFailed, match="no trial can be started") as caught:
        starter.start(job())
    assert "ulimit -n" in (caught.value.hint or "")
