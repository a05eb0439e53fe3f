"""Hyperband stops the same trials as W&B's `sweeps` package, over generated sweeps."""

import math
import random
import warnings

import pytest

from fer_sweep.config.sweep_file import EarlyTerminate
from fer_sweep.search.hyperband import should_stop

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sweeps 0.3 uses a name that pydantic has renamed
    from sweeps.run import RunState, SweepRun

    import sweeps


def stopped_by_wandb(settings, goal, histories, running):
    rule = {"type": "hyperband", **settings}
    metric = {"name": "m", "goal": goal}
    config = {"method": "random", "metric": metric, "early_terminate": rule, "parameters": {"a": {"value": 1}}}
    runs = []
    for index, (history, alive) in enumerate(zip(histories, running, strict=True)):
        state = RunState.running if alive else RunState.finished
        runs.append(SweepRun(name=str(index), state=state, history=[{"m": value} for value in history]))
    return [int(run.name) for run in sweeps.stop_runs(config, runs)]


def make_histories(rng):
    """Learning curves with ties, plateaus, NaN and infinities, some of them empty."""
    values, odd = [0.1, 0.2, 0.2, 0.5, 0.7, -1.0, 0, 1], [math.nan, math.inf, -math.inf]

    def value():
        return rng.choice(odd) if rng.random() < 0.08 else rng.choice([*values, rng.random()])

    return [[value() for _ in range(rng.choice([0, 1, 2, 3, 5, 9, 12, 30]))] for _ in range(rng.randint(1, 12))]


def early_terminate(**settings):
    return EarlyTerminate.model_validate({"type": "hyperband", **settings})


@pytest.mark.parametrize(
    "settings",
    [
        *({"min_iter": 1}, {"min_iter": 2, "eta": 2}, {"min_iter": 3, "eta": 1.5}, {"min_iter": 3, "strict": False}),
        {"min_iter": 1, "eta": 4, "strict": False},
        *({"max_iter": 27, "s": 2}, {"max_iter": 9, "s": 5}, {"max_iter": 20, "s": 2, "eta": 2.5}),
        {"max_iter": 10, "s": 3, "eta": 2, "strict": False},
        {"min_iter": 5, "max_iter": 12, "s": 2, "eta": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_same_trials_are_stopped_as_by_wandb(settings, goal):
    rng = random.Random(f"{settings}{goal}")
    rule = early_terminate(**settings)
    stopped = spared = 0
    for _ in range(40):
        histories = make_histories(rng)
        running = [rng.random() < 0.6 for _ in histories]
        judged = [index for index, alive in enumerate(running) if alive]
        ours = [index for index in judged if should_stop(rule, goal, histories[index], histories)]
        assert ours == stopped_by_wandb(settings, goal, histories, running)
        stopped += len(ours)
        spared += len(judged) - len(ours)
    assert min(stopped, spared) > 3, "both answers must occur"


def test_settings_on_which_wandb_itself_fails():
    assert early_terminate(min_iter=3, max_iter=27).bands[:4] == (3, 9, 27, 81), "max_iter counts only beside s"
    assert early_terminate(min_iter=1, eta=1e200).bands == (1,), "no training gets to the next one"
    assert early_terminate(max_iter=27, s=2.5).bands == (3, 9)
    for max_iter, s in ((27, 0), (2, 2), (-27, 2)):
        assert early_terminate(max_iter=max_iter, s=s).bands == ()
