"""Which configurations are proposed: the same from the same seed, and all of a finite space, none of them twice."""

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fer_sweep.config import parameters as d
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.config.values import canonical
from fer_sweep.errors import ConfigError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.axes import axes_of
from fer_sweep.search.embedded import create_sweep
from fer_sweep.search.sampling import holds, unit_draws
from fer_sweep.store.database import default_storage
from tests.support.searches import embedded_search

TRIALS = 14
"""Four more than bayes draws at random."""


def walk(sweep_id, limit=1000, agents=1):
    """Take up to ``limit`` trials, by so many agents in turn; each trial's loss follows from its number."""
    taken = []
    for share in range(agents):
        with closing(embedded_search(sweep_id)) as search:
            while len(taken) < limit * (share + 1) // agents and (request := search.next_trial("cpu/0")):
                taken.append(dict(request.parameters))
                search.report(request.trial_id, 1, {"val_loss": (len(taken) * 7919) % 101})
                search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
    return taken


def make(sweep_id, method, parameters, *, seed=0):
    sweep = parse_sweep({"method": method, "metric": {"name": "val_loss"}, "parameters": parameters})
    sampler = "tpe" if method == "bayes" else None
    create_sweep(sweep, sweep_id=sweep_id, storage=default_storage(), seed=seed, sampler=sampler)
    return sweep_id


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_same_seed_and_results_give_the_same_configurations_through_restarts(method):
    parameters = {
        "model": {"value": "simple_cnn"},
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0},
        "channels": {"min": 1, "max": 64},
        "dropout": {"distribution": "beta", "a": 2, "b": 5},
        "optimizer": {"values": ["adamw", "sgd"]},
    }
    straight = walk(make("straight", method, parameters), TRIALS)
    assert walk(make("restarted", method, parameters), TRIALS, agents=5) == straight
    assert walk(make("other", method, parameters, seed=1), TRIALS) != straight


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_skewed_finite_space_is_walked_to_its_last_configuration(method):
    parameters = {
        "model": {"value": "simple_cnn"},
        "optimizer": {"values": ["adamw", "sgd"], "probabilities": [0.9999, 0.0001]},
        "dropout": {"distribution": "q_uniform", "min": 0, "max": 0.4, "q": 0.2},
        "hidden": {"distribution": "q_log_uniform_values", "min": 10, "max": 700, "q": 330},
        "seed": {"values": [1, 1.0]},
    }
    taken = walk(make("skewed", method, parameters))
    # hidden 0 is refused by the training function; 330 and 660 are left.
    assert len(taken) == len({canonical(values) for values in taken}) == 2 * 3 * 2


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_space_of_one_configuration_gives_one_trial_and_one_without_any_is_refused(method):
    single = {"model": {"value": "vit"}, "epochs": {"values": [2, 2.0]}}
    assert walk(make("single", method, single)) == [{"epochs": 2, "model": "vit"}]
    make("useless", method, {"model": {"value": "vit"}, "dim": {"values": [100, 101]}})
    with closing(embedded_search("useless")) as search:
        with pytest.raises(ConfigError, match="is not a multiple of head_dim") as caught:
            search.next_trial("cpu/0")
        assert "change its ranges" in caught.value.hint
        assert search.records() == []


VALUES = st.lists(st.sampled_from([1, 1.0, 2, "a", True, None, 0.5]), min_size=1, max_size=5)
FINITE = st.one_of(
    st.builds(d.Constant, value=st.integers(-5, 5)),
    st.builds(lambda values: d.Categorical(values=values), VALUES),
    st.builds(lambda low, width: d.IntUniform(min=low, max=low + width), st.integers(-3, 3), st.integers(1, 6)),
    st.builds(
        lambda low, width, q: d.QUniform(min=low, max=low + width, q=q),
        *(st.floats(0, 3), st.floats(0.1, 3), st.sampled_from([0.25, 0.5, 1.0])),
    ),
    st.sampled_from([d.QBeta(a=2, b=2, q=0.25), d.QLogUniform(min=1, max=20, q=4)]),
)
ENDLESS = st.sampled_from(
    [
        d.Uniform(min=-1, max=2.5),
        d.LogUniform(min=1e-5, max=0.1),
        d.Normal(mu=1, sigma=2),
        d.LogNormal(),
        d.Beta(a=2, b=5),
    ]
)


@given(parameters=st.dictionaries(st.sampled_from("abc"), FINITE, max_size=3), seed=st.integers(0, 9))
@hypothesis_settings(derandomize=True, deadline=None, max_examples=60)
def test_unit_draws_reach_every_configuration_of_a_finite_space(parameters, seed):
    draws = list(unit_draws(parameters, np.random.default_rng(seed)))
    seen = {canonical({name: parameters[name].quantile(u) for name, u in draw.items()}) for draw in draws}
    assert len(seen) == np.prod([distribution.size for distribution in parameters.values()])


@given(distribution=FINITE | ENDLESS, u=st.floats(0, 1))
@hypothesis_settings(derandomize=True, deadline=None, max_examples=100)
def test_axis_gives_the_values_of_its_distribution(distribution, u):
    axes = axes_of({"x": distribution})
    if not axes:
        assert canonical(distribution.quantile(u)) == canonical(distribution.quantile(0.5))
        return
    coordinate = axes["x"].coordinate(u)
    assert axes["x"].native._contains(axes["x"].native.to_internal_repr(coordinate))
    assert canonical(axes["x"].value(coordinate)) == canonical(distribution.quantile(u))


@given(distribution=FINITE | ENDLESS, u=st.floats(0, 1))
@hypothesis_settings(derandomize=True, deadline=None, max_examples=200)
def test_what_a_distribution_gives_is_held_by_it_and_found_on_its_axis(distribution, u):
    value = distribution.quantile(u)
    assert holds(distribution, value)
    for axis in axes_of({"x": distribution}).values():
        found = axis.value(axis.locate(value))
        assert canonical(found) == canonical(value) or found == pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("distribution", "value"),
    [
        (d.IntUniform(min=1, max=4), 5),
        (d.IntUniform(min=1, max=4), 2.5),
        (d.IntUniform(min=1, max=4), "2"),
        (d.Uniform(min=0, max=1), 1 + 1e-12),
        (d.QUniform(min=0, max=1, q=0.25), 0.3),
        (d.Beta(a=2, b=2), 1.5),
        (d.Categorical(values=[1, 2]), True),
        (d.Constant(value=3), 4),
    ],
)
def test_what_a_distribution_cannot_give_is_not_held_by_it(distribution, value):
    assert not holds(distribution, value)
