"""The stopping rule is W&B's: the same trials are stopped, over generated sweeps."""

import math
import random
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from fer_sweep.config.sweep_file import EarlyTerminate, Goal
from fer_sweep.search.hyperband import should_stop

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sweeps 0.3 uses a name that pydantic has renamed
    from sweeps.run import RunState, SweepRun

    import sweeps

SETTINGS: list[dict[str, Any]] = [
    {"min_iter": 1},
    {"min_iter": 2, "eta": 2},
    {"min_iter": 3, "eta": 1.5},
    {"min_iter": 3, "strict": False},
    {"min_iter": 1, "eta": 4, "strict": False},
    {"max_iter": 27, "s": 2},
    {"max_iter": 9, "s": 5},
    {"max_iter": 10, "s": 3, "eta": 2, "strict": False},
    {"max_iter": 20, "s": 2, "eta": 2.5},
    {"min_iter": 5, "max_iter": 12, "s": 2, "eta": 2},
]


def early_terminate(settings: dict[str, Any]) -> EarlyTerminate:
    return EarlyTerminate.model_validate({"type": "hyperband", **settings})


def stopped_by_wandb(
    settings: dict[str, Any], goal: Goal, histories: Sequence[Sequence[float]], running: Sequence[bool]
) -> list[int]:
    config = {
        "method": "random",
        "metric": {"name": "m", "goal": goal},
        "early_terminate": {"type": "hyperband", **settings},
        "parameters": {"a": {"value": 1}},
    }
    runs = [
        SweepRun(
            name=str(index),
            state=RunState.running if alive else RunState.finished,
            history=[{"m": value} for value in history],
        )
        for index, (history, alive) in enumerate(zip(histories, running, strict=True))
    ]
    return [int(run.name) for run in sweeps.stop_runs(config, runs)]


def make_histories(rng: random.Random) -> list[list[float]]:
    """Learning curves with ties, plateaus, NaN and infinities, some of them empty."""
    values = [0.1, 0.2, 0.2, 0.5, 0.7, -1.0, 0, 1]
    odd = [math.nan, math.inf, -math.inf]

    def value() -> float:
        return rng.choice(odd) if rng.random() < 0.08 else rng.choice([*values, rng.random()])

    return [[value() for _ in range(rng.choice([0, 1, 2, 3, 5, 9, 12, 30]))] for _ in range(rng.randint(1, 12))]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_the_same_trials_are_stopped_as_by_w_and_b(settings: dict[str, Any], goal: Goal) -> None:
    rng = random.Random(str(settings))
    rule = early_terminate(settings)
    stopped = spared = 0
    for _ in range(150):
        histories = make_histories(rng)
        running = [rng.random() < 0.6 for _ in histories]
        mine = [
            index
            for index, history in enumerate(histories)
            if running[index] and should_stop(rule, goal, history, histories)
        ]
        assert mine == stopped_by_wandb(settings, goal, histories, running)
        stopped += len(mine)
        spared += sum(running) - len(mine)
    assert min(stopped, spared) > 10, "both answers must occur"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_iter": 27, "s": 2}, (3, 9)),
        ({"max_iter": 27, "s": 9}, (1, 3, 9)),
        ({"max_iter": 10, "s": 3, "eta": 2}, (1, 2, 5)),
        ({"max_iter": 27, "s": 2.5}, (3, 9)),
        ({"max_iter": 2, "s": 2}, ()),
        ({"max_iter": -27, "s": 2}, ()),
        ({"max_iter": 27, "s": 0}, ()),
    ],
)
def test_max_iter_is_divided_down_and_is_no_band_itself(settings: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert early_terminate(settings).bands == expected


def test_min_iter_is_multiplied_up() -> None:
    assert early_terminate({"min_iter": 3}).bands[:4] == (3, 9, 27, 81)
    assert early_terminate({"min_iter": 3, "eta": 1.5}).bands[:5] == (3, 4, 6, 10, 15)
    assert early_terminate({"min_iter": 3, "max_iter": 27}).bands[:2] == (3, 9), "max_iter says nothing without s"


def test_bands_end_where_no_training_gets_to() -> None:
    assert early_terminate({"min_iter": 1, "eta": 1e200}).bands == (1,)


def test_a_single_trial_and_one_before_the_first_band_are_never_stopped() -> None:
    rule = early_terminate({"min_iter": 2})
    assert not should_stop(rule, "maximize", [0.1] * 50, [[0.1] * 50])
    assert not should_stop(rule, "maximize", [0.0], [[0.0], [0.9, 0.9], [0.8, 0.8]])
    assert not should_stop(rule, "maximize", [math.nan, 0.0], [[0.0], [0.9, 0.9], [0.8, 0.8]])


def test_a_trial_without_bands_goes_on_for_ever() -> None:
    rule = early_terminate({"max_iter": 2, "s": 1})
    assert not should_stop(rule, "minimize", [9.0] * 9, [[9.0] * 9, [0.0] * 9, [0.0] * 9])


def test_strict_judges_the_value_at_the_band_and_otherwise_the_best_so_far() -> None:
    histories = [[0.9, 0.1], [0.5, 0.5], [0.6, 0.6], [0.7, 0.7]]
    assert should_stop(early_terminate({"min_iter": 2}), "maximize", histories[0], histories)
    assert not should_stop(early_terminate({"min_iter": 2, "strict": False}), "maximize", histories[0], histories)
