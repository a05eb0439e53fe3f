"""How many slots pay, measured with real processes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.agent.probe import WORTH_IT, Load, best, measure, remembered, typical
from fer_sweep.agent.slots import Slot
from fer_sweep.config.distributions import Categorical
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_sweep_file
from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.errors import AgentFailed, ConfigError
from tests.conftest import REPOSITORY
from tests.support.agent_stage import Stage
from tests.support.scripted_search import TINY

SWEEPS = sorted((REPOSITORY / "sweeps").glob("*.yaml"))


@pytest.fixture
def stage(tmp_path: Path, tiny_cache: Path) -> Stage:
    return Stage(tmp_path / "trials", str(tiny_cache))


def probe(stage: Stage, config: TrialConfig, most: int) -> list[Load]:
    def divide(count: int) -> Sequence[Slot]:
        environment = {"CUDA_VISIBLE_DEVICES": "", "FERSWEEP_CACHE": stage.cache}
        return [Slot(f"cpu/{number}", "cpu", 1, environment) for number in range(count)]

    return measure(config, divide, most, stage.starter)


def test_measures_one_slot_then_two_and_leaves_no_process(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.agent.probe.WORTH_IT", 0.0)  # goes on, whatever two slots come to
    curve = probe(stage, parse_trial({**TINY, "epochs": 1}), most=3)  # one epoch is fewer steps than a probe times
    assert [load.slots for load in curve] == [1, 2, 3]
    assert all(load.images_per_second > 0 for load in curve)
    assert len(stage.starter.pids) == 6
    assert stage.nobody_is_left()
    assert not stage.folder.exists()


def test_a_typical_trial_that_cannot_be_trained_ends_the_agent_with_its_reason(stage: Stage) -> None:
    with pytest.raises(AgentFailed, match="train_samples") as caught:
        probe(stage, parse_trial({**TINY, "train_samples": 1_000_000}), most=2)
    assert caught.value.hint
    assert stage.nobody_is_left()


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
