"""Our validator accepts and refuses what W&B's own validator does, over a large generated set of sweeps."""

import contextlib
import copy
import json
import math
import random

import pytest
from sweeps.config import schema_violations_from_proposed_config

from fer_sweep.config.binding import bind
from fer_sweep.config.sweep_file import parse_sweep, with_constants
from fer_sweep.config.trial import ARCHITECTURES
from fer_sweep.errors import SweepFileError

CASES = 300  # for each number of damages


def _nested_fault(config):
    """A nested parameter that W&B's validator refuses at the top level; it compares bounds only there."""
    flat = {f"p{i}": form for i, form in enumerate(_leaves(config["parameters"]))}
    return not wandb_accepts({**config, "parameters": flat})


def _not_finite(config):
    """NaN, infinity, or a range wider than a float: the draw is no number."""
    forms = list(_leaves(config.get("parameters", {})))
    widths = [float(form["max"]) - float(form["min"]) for form in forms if {"min", "max"} <= form.keys()]
    numbers = [value for form in forms for name, value in form.items() if name not in ("value", "values")]
    try:
        json.dumps([{**config, "parameters": None}, numbers, widths], allow_nan=False)
    except ValueError:
        return True
    return False


def _no_spread(config):
    """sigma 0, or a beta distribution with a or b of 0: W&B's sampler draws NaN."""
    return any(form.get(name) == 0 for form in _leaves(config["parameters"]) for name in ("sigma", "a", "b"))


def _odd_name(config):
    """A name that is a number or ends in a newline slips past W&B's pattern; no program can take it."""
    names = [*_names(config.get("parameters", {})), *config.get("controller", {})]
    return any(not isinstance(name, str) or name.endswith("\n") for name in names)


DIFFERENCES = (_nested_fault, _not_finite, _no_spread, _odd_name)
"""All that we refuse on purpose and W&B accepts. There is nothing that we accept and W&B refuses."""


def _leaves(parameters):
    for form in parameters.values() if isinstance(parameters, dict) else ():
        if isinstance(form, dict):
            yield from _leaves(form["parameters"]) if "parameters" in form else (form,)


def _names(parameters):
    for name, form in parameters.items():
        yield name
        yield from _names(form.get("parameters", {}))


def wandb_accepts(config):
    try:
        return not schema_violations_from_proposed_config(copy.deepcopy(config))
    except Exception:  # W&B's validator fails on some wrong types with whatever breaks first
        return False


def we_accept(config):
    try:
        sweep = parse_sweep(copy.deepcopy(config))
    except SweepFileError as error:
        assert error.problems
        return False
    assert sweep.to_plain() == config, "it is written as it was read"
    assert parse_sweep(sweep.to_plain()) == sweep
    return True


NAMES = ["lr", "batch_size", "kernel_size", "augment", "_x", "a.b", "w-d", "Depth2"]
JUNK = [
    None, True, False, 0, 1, -1, 3, 0.0, 1.0, 0.5, -0.5, 1e300, math.nan, math.inf, "", "x", "1e-4", "uniform",
    "log_uniform", "min", [], [1], [1, 2], ["a"], {}, {"value": 1}, {"min": 0, "max": 1}, {"parameters": {}},
]  # fmt: skip
KEYS = [
    "min", "max", "q", "mu", "sigma", "a", "b", "value", "values", "probabilities", "distribution", "parameters",
    "metric", "metrics", "method", "name", "goal", "target", "type", "s", "eta", "strict", "min_iter", "max_iter",
    "engine", "source", "search_space", "optimizer", "learning_rate", "run_cap", "controller", "command", "kind", "1a",
    "a b", "a\n", "", 1, True, None,
]  # fmt: skip
FIELDS = {
    "uniform": "ints", "int_uniform": "ints", "log_uniform": "ints", "inv_log_uniform": "ints",
    "q_log_uniform": "ints q", "log_uniform_values": "range", "inv_log_uniform_values": "range",
    "q_uniform": "range q", "q_log_uniform_values": "range q", "normal": "mu sigma", "log_normal": "mu sigma",
    "q_normal": "mu sigma q", "q_log_normal": "mu sigma q", "beta": "a b", "q_beta": "a b q",
}  # fmt: skip
"""Distributions by name, with the fields that each takes."""
METRIC = {
    "name": ["loss", "acc"], "goal": ["minimize", "maximize"], "target": [0.5, 1, -2],
    "impute": ["latest", "best", "worst"], "impute_while_running": ["latest", "false"],
}  # fmt: skip
HYPERBAND = {"type": ["hyperband"], "min_iter": [1, 3, 4.0], "eta": [2, 3, 1.5], "strict": [True, False]}
SCHEDULER = {"engine": ["optuna", "ax", "wandb"], "source": ["s.py"], "optimizer": ["f"], "search_space": ["g"]}
REST = {
    "run_cap": [1, 40, 3.0], "controller": [{"type": "local"}, {"type": "cloud"}, {"type": "cloud", "x": 1}],
    "command": [["${env}", "x"], [], [1, None]], "name": ["n"], "program": ["p.py"], "project": ["p"], "entity": ["e"],
    "description": ["d"], "apiVersion": ["v1"], "kind": ["sweep"], "job": ["j"], "image_uri": ["i"],
}  # fmt: skip


def chosen(rng, choices, share, *, first=True):
    """Some of the keys, the first in any case, each with one of its values."""
    kept = [key for place, key in enumerate(choices) if (first and not place) or rng.random() < share]
    return {key: rng.choice(choices[key]) for key in kept}


def make_parameter(rng, depth=0):
    low, high = sorted(rng.sample([0.001, 0.1, 0.5, 1.0, 2.5, 4.0, 100.0], 2))
    least, most = sorted(rng.sample(range(-3, 30), 2))
    values = rng.sample([1, 2.5, "x", None, True, [1], {"k": 1}, 1.0], rng.randint(1, 4))
    if depth < 3 and rng.random() < 0.15:
        return {"parameters": make_parameters(rng, depth + 1)}
    if rng.random() < 0.4:
        plain = [
            {"value": values[0]},
            {"values": values},
            {"values": values, "probabilities": [1 / len(values)] * len(values)},
            {"min": least, "max": most},
            {"min": low, "max": high},
            {"min": least, "max": most + 0.5},
            {"distribution": "categorical", "values": values},
            {"distribution": "constant", "value": values[0]},
        ]
        return rng.choice(plain)
    name = rng.choice(list(FIELDS))
    fields = FIELDS[name].split()
    bounds = {"ints": {"min": least, "max": most}, "range": {"min": low, "max": high}}.get(fields[0], {})
    shape = {field: [0.5, 1, 2.0] for field in fields if field not in ("ints", "range")}
    return {"distribution": name, **bounds, **chosen(rng, shape, 0.6, first=False)}


def make_parameters(rng, depth=0):
    return {name: make_parameter(rng, depth) for name in rng.sample(NAMES, rng.randint(1, 3))}


def make_sweep(rng):
    bands = {"max_iter": rng.choice([27, 81, 9.0, 0]), "s": rng.choice([2, 3, 1.5])} if rng.random() < 0.5 else {}
    parts = {
        "method": ["bayes", "random", "grid", "custom"],
        "metric": [chosen(rng, METRIC, 0.3)],
        "metrics": [[chosen(rng, METRIC, 0.3) for _ in range(rng.randint(1, 3))]],
        "early_terminate": [chosen(rng, HYPERBAND, 0.6) | bands],
        "scheduler": [chosen(rng, SCHEDULER, 0.4)],
    }
    parameters = {"parameters": make_parameters(rng)} if rng.random() < 0.95 else {}
    return chosen(rng, parts, 0.25) | parameters | chosen(rng, REST, 0.1, first=False)


def mutate(rng, sweep):
    """Damage one place: drop, replace, add or rename a key, or swap two bounds."""
    places = [place for place in _containers(sweep) if place]
    if not places:
        return sweep
    place = rng.choice(places)
    key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
    match rng.randrange(6):
        case 0:
            del place[key]
        case 1:
            place[key] = copy.deepcopy(rng.choice(JUNK))
        case 2 if isinstance(place, dict):
            place[rng.choice(KEYS)] = copy.deepcopy(rng.choice(JUNK))
        case 3 if isinstance(place, dict):
            place[rng.choice(KEYS)] = place.pop(key)
        case 4 if isinstance(place, dict) and {"min", "max"} <= place.keys():
            place["min"], place["max"] = place["max"], place["min"]
        case _ if isinstance(place[key], float | int) and not isinstance(place[key], bool):
            place[key] = rng.choice([0, -place[key], float(place[key]), place[key] * 2])
    return sweep


def _containers(value):
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _containers(item)


@pytest.mark.parametrize("damages", [0, 1, 3])
def test_both_validators_agree(damages):
    rng = random.Random(damages)
    verdicts = {True: 0, False: 0}
    for _ in range(CASES):
        sweep = make_sweep(rng)
        for _ in range(damages):
            sweep = mutate(rng, sweep)
        theirs, ours = wandb_accepts(sweep), we_accept(sweep)
        verdicts[theirs] += 1
        if ours:  # then it is bound or refused with problems, and nothing else is raised
            bound = with_constants(parse_sweep(sweep), {"model": rng.choice(list(ARCHITECTURES))})
            with contextlib.suppress(SweepFileError):
                bind(bound)
        if theirs != ours:
            assert theirs, f"W&B refuses what we accept: {sweep}"
            assert any(difference(sweep) for difference in DIFFERENCES), f"W&B accepts what we refuse: {sweep}"
    assert min(verdicts.values()) >= CASES // 50, "a set of one kind shows nothing"


@pytest.mark.parametrize(
    ("difference", "parameters"),
    [
        (_nested_fault, {"a": {"parameters": {"b": {"min": 3, "max": 1}}}}),
        (_not_finite, {"a": {"min": 0.0, "max": math.inf}}),
        (_not_finite, {"a": {"min": -1.7e308, "max": 1.7e308}}),
        (_no_spread, {"a": {"distribution": "normal", "sigma": 0}}),
        (_no_spread, {"a": {"distribution": "beta", "a": 0}}),
        (_odd_name, {1: {"value": 2}}),
        (_odd_name, {"a\n": {"value": 2}}),
    ],
)
def test_listed_differences_are_real(difference, parameters):
    sweep = {"method": "random", "parameters": parameters}
    assert difference(sweep)
    assert wandb_accepts(sweep)
    assert not we_accept(sweep)


def test_both_refuse_what_is_not_a_dictionary():
    for data in (None, [], 3, "method: random", True):
        assert not wandb_accepts(data) and not we_accept(data)
