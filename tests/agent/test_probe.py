"""How many slots pay: the curve that is measured, what is chosen from it, and the trial that it is measured with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.agent.probe import WORTH_IT, Load, best, measure, remembered, typical
from fer_sweep.config.distributions import Categorical
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_sweep_file
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import AgentFailed, ConfigError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.trial_process import ProbeReady, ProbeResult
from tests.conftest import REPOSITORY
from tests.support.agent_stage import ForkingStarter
from tests.support.scripted_search import TINY
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter

SWEEPS = sorted((REPOSITORY / "sweeps").glob("*.yaml"))


def measured(most: int, starter: ScriptedStarter | ForkingStarter, cache: str = "") -> list[Load]:
    def divide(count: int) -> Sequence[Slot]:
        environment = {"CUDA_VISIBLE_DEVICES": "", "FERSWEEP_CACHE": cache}
        return [Slot(f"cpu/{count}/{number}", "cpu", 1, environment) for number in range(count)]

    one_epoch = parse_trial({**TINY, "epochs": 1})  # fewer steps than a probe times
    return measure(one_epoch, divide, most, starter)


def probes(speeds: Mapping[int, float | None]) -> ScriptedStarter:
    """Starts probes that come to so many images a second together, by their number; with None they fail."""

    def play(trial: PlayedTrial) -> TrialOutcome:
        count = int(trial.trial_id.split("-")[1])
        if (speed := speeds[count]) is None:
            return TrialOutcome(TrialState.FAILED, reason="out of memory")
        trial.send(ProbeReady())
        trial.wait_for_stop()  # the word to go
        trial.send(ProbeResult(speed / count))
        raise AssertionError(trial.wait_for_stop())  # ended by a kill

    return ScriptedStarter(play)


@pytest.mark.parametrize(
    ("speeds", "slots"),
    [
        pytest.param({1: 100, 2: 200, 4: 400, 5: 500}, [1, 2, 4, 5], id="every slot pays"),
        pytest.param({1: 100, 2: 200, 4: 205}, [1, 2, 4], id="the last doubling gains too little"),
        pytest.param({1: 100, 2: 200, 4: None}, [1, 2], id="so many do not fit"),
    ],
)
def test_slots_are_doubled_for_as_long_as_that_pays(speeds: dict[int, float | None], slots: list[int]) -> None:
    starter = probes(speeds)
    curve = measured(5, starter)
    assert [load.slots for load in curve] == slots
    assert [load.images_per_second for load in curve] == [speeds[count] for count in slots]
    assert starter.all_have_ended


def test_a_typical_trial_that_fails_in_a_slot_of_its_own_ends_the_agent_with_its_reason() -> None:
    with pytest.raises(AgentFailed, match="out of memory") as caught:
        measured(2, probes({1: None}))
    assert caught.value.hint


@pytest.mark.process
def test_real_trials_are_measured_side_by_side(tiny_data: str, tiny_cache: Path) -> None:
    starter = ForkingStarter()
    curve = measured(2, starter, str(tiny_cache))
    assert [load.slots for load in curve] == [1, 2]
    assert all(load.images_per_second > 0 for load in curve)
    assert len(starter.pids) == 3
    assert starter.all_have_ended


LOADS = st.lists(st.tuples(st.floats(1.0, 1e5), st.floats(0.0, 1e5)), min_size=1, max_size=6).map(
    lambda pairs: [Load(2**place, speed, memory) for place, (speed, memory) in enumerate(pairs)]
)


@settings(derandomize=True)
@given(LOADS, st.none() | st.floats(0.0, 1e6))
def test_the_best_fits_and_none_that_fits_is_much_faster(curve: list[Load], room: float | None) -> None:
    chosen = {load.slots: load for load in curve}[best(curve, room)]
    fitting = [load for load in curve if room is None or load.slots * load.memory_mb <= room * 0.8]
    if not fitting:
        assert chosen.slots == 1
        return
    assert chosen in fitting
    assert all(load.images_per_second <= chosen.images_per_second * WORTH_IT for load in fitting)
    assert not [x for x in fitting if x.slots < chosen.slots and x.images_per_second >= chosen.images_per_second]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_shipped_sweep_has_a_typical_trial(path: Path) -> None:
    sweep = load_sweep_file(path)
    assert typical(Space.from_sweep(sweep)).model == Space.from_sweep(sweep).parameters["model"].quantile(0.5)


def test_where_the_middle_cannot_be_trained_another_is_drawn() -> None:
    space = Space({"model": Categorical(["vit"]), "dim": Categorical([128, 100, 96]), "head_dim": Categorical([32])})
    assert typical(space).model_dump()["dim"] in (96, 128)
    with pytest.raises(ConfigError):
        typical(Space({"model": Categorical(["vit"]), "dim": Categorical([100]), "head_dim": Categorical([32])}))


@pytest.mark.parametrize("content", [None, "", "{", "[1]", '{"host: cpu": [3]}', '{"host: cpu": []}', "null"])
def test_a_curve_is_measured_once_on_a_host(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "host")
    if content is not None:
        (tmp_path / "slots.json").write_text(content)
    measured: list[int] = []

    def find() -> Sequence[Load]:
        measured.append(1)
        return [Load(1, 100.0, 50.0)]

    for _ in range(2):
        assert remembered(tmp_path / "slots.json", "cpu", find) == [Load(1, 100.0, 50.0)]
    assert measured == [1]
    assert remembered(tmp_path / "slots.json", "gpu", find)
    assert len(measured) == 2
