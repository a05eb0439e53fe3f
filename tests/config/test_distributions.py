"""Every distribution has the quantiles, draws and support of W&B's own sampler."""

import collections
import itertools
import json
import math
import random

import numpy as np
import pytest
from scipy import stats
from sweeps.params import HyperParameter

from fer_sweep.config.parameters import Categorical, Constant
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.config.values import canonical
from tests.config.conftest import can_be_drawn

DRAWS, LEAST_P = 1_000, 1e-3  # the seeds are fixed, so that a sampler passes or fails for ever

CONTINUOUS = {
    "uniform": {"min": -1.5, "max": 4.0},
    "uniform_of_an_int_and_a_float": {"min": 0, "max": 0.5},
    "log_uniform_values": {"distribution": "log_uniform_values", "min": 3e-4, "max": 1e-2},
    "inv_log_uniform_values": {"distribution": "inv_log_uniform_values", "min": 0.5, "max": 80},
    "normal_by_default": {"distribution": "normal"},
    "normal": {"distribution": "normal", "mu": 3, "sigma": 0.2},
    "log_normal_by_default": {"distribution": "log_normal"},
    "log_normal": {"distribution": "log_normal", "mu": -2, "sigma": 0.7},
    "beta_by_default": {"distribution": "beta"},
    "beta": {"distribution": "beta", "a": 2, "b": 5},
    "beta_with_its_mass_at_the_ends": {"distribution": "beta", "a": 0.3, "b": 0.4},
}
DISCRETE = {
    "constant": {"value": 3},
    "categorical": {"values": ["a", "b", 3, 4.5, None, True, [1], {"k": 1}]},
    "weighted": {"values": [1, 2, 3, 4], "probabilities": [0.1, 0.0, 0.6, 0.3]},
    "weighted_ending_in_zero": {"values": ["a", "b"], "probabilities": [1, 0]},
    "int_uniform": {"min": -2, "max": 7},
    "q_uniform": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25},
    "q_uniform_by_default": {"distribution": "q_uniform", "min": 0.4, "max": 6.6},
    "q_log_uniform_values": {"distribution": "q_log_uniform_values", "min": 16, "max": 200, "q": 16},
    "q_normal": {"distribution": "q_normal", "mu": 1, "sigma": 3, "q": 2},
    "q_normal_by_default": {"distribution": "q_normal"},
    "q_log_normal": {"distribution": "q_log_normal", "mu": 1, "sigma": 0.5, "q": 0.5},
    "q_beta": {"distribution": "q_beta", "a": 2, "b": 2, "q": 0.1},
    "q_beta_by_default": {"distribution": "q_beta"},
}
ALL = CONTINUOUS | DISCRETE


def ours(form):
    return Space.from_sweep(parse_sweep({"method": "random", "parameters": {"x": form}})).parameters["x"]


def draws_of(form, count=DRAWS):
    rng = np.random.default_rng(0)
    distribution = ours(form)
    return [distribution.quantile(rng.random()) for _ in range(count)]


def p_value(mine, theirs):
    """How likely two samples of one discrete distribution differ as much as these."""
    ours, wandbs = (collections.Counter(map(_shown, draws)) for draws in (mine, theirs))
    common = [value for value in ours | wandbs if ours[value] + wandbs[value] >= 10]
    assert sum(ours[value] for value in ours if value not in common) < 0.02 * len(mine)
    table = [[counter[value] for value in common] for counter in (ours, wandbs)]
    return float(stats.chi2_contingency(table).pvalue) if len(common) > 1 else 1.0


@pytest.mark.parametrize("name", ALL)
def test_quantiles_and_draws_are_those_of_wandb(name):
    mine, theirs = ours(ALL[name]), HyperParameter("x", ALL[name])
    random.seed(1)
    draws, wandbs = draws_of(ALL[name]), [theirs.sample() for _ in range(DRAWS)]
    if name in CONTINUOUS:
        assert stats.ks_2samp(draws, np.array(wandbs, dtype=float)).pvalue > LEAST_P
    else:
        assert p_value(draws, wandbs) > LEAST_P
    for u in np.linspace(0.0007, 0.9993, 99):
        value, expected = mine.quantile(float(u)), theirs.ppf(float(u))
        if isinstance(value, float) and isinstance(expected, float | np.floating):
            assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-12)
        else:
            assert value == expected
            assert isinstance(value, int) == isinstance(expected, int | np.integer)


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_draws_are_plain_repeatable_and_in_the_support(form):
    distribution, draws = ours(form), draws_of(form, 500)
    assert draws == draws_of(form, 500)
    assert all(can_be_drawn(distribution, value) for value in draws)
    assert json.loads(json.dumps(draws)) == draws
    if distribution.size is not None:
        assert len({canonical(value) for value in draws}) <= distribution.size
        reachable = {canonical(distribution.quantile(u)) for u in np.linspace(0, 1, 2_001).tolist()}
        assert len(reachable) == distribution.size
    values = [distribution.quantile(u) for u in (0.0, 5e-324, 1e-12, 0.5, 1 - 1e-12, math.nextafter(1, 0), 1.0)]
    assert all(can_be_drawn(distribution, value) for value in values)
    if not isinstance(distribution, Constant | Categorical):
        assert values == sorted(values)


def test_equal_json_values_are_the_same_choice():
    assert ours({"values": [1, 1.0, 2, "1", True]}).size == 4
    assert can_be_drawn(ours({"values": [64]}), 64.0)
    assert canonical({"b": [1.0], "a": 0.0}) == canonical({"a": -0.0, "b": [1]})
    different = [1, True, "1", "True", None, "None", [1], {"1": 1}, 1.5, math.nan]
    assert all(canonical(a) != canonical(b) for a, b in itertools.combinations(different, 2))


def _shown(value):
    if isinstance(value, np.generic):
        value = value.item()
    return f"{value + 0.0:.9g}" if isinstance(value, float) else repr(value)  # + 0.0: W&B's rounding gives -0.0
