"""Every distribution is W&B's: its quantiles, its draws, its support."""

import collections
import itertools
import json
import math
import random
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fer_sweep.config.distributions import (
    Beta,
    Categorical,
    Constant,
    Distribution,
    IntUniform,
    LogNormal,
    LogUniform,
    Normal,
    QBeta,
    QLogNormal,
    QLogUniform,
    QNormal,
    QUniform,
    Uniform,
    canonical,
)
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sweeps 0.3 uses a name that pydantic has renamed
    from sweeps.params import HyperParameter

DRAWS = 4_000
LEAST_P = 1e-3
"""The seeds are fixed: a right sampler passes for ever, a wrong one fails for ever."""

CONTINUOUS: dict[str, dict[str, Any]] = {
    "uniform": {"min": -1.5, "max": 4.0},
    "uniform_of_an_int_and_a_float": {"min": 0, "max": 0.5},
    "uniform_by_name": {"distribution": "uniform", "min": 1, "max": 9},
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
DISCRETE: dict[str, dict[str, Any]] = {
    "constant": {"value": 3},
    "categorical": {"values": ["a", "b", 3, 4.5, None, True, [1], {"k": 1}]},
    "weighted": {"values": [1, 2, 3, 4], "probabilities": [0.1, 0.0, 0.6, 0.3]},
    "weighted_ending_in_zero": {"values": ["a", "b"], "probabilities": [1, 0]},
    "int_uniform": {"min": -2, "max": 7},
    "int_zero_one": {"min": 0, "max": 1},
    "q_uniform": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25},
    "q_uniform_by_default": {"distribution": "q_uniform", "min": 0.4, "max": 6.6},
    "q_uniform_of_integers": {"distribution": "q_uniform", "min": 1, "max": 30, "q": 8},
    "q_log_uniform_values": {"distribution": "q_log_uniform_values", "min": 16, "max": 200, "q": 16},
    "q_normal": {"distribution": "q_normal", "mu": 1, "sigma": 3, "q": 2},
    "q_normal_by_default": {"distribution": "q_normal"},
    "q_log_normal": {"distribution": "q_log_normal", "mu": 1, "sigma": 0.5, "q": 0.5},
    "q_beta": {"distribution": "q_beta", "a": 2, "b": 2, "q": 0.1},
    "q_beta_by_default": {"distribution": "q_beta"},
}
ALL = CONTINUOUS | DISCRETE


def ours(form: dict[str, Any]) -> Distribution:
    return Space.from_sweep(parse_sweep({"method": "random", "parameters": {"x": form}})).parameters["x"]


def draws_of(form: dict[str, Any], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    distribution = ours(form)
    return [distribution.sample(rng) for _ in range(DRAWS)]


def draws_of_wandb(form: dict[str, Any], draws: int = DRAWS) -> list[Any]:
    random.seed(1)
    parameter = HyperParameter("x", form)
    return [parameter.sample() for _ in range(draws)]


def test_every_form_and_class_is_covered() -> None:
    classes = {type(ours(form)) for form in ALL.values()}
    assert classes == {
        Constant, Categorical, IntUniform, Uniform, LogUniform, Normal, LogNormal, Beta, QUniform, QLogUniform,
        QNormal, QLogNormal, QBeta,
    }  # fmt: skip


@pytest.mark.parametrize("form", CONTINUOUS.values(), ids=CONTINUOUS)
def test_continuous_draws_are_distributed_as_w_and_bs(form: dict[str, Any]) -> None:
    theirs = np.array(draws_of_wandb(form, draws=2_000), dtype=float)
    assert stats.ks_2samp(draws_of(form), theirs).pvalue > LEAST_P


@pytest.mark.parametrize("form", DISCRETE.values(), ids=DISCRETE)
def test_discrete_draws_are_distributed_as_w_and_bs(form: dict[str, Any]) -> None:
    mine = collections.Counter(map(_shown, draws_of(form)))
    theirs = collections.Counter(map(_shown, draws_of_wandb(form, draws=2_000)))
    common = [value for value in mine | theirs if mine[value] + theirs[value] >= 10]
    if len(common) > 1:
        table = [[counter[value] for value in common] for counter in (mine, theirs)]
        assert stats.chi2_contingency(table).pvalue > LEAST_P
    rare = sum(mine[value] for value in mine if value not in common)
    assert rare < 0.02 * DRAWS


def test_the_statistical_tests_can_tell_distributions_apart() -> None:
    slightly_off = draws_of({"distribution": "normal", "mu": 3.03, "sigma": 0.2})
    theirs = np.array(draws_of_wandb(CONTINUOUS["normal"], draws=2_000), dtype=float)
    assert stats.ks_2samp(slightly_off, theirs).pvalue < LEAST_P


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_quantiles_are_w_and_bs(form: dict[str, Any]) -> None:
    mine, theirs = ours(form), HyperParameter("x", form)
    for u in np.linspace(0.0007, 0.9993, 333):
        value, expected = mine.quantile(float(u)), theirs.ppf(float(u))
        if isinstance(value, float) and isinstance(expected, float | np.floating):
            assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-12)
        else:
            assert value == expected
            assert isinstance(value, int) == isinstance(expected, int | np.integer)


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_draws_lie_in_the_support_are_plain_and_stable(form: dict[str, Any]) -> None:
    distribution = ours(form)
    draws = draws_of(form)
    assert draws == draws_of(form)
    assert all(distribution.contains(value) for value in draws)
    assert json.loads(json.dumps(draws)) == draws
    if distribution.size is not None:
        assert len({canonical(value) for value in draws}) <= distribution.size
        reachable = {canonical(distribution.quantile(u)) for u in np.linspace(0, 1, 20_001).tolist()}
        assert len(reachable) == distribution.size


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_quantiles_are_finite_and_in_the_support_over_the_whole_unit_interval(form: dict[str, Any]) -> None:
    distribution = ours(form)
    levels = [0.0, 5e-324, 1e-12, 0.5, 1 - 1e-12, math.nextafter(1, 0), 1.0]
    values = [distribution.quantile(u) for u in levels]
    assert all(distribution.contains(value) for value in values)
    if isinstance(distribution, Constant | Categorical):
        return
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("form", "outside"),
    [
        ({"value": 3}, [4, "3", True, None]),
        ({"value": 1}, [True]),
        ({"values": ["a", 1]}, ["b", 2, True, "1"]),
        ({"values": [1, 2], "probabilities": [1, 0]}, [2]),
        ({"min": 1, "max": 3}, [0, 4, 1.5, "2", True, None]),
        ({"min": 1.0, "max": 3}, [0.99, 3.01, "2", True, math.nan]),
        ({"distribution": "log_uniform_values", "min": 0.1, "max": 1}, [0.09, 1.01, -1]),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, [0.3, 1.25, -0.25, "0.5", True]),
        ({"distribution": "log_normal"}, [0, -1, math.inf]),
        ({"distribution": "normal"}, [math.inf, math.nan, "0"]),
        ({"distribution": "beta"}, [-0.1, 1.1]),
        ({"distribution": "q_log_normal", "q": 2}, [3, -2]),
        ({"distribution": "q_beta", "q": 0.5}, [0.25, 1.5]),
    ],
)
def test_what_cannot_be_drawn_is_not_contained(form: dict[str, Any], outside: list[Any]) -> None:
    assert [value for value in outside if ours(form).contains(value)] == []


def test_equal_values_are_one_whatever_their_type_in_json() -> None:
    assert ours({"values": [1, 1.0, 2, "1", True]}).size == 4
    assert ours({"values": [64]}).contains(64.0)
    assert canonical({"b": [1.0], "a": 0.0}) == canonical({"a": -0.0, "b": [1]})
    different = [1, True, "1", "True", None, "None", [1], {"1": 1}, 1.5, math.nan]
    assert all(canonical(a) != canonical(b) for a, b in itertools.combinations(different, 2))


finite = st.floats(-1e6, 1e6, allow_nan=False)
unit = st.floats(0, 1)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(bounds=st.lists(finite, min_size=2, max_size=2, unique=True), u=unit, q=st.floats(1e-3, 1e3))
def test_ranges_never_leave_their_bounds(bounds: list[float], u: float, q: float) -> None:
    low, high = sorted(bounds)
    assert low <= Uniform(low, high).quantile(u) <= high
    assert QUniform(low, high, q).contains(QUniform(low, high, q).quantile(u))
    first, last = math.floor(low), math.ceil(high) + 1
    assert first <= IntUniform(first, last).quantile(u) <= last


@settings(derandomize=True, deadline=None, max_examples=300)
@given(bounds=st.lists(st.floats(1e-300, 1e300), min_size=2, max_size=2, unique=True), u=unit, q=st.integers(1, 10**6))
def test_log_ranges_never_leave_their_bounds(bounds: list[float], u: float, q: int) -> None:
    low, high = sorted(bounds)
    assert low <= LogUniform(low, high).quantile(u) <= high
    assert QLogUniform(low, high, q).contains(QLogUniform(low, high, q).quantile(u))


def test_steps_too_small_to_divide_by_leave_the_draw_as_it_is() -> None:
    tiny = QUniform(0, 1e10, 1e-300)
    assert tiny.quantile(0.5) == 5e9
    assert tiny.size is None
    assert QNormal(1e10, 1, 1e-300).quantile(0.5) == 1e10
    assert QLogNormal(1000, 1, 1).quantile(0.5) == math.inf
    assert LogNormal(1000, 1).quantile(0.5) == math.inf
    assert not QNormal(0, 1, 1e-300).contains(1e10)


def _shown(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    return f"{value + 0.0:.9g}" if isinstance(value, float) else repr(value)  # + 0.0: W&B's rounding gives -0.0
