"""Freeze-thaw with a limit on a second metric, with two objectives, and with trials of earlier sweeps."""

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import norm

from fer_sweep.config import parameters as d
from fer_sweep.search.freeze_thaw import FreezeThaw
from fer_sweep.search.freeze_thaw.acquisition import Hypervolume, Improvement
from fer_sweep.search.freeze_thaw.history import History, Observation, Output
from fer_sweep.search.freeze_thaw.process import Hyperparameters, Points, Posterior

EPOCHS = 8
SIZE = d.Uniform(min=0.0, max=1.0)
SPACE = {"size": SIZE, "noise": SIZE}
GAP = Output("minimize", is_latest=True)


def rng(*seed):
    return np.random.default_rng(seed)


def curves(values, epochs):
    """Accuracy and gap both rise with the size and with time."""
    risen = [1 - math.exp(-epoch / 3) for epoch in range(1, epochs + 1)]
    return [(0.3 + 0.4 * values["size"]) * done for done in risen], [0.4 * values["size"] * done for done in risen]


def play(turns, seed=0, space=SPACE, made=curves, **options):
    """The trials of one slot after so many turns."""
    search = FreezeThaw(space, epochs=EPOCHS, goal="maximize", **options)
    observations, fitted = [], None
    for number in range(turns):
        turn = search.propose(observations, rng(seed, number), fitted=fitted)
        fitted = turn.fitted
        accuracy, gap = made(turn.values, turn.until)
        after = Observation(turn.values, accuracy, gap, is_paused=turn.until < EPOCHS)
        if turn.trial is None:
            observations.append(after)
        else:
            observations[turn.trial] = after
    return observations


def epochs_spent(observations, condition):
    chosen = sum(len(seen.curve) for seen in observations if condition(seen.values))
    return chosen / sum(len(seen.curve) for seen in observations)


@pytest.mark.parametrize("seed", range(2))
def test_limit_on_the_gap_leads_to_the_best_trial_within_it(seed):
    limited = play(28, seed, second=Output("minimize", is_latest=True, bound=0.2))
    free = play(28, seed)
    whole = [[seen for seen in played if len(seen.curve) == EPOCHS] for played in (limited, free)]
    # The gap is 0.2 at the end where the size is 0.54.
    assert 0.44 < max(seen.values["size"] for seen in whole[0] if seen.second[-1] <= 0.2) < 0.54
    beyond = [[seen.values["size"] for seen in ended if seen.second[-1] > 0.2] for ended in whole]
    assert max(beyond[0], default=0.0) < 0.7
    assert max(beyond[1]) > 0.85


def test_trial_whose_gap_will_exceed_the_limit_is_not_resumed_though_it_is_within_it_now():
    space, search = {"size": SIZE}, []
    for bound in (None, 0.2):
        second = None if bound is None else Output("minimize", is_latest=True, bound=bound)
        search.append(FreezeThaw(space, epochs=EPOCHS, goal="maximize", second=second))
    sizes = [0.05, 0.3, 0.5, 0.7, 0.85, 0.95]
    seen = [Observation({"size": size}, *curves({"size": size}, EPOCHS)) for size in sizes[:-1]]
    seen += [Observation({"size": size}, *curves({"size": size}, 2), is_paused=True) for size in (0.45, 0.95)]
    assert seen[-1].second[-1] < 0.2
    turns = [one.propose(seen, rng(0), may_start=False) for one in search]
    assert [turn.values["size"] for turn in turns] == [0.95, 0.45]


def test_search_for_two_objectives_spreads_over_the_front_and_leaves_what_is_dominated():
    def made(values, epochs):
        accuracy, gap = curves(values, epochs)
        # The second parameter costs accuracy and widens the gap: only its least values are on the front.
        return [value - 0.3 * values["noise"] for value in accuracy], [value + 0.2 * values["noise"] for value in gap]

    spent, whole = [], []
    for seed in range(2):
        observations = play(32, seed, made=made, second=GAP)
        spent.append(epochs_spent(observations, lambda values: values["noise"] < 0.3))
        whole += [seen.values for seen in observations if len(seen.curve) == EPOCHS]
    assert min(spent) > 0.6
    on_front = [values["size"] for values in whole if values["noise"] < 0.3]
    assert min(on_front) < 0.35
    assert max(on_front) > 0.65


def test_improvement_counts_by_the_probability_of_the_limit_and_only_over_what_is_within():
    acquisition = Improvement.within(np.array([3.0, 1.0, math.nan]), -2.0, np.array([-1.0, 1.0, 2.0]), 0.0)
    assert acquisition.best == 1.0
    assert Improvement.within(np.array([3.0]), -2.0, np.array([-1.0]), 0.0).best == -2.0
    first = np.full(3, 2.0), np.full(3, 1e-3)
    gain = acquisition.gain([first, (np.array([-1.0, 0.0, 1.0]), np.full(3, 0.1))])
    assert gain == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)
    assert np.argsort(acquisition.worth([np.array([5.0, 1.0, 2.0]), np.array([-1.0, 0.5, -3.0])])).tolist() == [2, 0, 1]


def test_hypervolume_improvement_is_the_expected_area_beyond_the_front():
    values = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, -0.5], [0.5, 0.5], [-3.0, 3.0], [math.nan, 9.0]])
    reference = np.array([-1.0, -1.0])
    acquisition = Hypervolume.of(values, reference)
    assert acquisition.lefts.tolist() == [-1.0, 0.0, 1.0, 2.0]
    assert acquisition.tops.tolist() == [2.0, 1.0, -0.5, -1.0]

    # Another way to the same: each spot above the front counts by the chance that it is dominated.
    axis = np.linspace(-1.0, 6.0, 1401)[:-1] + 0.0025
    below = (axis[:, None, None] < values[:3, 0]) & (axis[None, :, None] < values[:3, 1])
    means, deviations = np.array([[1.2, 1.2], [0.0, 0.0]]), np.array([[0.5, 0.3], [1.0, 0.8]])
    exact = acquisition.gain([(means[:, k], deviations[:, k]) for k in (0, 1)])
    for mean, deviation, gain in zip(means, deviations, exact, strict=True):
        reached = [norm.sf(axis, mean[k], deviation[k]) for k in (0, 1)]
        assert gain == pytest.approx((np.outer(*reached) * ~below.any(2)).sum() * 0.005**2, rel=0.01)
    certain = acquisition.gain([(np.array([0.5]), np.array([1e-6])), (np.array([0.5]), np.array([1e-6]))])
    assert certain == pytest.approx([0.0], abs=1e-5)


def test_last_value_counts_where_it_is_no_best():
    places, ends = np.zeros((2, 1)), np.full(2, 4.0)
    seen = [Observation({}, [0.0, 0.3, math.nan]), Observation({}, [0.1, 0.2, 0.4])]
    peaks = History.of(seen, places, ends, GAP).peaks
    assert math.isnan(peaks[0])  # its last value is not finite
    history = History.of([Observation({}, [0.0, 0.3]), Observation({}, [0.1, 0.2])], places, ends, GAP)
    assert history.peaks[0] == pytest.approx(history.scaled(0.3, "minimize"))
    assert history.peaks[1] == pytest.approx(history.scaled(0.2, "minimize"))


def earlier(count=20, level=0.0, sign=1.0):
    """Complete trials of an earlier sweep of half as many epochs, on another level."""
    found = []
    for k in range(count):
        values = {"size": (k + 0.5) / count, "noise": (0.618 * k) % 1}
        own, _ = peaked(values, EPOCHS)
        found.append(Observation(values, [level + sign * value for value in own[1::2]], sweep=1))
    return found


def peaked(values, epochs):
    """Best at a size of 0.8."""
    height = 0.6 - 0.5 * abs(values["size"] - 0.8)
    return [height * (1 - math.exp(-epoch / 2)) for epoch in range(1, epochs + 1)], []


@pytest.mark.parametrize("level", [-0.3, 0.0, 0.3])
def test_earlier_sweep_of_any_level_shows_where_to_look(level):
    """From one trial of its own on, the search tries what was best there."""
    for seed in range(3):
        one = {"size": 0.3, "noise": 0.5}
        seen = [Observation(one, peaked(one, 2)[0], is_paused=True)]
        search = FreezeThaw(SPACE, epochs=EPOCHS, goal="maximize", earlier=earlier(level=level))
        turn = search.propose(seen, rng(seed))
        assert turn.trial is None
        assert abs(turn.values["size"] - 0.8) < 0.2


def test_earlier_sweep_of_the_opposite_shape_is_unlearnt():
    found = play(20, 0, made=peaked, earlier=earlier(sign=-1.0))
    best = max(found, key=lambda seen: max(seen.curve))
    assert abs(best.values["size"] - 0.8) < 0.1
    assert len(best.curve) == EPOCHS


def test_results_of_earlier_sweeps_are_nothing_to_improve_on():
    seen = [Observation({}, [0.1, 0.2]), Observation({}, [0.1, 0.3]), Observation({}, [0.8, 0.9], sweep=1)]
    history = History.of(seen, np.zeros((3, 1)), np.full(3, 4.0), Output("maximize"))
    assert history.best == pytest.approx(history.scaled(0.3, "maximize"))
    assert len(history.peaks) == 2
    assert history.points.epochs[history.points.trials == 2].tolist() == [2.0, 4.0]
    assert History.of(seen[2:], np.zeros((1, 1)), np.full(1, 4.0), Output("maximize")) is None


def test_gradient_of_the_posterior_with_earlier_sweeps_is_that_of_finite_differences():
    places = rng(0).random((9, 2))
    trials, epochs = np.repeat(np.arange(9), 4), np.tile(np.arange(1.0, 5.0), 9)
    sweeps = np.array([0] * 3 + [1] * 4 + [2] * 2)
    values = np.sin(5 * places[trials, 0]) + 0.3 * np.log(epochs) + sweeps[trials]
    posterior = Posterior(Points(places, trials, epochs, values - values.mean(), sweeps), np.arange(2), 2)
    vector = Hyperparameters.typical(2).to_vector() + rng(1).normal(0, 0.3, 9)
    numeric = approx_fprime(vector, lambda at: posterior(at)[0], 1e-6)
    assert posterior(vector)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-3)
