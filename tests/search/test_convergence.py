"""The expected gain of further epochs, from records, and the rule for stopping."""

import numpy as np
import pytest

from fer_sweep.config import parameters as d
from fer_sweep.search.convergence import COVERED, FIRST_TRIALS, Gain, is_converged, predict
from fer_sweep.search.freeze_thaw import Observation

EPOCHS = 8
LR = d.Uniform(min=0, max=1)
SPACE = {"lr": LR, "model": d.Constant(value="simple_cnn")}
ERROR = 0.01


def observation(lr, length=EPOCHS, sign=1.0, **state):
    """A curve that rises to 0.7 at lr 0.8, and to less elsewhere."""
    height = 0.7 - 0.5 * abs(lr - 0.8)
    values = {"lr": lr, "model": "simple_cnn"}
    return Observation(values, [sign * height * (1 - 0.5**epoch) for epoch in range(1, length + 1)], **state)


def gain(observations, more=EPOCHS, goal="maximize", searched="model", seed=0):
    found = predict(SPACE, observations, last_epoch=EPOCHS, goal=goal, searched=searched, seed=seed)
    return found and found.gain(more)


FAR_FROM_THE_BEST = [observation(lr) for lr in np.linspace(0.0, 0.3, FIRST_TRIALS)]
ALL_OVER = [observation(lr) for lr in np.linspace(0.0, 1.0, 41)]


def test_search_that_has_not_seen_the_best_region_gains_and_one_that_has_does_not():
    early, late = gain(FAR_FROM_THE_BEST, more=48), gain(ALL_OVER, more=328)
    assert early.chance(ERROR) > 0.5 and early.mean > 0.01 and not is_converged(early, ERROR)
    assert is_converged(late, ERROR) and late.interval[1] < ERROR
    assert early.chance(1.0) == 0.0 and not is_converged(early, least=1.0)  # few trials say little


def test_more_epochs_gain_more_and_a_search_that_learns_more_than_one_that_does_not():
    few, many = gain(FAR_FROM_THE_BEST, more=EPOCHS), gain(FAR_FROM_THE_BEST, more=12 * EPOCHS)
    assert few.mean < many.mean
    means = {searched: gain(ALL_OVER[::5], searched=searched).mean for searched in ("random", "model")}
    assert means["random"] < means["model"]


def test_trial_that_can_be_trained_on_is_part_of_the_gain():
    ended, paused = (
        gain([*ALL_OVER[:30], observation(0.8, length=3, is_paused=is_paused)], more=5, searched="random").mean
        for is_paused in (False, True)
    )
    assert paused > ended


def test_goal_turns_the_metric_around():
    mirrored = [observation(seen.values["lr"], sign=-1.0) for seen in FAR_FROM_THE_BEST]
    assert gain(mirrored, goal="minimize").draws == pytest.approx(gain(FAR_FROM_THE_BEST).draws)


def test_same_records_give_the_same_gain():
    again, other = gain(FAR_FROM_THE_BEST), gain(FAR_FROM_THE_BEST, seed=1)
    assert gain(FAR_FROM_THE_BEST).draws.tolist() == again.draws.tolist() != other.draws.tolist()


@pytest.mark.parametrize(
    "observations",
    [
        [],
        FAR_FROM_THE_BEST[:-1],
        [*FAR_FROM_THE_BEST[:1], *(observation(lr, length=2, is_paused=True) for lr in np.linspace(0.4, 1, 9))],
        [Observation({"lr": lr, "model": "simple_cnn"}, [float("nan")] * EPOCHS) for lr in np.linspace(0, 1, 9)],
        [Observation({"lr": lr, "model": "simple_cnn"}, [0.5] * EPOCHS) for lr in np.linspace(0, 1, 9)],
    ],
    ids=["no trials", "few trials", "one whole trial", "no finite value", "all alike"],
)
def test_gain_is_unknown_at_first(observations):
    assert gain(observations) is None


def test_interval_is_the_shortest_that_holds_its_share():
    skewed = Gain(8, 30, np.array([0.0] * 60 + [0.01] * 30 + [0.5] * 10))
    assert skewed.interval == (0.0, 0.01) and skewed.chance(0.01) == 0.1
    low, high = Gain(8, 30, np.array([0.0, *np.linspace(5, 6, 101)])).interval
    assert low >= 5 and high - low == pytest.approx(COVERED, abs=0.02)
