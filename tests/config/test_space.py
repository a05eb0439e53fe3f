"""A sweep's space: the grid of W&B in content and order, and its size."""

import itertools
import random

import pytest

import sweeps
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.config.trial import flatten
from fer_sweep.config.values import canonical
from fer_sweep.errors import SweepFileError


def space_of(parameters, method="grid"):
    return Space.from_sweep(parse_sweep({"method": method, "parameters": parameters}))


def grid_of_wandb(parameters):
    runs = sweeps.next_runs({"method": "grid", "parameters": parameters}, [], n=100_000)
    assert runs[-1] is None, "W&B's grid ends"
    return [flatten({name: entry["value"] for name, entry in run.config.items()}) for run in runs[:-1]]


def make_parameter(rng, depth):
    choices = [1, 1.0, 2, 2.5, "a", "1", True, None, [1, 2], 3e6, 0.1, 0.0, False]
    first, low = rng.randint(-3, 3), rng.choice([0, 0.5, -1])
    if depth < 2 and rng.random() < 0.3:
        return {"parameters": make_grid(rng, depth + 1)}
    forms = [
        {"value": rng.choice(choices)},
        {"values": [rng.choice(choices) for _ in range(rng.randint(1, 4))]},
        {"min": first, "max": first + rng.randint(1, 3)},
        {"distribution": "q_uniform", "min": low, "max": low + 1.5, "q": rng.choice([0.5, 1, 0.3])},
        {"distribution": "q_uniform", "min": low, "max": low + rng.choice([1, 2])},
    ]
    return rng.choice(forms)


def make_grid(rng, depth=0):
    names = rng.sample(["b", "a", "Z", "_c", "a-d", "lr", "aa"], rng.randint(1, 3))
    return {name: make_parameter(rng, depth) for name in names}


def test_grids_are_those_of_wandb_in_content_and_order():
    rng = random.Random(0)
    compared = 0
    while compared < 80:
        parameters = make_grid(rng)
        space = space_of(parameters)
        if space.grid_size() > 250:
            continue
        mine = list(space.grid())
        assert [flatten(values) for values in mine] == grid_of_wandb(parameters)
        assert space.grid_size() == len(mine) == len({canonical(values) for values in mine})
        compared += 1


def test_equal_values_are_in_a_grid_once():
    grid = space_of({"a": {"values": [1, 1.0, 2, True, "1", 1]}}).grid()
    assert [values["a"] for values in grid] == [1, 2, True, "1"]
    dictionaries = {"a": {"values": [{"k": 1}, {"k": 1.0}]}}
    assert len(grid_of_wandb(dictionaries)) == 2, "a deliberate difference"
    assert len(list(space_of(dictionaries).grid())) == 1


WEIGHTED = {"values": [1, 2], "probabilities": [0.5, 0.5]}
STEPPED = {"distribution": "q_log_uniform_values", "min": 1, "max": 2}


@pytest.mark.parametrize("form", [{"min": 0.0, "max": 1.0}, WEIGHTED, STEPPED, {"distribution": "q_beta"}])
def test_parameter_without_a_grid_is_refused_by_both(form):
    space = space_of({"a": {"value": 1}, "b": {"parameters": {"c": form}}, "d": form})
    with pytest.raises(SweepFileError) as caught:
        space.grid()
    assert [problem.key for problem in caught.value.problems] == ["parameters.b.parameters.c", "parameters.d"]
    with pytest.raises(ValueError, match="disallowed type with grid"):
        grid_of_wandb({"d": form})


def test_too_fine_grid_is_refused_and_a_huge_one_is_lazy():
    with pytest.raises(SweepFileError, match="too fine"):
        space_of({"a": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 1e-12}}).grid()
    huge = space_of({name: {"min": 0, "max": 2**70} for name in "abc"})
    assert list(itertools.islice(huge.grid(), 2)) == [{"a": 0, "b": 0, "c": 0}, {"a": 0, "b": 0, "c": 1}]
    assert huge.grid_size() == (2**70 + 1) ** 3


def test_size_is_the_number_of_configurations_that_sampling_can_give():
    assert space_of({"a": {"values": [1, 1.0, 2]}, "b": {"min": 1, "max": 3}, "c": {"value": 5}}).size() == 6
    assert space_of({"a": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}}, "random").size() == 5
    assert space_of({"a": {"distribution": "q_normal"}}, "random").size() is None
    assert Space({}).size() == 1
