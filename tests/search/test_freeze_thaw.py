"""Freeze-thaw search over records: what it trains next, and the Gaussian process that it asks."""

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from fer_sweep.config import parameters as d
from fer_sweep.config.values import canonical
from fer_sweep.search.freeze_thaw import FIRST_TRIALS, REFIT, FreezeThaw, Observation
from fer_sweep.search.freeze_thaw.encoding import Encoding
from fer_sweep.search.freeze_thaw.history import History, Output
from fer_sweep.search.freeze_thaw.process import Hyperparameters, Points, Posterior, Process, fit

LR = d.LogUniform(min=1e-4, max=1.0)
DROPOUT = d.Uniform(min=0, max=0.5)
SPACE = {"lr": LR, "dropout": DROPOUT, "model": d.Constant(value="simple_cnn")}
EPOCHS = 10


def curve(values, length=EPOCHS):
    """Rises to a height that is best at lr 0.01."""
    height = 0.5 - 0.1 * abs(math.log10(values["lr"]) + 2)
    return [height * (1 - 0.6 * math.exp(-epoch / 3)) for epoch in range(1, length + 1)]


def trials(count=FIRST_TRIALS, length=2, **state):
    """Paused trials, drawn evenly over the learning rates."""
    places = [((k + 0.5) / count, (0.618 * k) % 1) for k in range(count)]
    given = [{"lr": LR.quantile(u), "dropout": DROPOUT.quantile(v), "model": "simple_cnn"} for u, v in places]
    state = state or {"is_paused": True}
    return [Observation(values, curve(values, length), **state) for values in given]


def search(parameters=SPACE, goal="maximize", epochs=EPOCHS, **options):
    return FreezeThaw(parameters, epochs=epochs, goal=goal, **options)


def rng(seed=0):
    return np.random.default_rng(seed)


def play(found, turns, seed=0, made=None):
    """The turns of one slot, each by the search that ``made`` gives, and the trials after them."""
    observations, taken, fitted = [], [], None
    for number in range(turns):
        searching = made() if made else found
        turn = searching.propose(observations, rng([seed, number]), fitted=fitted)
        if turn is None:
            break
        taken.append(turn)
        fitted = turn.fitted
        after = Observation(turn.values, curve(turn.values, turn.until), is_paused=turn.until < EPOCHS)
        if turn.trial is None:
            observations.append(after)
        else:
            observations[turn.trial] = after
    return taken, observations


def test_first_trials_are_new_and_last_one_turn():
    turns, _ = play(search(turn=3), FIRST_TRIALS)
    assert [(turn.trial, turn.until) for turn in turns] == [(None, 3)] * FIRST_TRIALS
    assert len({turn.values["lr"] for turn in turns}) == FIRST_TRIALS
    assert {turn.values["model"] for turn in turns} == {"simple_cnn"}


def test_same_records_give_the_same_turns_to_a_search_that_was_just_started():
    straight, _ = play(search(), 3 * REFIT)
    restarted, _ = play(None, 3 * REFIT, made=search)
    assert restarted == straight
    assert play(search(), 3 * REFIT, seed=1)[0] != straight


def test_best_trial_is_trained_to_the_end_and_others_stay_paused():
    turns, observations = play(search(), 30)
    lengths = sorted(len(seen.curve) for seen in observations)
    best = max(observations, key=lambda seen: max(seen.curve))
    assert lengths[-1] == len(best.curve) == EPOCHS
    assert lengths[0] == 2
    assert abs(math.log10(best.values["lr"]) + 2) < 0.3
    resumed = [turn for turn in turns if turn.trial is not None]
    assert all(turn.values == observations[turn.trial].values for turn in resumed)


def test_one_trial_is_trained_to_the_end_before_others_where_first_epochs_tell_nothing():
    flat = [Observation(seen.values, [0.25, 0.25], is_paused=True) for seen in trials()]
    length, chosen = 2, set()
    fitted = None
    while length < EPOCHS:
        turn = search().propose(flat, rng(length), fitted=fitted)
        chosen.add(turn.trial)
        length, fitted = turn.until, turn.fitted
        flat[turn.trial] = Observation(turn.values, [0.25] * length, is_paused=length < EPOCHS)
    assert len(chosen) == 1 and None not in chosen


def test_gain_below_the_least_one_is_no_reason_for_a_turn():
    observations = trials()
    assert search().propose(observations, rng(), may_start=False, least_gain=0.01) is not None
    assert search().propose(observations, rng(), may_start=False, least_gain=10.0) is None


def test_smallest_is_best_where_the_metric_is_minimized():
    observations = trials()
    mirrored = [Observation(seen.values, [-value for value in seen.curve], is_paused=True) for seen in observations]
    wanted = search().propose(observations, rng())
    found = search(goal="minimize").propose(mirrored, rng())
    assert (found.trial, found.values) == (wanted.trial, wanted.values)


@pytest.mark.parametrize("ending", ["failed", "diverged"])
def test_failed_and_diverged_configurations_are_avoided(ending):
    def proposed(*, goes_well):
        """Learning rates that follow trials which promise most above the middle, and end well there or do not."""
        seen = []
        for one in trials(12):
            if one.values["lr"] > 0.01 and goes_well:
                one = Observation(one.values, [0.5, 0.6])
            elif one.values["lr"] > 0.01:
                one = Observation(
                    one.values, [0.6, *([math.nan] * (ending == "diverged"))], has_failed=ending == "failed"
                )
            seen.append(one)
        return [search().propose(seen, rng(seed)).values["lr"] for seed in range(8)]

    assert sum(lr > 0.03 for lr in proposed(goes_well=True)) >= 7
    assert sum(lr > 0.03 for lr in proposed(goes_well=False)) <= 1


def test_only_failures_so_far_leave_the_prior():
    seen = trials(8, has_failed=True)
    assert search().propose(seen, rng()).trial is None
    empty = [Observation(one.values, (), has_failed=True) for one in seen]
    assert search().propose(empty, rng()).trial is None
    assert search().propose(empty, rng(), may_start=False) is None


def test_slots_train_different_trials():
    observations, started = trials(), []
    for _ in range(4):
        turn = search().propose(observations, rng())
        started.append(turn.trial if turn.trial is not None else canonical(turn.values))
        length = 0 if turn.trial is None else len(observations[turn.trial].curve)
        running = Observation(turn.values, curve(turn.values, length), running_until=turn.until)
        if turn.trial is None:
            observations.append(running)
        else:
            observations[turn.trial] = running
    assert len(set(started)) == 4


def test_slot_keeps_away_from_what_runs_to_the_end():
    def distance(one, other):
        return math.hypot(math.log10(one["lr"] / other["lr"]) / 4, 2 * (one["dropout"] - other["dropout"]))

    def chosen(beside, seed):
        return search().propose([*trials(8), *beside], rng(seed)).values

    distances = []
    for seed in range(6):
        alone = chosen([], seed)
        running = Observation(alone, running_until=EPOCHS)
        distances.append([distance(alone, chosen(beside, seed + 100)) for beside in ([], [running])])
    without, beside = np.mean(distances, axis=0)
    assert without < 0.3
    assert beside > 2 * without


def test_new_configuration_is_no_near_copy_of_a_trial():
    encoding = Encoding(SPACE)
    turns, _ = play(search(), 30)
    places, checked = [], 0
    for turn in turns:
        if turn.trial is not None:
            continue
        place = encoding.place(turn.values)
        if turn.fitted is not None:
            lengths = Hyperparameters.from_vector(turn.fitted.vectors[0]).lengths
            assert min(np.linalg.norm((place - other) / lengths) for other in places) > 0.15
            checked += 1
        places.append(place)
    assert checked >= 3


def test_turn_ends_with_the_last_epoch_that_the_configuration_has():
    parameters = {**SPACE, "epochs": d.Categorical(values=[3, 5])}
    observations = [
        Observation({**seen.values, "epochs": 3}, curve(seen.values, 2), is_paused=True) for seen in trials()
    ]
    resumed = search(parameters, turn=4).propose(observations, rng(), may_start=False)
    assert resumed.until == 3
    started = search(parameters, turn=4).propose([], rng())
    assert started.until == min(4, started.values["epochs"])


def test_configurations_that_are_not_accepted_or_are_trials_are_not_started():
    finite = {"a": d.Categorical(values=["x", "y", "z"]), "b": d.IntUniform(min=1, max=4)}
    observations, started = [], []
    while turn := search(finite, epochs=2).propose(
        observations, rng(len(observations)), accepts=lambda values: values["b"] != 2
    ):
        started.append(canonical(turn.values))
        observations.append(Observation(turn.values, [0.1, 0.1 * turn.values["b"]]))
    assert len(started) == len(set(started)) == 9


def test_exhausted_or_capped_search_resumes_what_is_paused_and_then_has_nothing():
    single = {"a": d.Constant(value=1)}
    first = search(single).propose([], rng())
    assert (first.trial, first.values) == (None, {"a": 1})
    paused = Observation({"a": 1}, [0.1, 0.2], is_paused=True)
    assert search(single).propose([paused], rng()).trial == 0
    assert search(single).propose([Observation({"a": 1}, [0.1, 0.2], running_until=4)], rng()) is None
    assert search().propose(trials(), rng(), may_start=False).trial is not None
    assert search().propose(trials(length=EPOCHS, has_failed=False), rng(), may_start=False) is None


def test_hyperparameters_are_kept_for_some_turns_and_do_not_outlive_the_space():
    observations = trials()
    first = search().propose(observations, rng()).fitted
    second = search().propose(observations, rng(), fitted=first).fitted
    assert (first.age, second.age, second.vectors) == (0, 1, first.vectors)
    turns, _ = play(search(), FIRST_TRIALS + 2 * REFIT)
    fits = [turn.fitted for turn in turns[FIRST_TRIALS:]]
    assert [fit.age for fit in fits] == [*range(REFIT)] * 2
    assert len({fit.vectors for fit in fits}) == 2
    wider = {**SPACE, "hidden": d.IntUniform(min=1, max=9)}
    assert search(wider).propose(observations, rng(), fitted=second).fitted.age == 0


def test_loss_that_explodes_does_not_hide_the_differences_of_the_others():
    places = np.linspace(0, 1, 4)[:, None]
    ends = np.full(4, 10.0)
    seen = [Observation({}, [loss]) for loss in (1.0, 1.1, 1.2, 1e30)]
    history = History.of(seen, places, ends, Output("minimize"))
    assert np.ptp(history.points.values[:3]) > 0.5
    assert history.points.values.argmin() == 3


@pytest.mark.parametrize(
    "source",
    [
        LR,
        DROPOUT,
        d.IntUniform(min=1, max=6),
        d.Categorical(values=[64, 16, 512]),
        d.Categorical(values=["adamw", "sgd", [1, 2]]),
        d.Weighted(values=["a", "b", "c"], probabilities=[0.7, 0.3, 0.0]),
        d.QLogUniform(min=1, max=64, q=4),
        d.Normal(mu=1.0, sigma=2.0),
        d.Beta(a=2, b=5),
    ],
)
def test_place_of_a_configuration_is_that_of_the_point_it_was_drawn_from(source):
    encoding = Encoding({"x": source})
    units = np.linspace(0.001, 0.999, 41)[:, None]
    drawn = [encoding.values(unit) for unit in units]
    assert np.allclose(encoding.places(units), [encoding.place(values) for values in drawn], atol=1e-6)
    back = [encoding.values(encoding.unit(values))["x"] for values in drawn]
    assert all(
        canonical(b) == canonical(v["x"]) or b == pytest.approx(v["x"]) for b, v in zip(back, drawn, strict=True)
    )


def test_numbers_keep_their_order_and_other_values_are_equally_far_apart():
    numbers = Encoding({"x": d.Categorical(values=[512, 64, 128])})
    assert [numbers.place({"x": x})[0] for x in (64, 128, 512)] == [0.0, 0.5, 1.0]
    names = Encoding({"x": d.Categorical(values=["a", "b", True])})
    places = [names.place({"x": x}) for x in ("a", "b", True)]
    assert [math.dist(places[i], places[j]) for i, j in ((0, 1), (0, 2), (1, 2))] == pytest.approx([1.0] * 3)
    logarithmic = Encoding({"x": LR})
    assert logarithmic.place({"x": 0.01})[0] == pytest.approx(0.5)


def test_inactive_parameter_is_left_out_and_makes_no_distance():
    parameters = {"optimizer": d.Categorical(values=["adamw", "sgd"]), "momentum": d.Uniform(min=0.0, max=1.0)}
    encoding = Encoding(parameters, lambda name, values: name != "momentum" or values["optimizer"] == "sgd")
    units = np.array([[0.1, 0.2], [0.1, 0.9], [0.9, 0.2], [0.9, 0.9]])
    drawn = [encoding.values(unit) for unit in units]
    assert [sorted(values) for values in drawn] == [["optimizer"]] * 2 + [["momentum", "optimizer"]] * 2
    places = encoding.places(units)
    assert len(encoding.groups) == places.shape[1]
    assert (places[0] == places[1]).all() and (places[2] != places[3]).any() and (places[0] != places[2]).any()
    conditional = search(parameters, is_active=lambda name, values: name != "momentum" or values["optimizer"] == "sgd")
    seen = [Observation(values, [0.1 * k, 0.2 * k], is_paused=True) for k, values in enumerate([*drawn, *drawn])]
    assert conditional.propose(seen, rng()) is not None


def points(count=12, columns=3, seed=0):
    """Curves of five points whose height depends on the first coordinate alone."""
    places = rng(seed).random((count, columns))
    of_trial, epochs = np.repeat(np.arange(count), 5), np.tile(np.arange(1.0, 6.0), count)
    values = np.sin(5 * places[of_trial, 0]) + 0.3 * np.log(epochs)
    return Points(places, of_trial, epochs, (values - values.mean()) / values.std(), np.zeros(count, dtype=np.intp))


def test_gradient_of_the_posterior_is_that_of_finite_differences():
    posterior = Posterior(points(), np.arange(3), 3)
    vector = Hyperparameters.typical(3).to_vector() + rng().normal(0, 0.3, 10)
    numeric = approx_fprime(vector, lambda at: posterior(at)[0], 1e-6)
    assert posterior(vector)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_fit_finds_which_parameter_matters():
    lengths = Hyperparameters.from_vector(fit(points(), np.arange(3), Hyperparameters.typical(3).to_vector())).lengths
    assert lengths[0] < 0.6 * min(lengths[1:])


def test_process_knows_what_it_was_told_and_is_unsure_of_the_rest():
    known = points()
    process = Process(known, np.arange(3), Hyperparameters.typical(3))
    mean, deviation = process.predict(known.places[known.trials], known.trials, known.epochs)
    assert mean == pytest.approx(known.values, abs=0.15)
    ends = np.full(12, 20.0)
    _, later = process.predict(known.places, np.arange(12), ends)
    _, unstarted = process.predict(known.places, np.full(12, -1), ends)
    assert deviation.max() < later.min() and (later < unstarted).all()
    _, far = process.predict(known.places + 50, np.full(12, -1), ends)
    h = Hyperparameters.typical(3)
    assert far == pytest.approx(math.sqrt(h.scale + h.own))
