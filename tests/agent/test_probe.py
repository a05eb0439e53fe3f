"""How many slots pay: the curve that is measured, what is chosen from it, and the trial that it is measured with."""

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from fer_sweep.agent.probe import FIRST_STEPS, MEASURED_S, Load, measure, remembered, typical
from fer_sweep.config.parameters import Categorical
from fer_sweep.config.space import Space
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import AgentFailed, ConfigError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.trial_process import Beat
from tests.support.scripted_search import TINY
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter


def measured(most: int, starter: ScriptedStarter) -> list[Load]:
    def divide(count: int) -> Sequence[Slot]:
        return [Slot(f"cpu/{count}/{number}", "cpu", 1) for number in range(count)]

    return measure(parse_trial(TINY), divide, most, starter)


def probes(speeds: Mapping[int, float | None]) -> ScriptedStarter:
    """Starts probes that come to so many images a second together, by their number; with None they fail."""

    def play(trial: PlayedTrial) -> TrialOutcome:
        count = int(trial.trial_id.split("-")[1])
        if (speed := speeds[count]) is None:
            return TrialOutcome(TrialState.FAILED, reason="out of memory")
        steps_per_beat = MEASURED_S * speed / count / trial.job.config.batch_size
        for number in itertools.count():  # ended by a kill
            trial.send(Beat(number * MEASURED_S, FIRST_STEPS + number * steps_per_beat))
            time.sleep(0.001)
        raise AssertionError

    return ScriptedStarter(play)


@pytest.mark.parametrize(
    ("speeds", "slots"),
    [
        ({1: 100, 2: 200, 4: 400, 5: 500}, [1, 2, 4, 5]),  # every slot pays
        ({1: 100, 2: 200, 4: 205}, [1, 2, 4]),  # the last doubling gains too little
        ({1: 100, 2: 200, 4: None}, [1, 2]),  # so many do not fit
    ],
)
def test_slots_are_doubled_for_as_long_as_that_pays(speeds: dict[int, float | None], slots: list[int]) -> None:
    starter = probes(speeds)
    curve = measured(5, starter)
    assert [load.slots for load in curve] == slots
    assert [load.images_per_second for load in curve] == pytest.approx([speeds[count] for count in slots])
    assert starter.all_have_ended


def test_a_typical_trial_that_fails_in_a_slot_of_its_own_ends_the_agent_with_its_reason() -> None:
    with pytest.raises(AgentFailed, match="out of memory") as caught:
        measured(2, probes({1: None}))
    assert caught.value.hint


def test_a_typical_trial_is_in_the_middle_of_the_space_or_drawn_where_that_cannot_be_trained() -> None:
    def typical_dim(*dims: int) -> object:
        parameters = {"model": ["vit"], "dim": dims, "head_dim": [32]}
        return typical(
            Space({name: Categorical(values=list(values)) for name, values in parameters.items()})
        ).model_dump()["dim"]

    assert typical_dim(64, 96, 128) == 96
    assert typical_dim(128, 100, 96) in (96, 128)
    with pytest.raises(ConfigError):
        typical_dim(100)


@pytest.mark.parametrize("content", ["", "{"])
def test_a_curve_is_measured_once_for_each_device_of_a_host(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "host")
    (tmp_path / "slots.json").write_text(content)
    curves = {"cpu": [Load(1, 100.0, 50.0)], "gpu": [Load(2, 900.0, 70.0)]}
    measured: list[str] = []

    def find(device: str) -> Sequence[Load]:
        measured.append(device)
        return curves[device]

    for device in ("cpu", "cpu", "gpu", "cpu"):
        assert remembered(tmp_path / "slots.json", device, lambda device=device: find(device)) == curves[device]
    assert measured == ["cpu", "gpu"]
