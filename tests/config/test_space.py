"""A sweep's space: the grid of W&B in content and order, its size, and the keys that identify configurations."""

import itertools
import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_with_lines, parse_sweep
from fer_sweep.config.trial import flatten
from fer_sweep.errors import SweepFileError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sweeps 0.3 uses a name that pydantic has renamed
    import sweeps


def space_of(parameters: dict[str, Any], method: str = "grid") -> Space:
    return Space.from_sweep(parse_sweep({"method": method, "parameters": parameters}))


def grid_of_wandb(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    config = {"method": "grid", "parameters": parameters}
    runs = sweeps.next_runs(config, [], n=100_000)
    assert runs[-1] is None, "W&B's grid ends"
    return [flatten({name: entry["value"] for name, entry in run.config.items()}) for run in runs[:-1]]


def make_grid(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    choices = [1, 1.0, 2, 2.5, "a", "1", True, None, [1, 2], 3e6, 0.1, 0.0, False]

    def parameter() -> dict[str, Any]:
        first, low = rng.randint(-3, 3), rng.choice([0, 0.5, -1])
        if depth < 2 and rng.random() < 0.3:
            return {"parameters": make_grid(rng, depth + 1)}
        forms: list[dict[str, Any]] = [
            {"value": rng.choice(choices)},
            {"values": [rng.choice(choices) for _ in range(rng.randint(1, 4))]},
            {"min": first, "max": first + rng.randint(1, 3)},
            {"distribution": "q_uniform", "min": low, "max": low + 1.5, "q": rng.choice([0.5, 1, 0.3])},
            {"distribution": "q_uniform", "min": low, "max": low + rng.choice([1, 2])},
        ]
        return rng.choice(forms)

    return {name: parameter() for name in rng.sample(["b", "a", "Z", "_c", "a-d", "lr", "aa"], rng.randint(1, 3))}


def test_grids_are_those_of_wandb_in_content_and_order() -> None:
    rng = random.Random(0)
    compared = 0
    while compared < 80:
        parameters = make_grid(rng)
        space = space_of(parameters)
        if space.grid_size() > 250:
            continue
        mine = list(space.grid())
        theirs = grid_of_wandb(parameters)
        assert [flatten(values) for values in mine] == theirs
        assert space.grid_size() == len(mine) == len({space.key(values) for values in mine})
        compared += 1


def test_last_name_varies_fastest_and_constants_are_included() -> None:
    space = space_of({"b": {"values": [1, 2]}, "a": {"parameters": {"z": {"min": 0, "max": 1}, "y": {"value": "k"}}}})
    assert list(space.grid()) == [
        {"a.y": "k", "a.z": 0, "b": 1},
        {"a.y": "k", "a.z": 0, "b": 2},
        {"a.y": "k", "a.z": 1, "b": 1},
        {"a.y": "k", "a.z": 1, "b": 2},
    ]


def test_equal_values_are_in_a_grid_once() -> None:
    grid = space_of({"a": {"values": [1, 1.0, 2, True, "1", 1]}}).grid()
    assert [values["a"] for values in grid] == [1, 2, True, "1"]
    dictionaries = {"a": {"values": [{"k": 1}, {"k": 1.0}]}}
    assert len(grid_of_wandb(dictionaries)) == 2, "a deliberate difference"
    assert len(list(space_of(dictionaries).grid())) == 1


@pytest.mark.parametrize(
    "form",
    [
        {"min": 0.0, "max": 1.0},
        {"values": [1, 2], "probabilities": [0.5, 0.5]},
        {"distribution": "log_uniform_values", "min": 1, "max": 2},
        {"distribution": "q_log_uniform_values", "min": 1, "max": 2},
        {"distribution": "normal"},
        {"distribution": "q_beta"},
    ],
)
def test_parameter_without_a_grid_is_refused_by_both(form: dict[str, Any]) -> None:
    space = space_of({"a": {"value": 1}, "b": {"parameters": {"c": form}}, "d": form})
    with pytest.raises(SweepFileError) as caught:
        space.grid()
    assert [problem.key for problem in caught.value.problems] == ["parameters.b.c", "parameters.d"]
    with pytest.raises(ValueError, match="disallowed type with grid"):
        grid_of_wandb({"d": form})


def test_too_fine_grid_is_refused_and_a_huge_one_is_lazy() -> None:
    with pytest.raises(SweepFileError, match="too fine"):
        space_of({"a": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 1e-12}}).grid()
    huge = space_of({name: {"min": 0, "max": 2**70} for name in "abc"})
    assert list(itertools.islice(huge.grid(), 2)) == [{"a": 0, "b": 0, "c": 0}, {"a": 0, "b": 0, "c": 1}]
    assert huge.grid_size() == (2**70 + 1) ** 3


def test_dotted_name_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("method: grid\nparameters:\n  a.b: {value: 1}\n  a:\n    parameters:\n      b: {value: 2}\n")
    sweep, lines = load_with_lines(path)
    with pytest.raises(SweepFileError, match=r"s\.yaml, line 3: parameters\.a\.b: given twice"):
        Space.from_sweep(sweep, source=str(path), lines=lines)


def test_sampling_draws_every_parameter_repeatably() -> None:
    space = space_of(
        {"lr": {"min": 0.0, "max": 1.0}, "g": {"parameters": {"n": {"min": 1, "max": 9}, "k": {"value": "c"}}}},
        "random",
    )
    draws = [space.sample(np.random.default_rng(3)) for _ in range(2)]
    assert draws[0] == draws[1] == {"g.k": "c", "g.n": 3, "lr": 0.8012744652063969}
    assert json.loads(json.dumps(draws[0])) == draws[0]
    assert space.contains(draws[0])
    assert not space.contains({**draws[0], "lr": 2.0})
    assert not space.contains({**draws[0], "more": 1})
    assert not space.contains({"lr": 0.5})


def test_size_is_the_number_of_configurations_that_sampling_can_give() -> None:
    assert space_of({"a": {"values": [1, 1.0, 2]}, "b": {"min": 1, "max": 3}, "c": {"value": 5}}).size() == 6
    assert space_of({"a": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}}, "random").size() == 5
    assert space_of({"a": {"min": 0.0, "max": 1.0}, "b": {"value": 1}}, "random").size() is None
    assert space_of({"a": {"distribution": "q_normal"}}, "random").size() is None
    assert Space({}).size() == 1


def test_user_defined_search_space_has_no_parameters_here() -> None:
    scheduler = {"engine": "optuna", "source": "s.py", "search_space": "f"}
    assert Space.from_sweep(parse_sweep({"method": "custom", "scheduler": scheduler})).parameters == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(one=json_values, other=json_values)
def test_keys_are_equal_exactly_for_equal_values(one: Any, other: Any) -> None:
    key = Space.key({"a": one, "b": 1})
    assert (key == Space.key({"a": other, "b": 1})) == _same(one, other)
    assert key == Space.key(json.loads(json.dumps({"b": 1, "a": one}))), "after JSON and in another order"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
