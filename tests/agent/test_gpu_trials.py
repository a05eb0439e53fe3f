"""Trials on a real GPU: its memory runs out, its context breaks, its slots are measured."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fer_sweep.agent.failures import OnOom
from fer_sweep.agent.probe import measure
from fer_sweep.config.trial import parse_trial
from fer_sweep.records import Cause, TrialState
from fer_sweep.worker.slots import Slot, discover, free_mb
from tests.support import faulty_trials
from tests.support.agent_stage import RealStarter, Stage
from tests.support.scripted_search import TINY, ScriptedSearch, request

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("tiny_data")]

LARGE = {"channels": 128, "batch_size": 128, "hidden": 8, "epochs": 2, "precision": "fp32"}
"""A training on `tiny`, the first feature maps of whose batch take 150 MB."""
TOO_LITTLE_MB = 260.0


@pytest.fixture
def gpu() -> str:
    return discover()[0].uuid


@pytest.fixture
def stage(tmp_path: Path, tiny_cache: Path) -> Stage:
    return Stage(tmp_path / "trials", str(tiny_cache), RealStarter())


def test_out_of_gpu_memory_retries_one_trial_with_a_smaller_micro_batch(stage: Stage, gpu: str) -> None:
    stage.starter.memory_share = TOO_LITTLE_MB / discover()[0].memory_mb
    search = ScriptedSearch([request("0", **LARGE), request("1", epochs=20)])
    assert stage.run(search, slots=2, gpu=gpu, on_oom=OnOom.SMALLER_MICRO_BATCH).ended[TrialState.COMPLETE] == 2
    first, *_, last = search.outcomes["0"]
    assert (first.state, first.cause) == (TrialState.PREEMPTED, Cause.OUT_OF_MEMORY)
    assert last.result is not None and last.result.micro_batch in (64, 32, 16, 8)
    assert len(search.outcomes["1"]) == 1


def test_a_broken_cuda_context_ends_one_trial_and_not_the_slot(
    stage: Stage, gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_trials.play(faulty_trials.reading_beyond_the_data, monkeypatch)
    search = ScriptedSearch([request("0"), request("1")])
    assert stage.run(search, gpu=gpu).ended == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    assert "device-side assert" in (search.outcomes["0"][0].reason or "")
    assert stage.starter.all_have_ended


def test_slots_on_a_gpu_are_measured_with_the_memory_they_take(stage: Stage, gpu: str) -> None:
    def divide(count: int) -> Sequence[Slot]:
        environment = {"CUDA_VISIBLE_DEVICES": gpu, "FERSWEEP_CACHE": stage.cache}
        return [Slot(f"gpu0/{number}", "cuda:0", 1, environment) for number in range(count)]

    (slot,) = divide(1)
    before = free_mb(slot)
    (load,) = measure(parse_trial({**TINY, "epochs": 1}), divide, 1, stage.starter)
    after = free_mb(slot)
    assert load.images_per_second > 0
    assert load.memory_mb > 50  # a context takes more
    assert before is not None and after is not None
    assert before - after < 50  # and is gone with its process
    assert stage.starter.all_have_ended
