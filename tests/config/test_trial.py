"""TrialConfig takes what can be trained, refuses the rest with the reason, and documents itself."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.config.trial import (
    ARCHITECTURES,
    describe_fields,
    flatten,
    known_names,
    nest,
    parse_trial,
    parse_trial_json,
    suggest,
)
from fer_sweep.errors import ConfigError


def problems_of(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_trial(values)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_the_name_alone_is_a_whole_configuration_that_survives_json(model: str) -> None:
    config = parse_trial({"model": model})
    assert config.model == model
    assert type(config) is ARCHITECTURES[model]
    plain = json.loads(config.model_dump_json())
    assert parse_trial(plain) == config
    assert parse_trial(flatten(plain)) == config
    assert parse_trial_json(config.model_dump_json()) == config
    assert hash(parse_trial(plain)) == hash(config)
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 1.0


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_every_field_has_its_meaning_and_a_default(model: str) -> None:
    for name, info in describe_fields(ARCHITECTURES[model]):
        assert info.description, name
        assert not info.is_required(), name


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_json_of_an_earlier_version_without_a_field_gives_its_default(model: str) -> None:
    config = parse_trial({"model": model, "lr": 0.3})
    for name in known_names(model):
        if name not in ("model", "lr"):
            earlier = flatten(config.model_dump())
            del earlier[name]
            assert parse_trial_json(json.dumps(nest(earlier))) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "invalid JSON"),
        ("[]", "should be an object"),
        ('{"model": "vit", "added": 1}', "added: no such parameter"),
        ('{"model": "x"}', "no such model"),
    ],
)
def test_json_that_is_no_configuration_of_this_version_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_trial_json(text)


def test_text_from_a_command_line_is_read_by_the_fields_type() -> None:
    text = {
        "model": "simple_cnn", "lr": "1e-3", "epochs": "7", "augment.flip": "False", "kernel_size": "5",
        "train_samples": "none", "drop_val_copies": "true", "batch_size": 64.0,
    }  # fmt: skip
    config = parse_trial(text)
    assert (config.lr, config.epochs, config.batch_size, config.augment.flip) == (1e-3, 7, 64, False)
    assert config.train_samples is None
    assert config.drop_val_copies is True
    assert config.kernel_size == 5  # type: ignore[union-attr]
    assert parse_trial({"model": "simple_cnn", "kernel_size": 7.0}).kernel_size == 7  # type: ignore[union-attr]
    assert parse_trial({"model": "vit", "pretrained": "None"}).pretrained is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "model: missing: which architecture to train, one of simple_cnn, deeper_cnn, resnet18, vit"),
        ({"model": "resnet"}, "model: no such model: 'resnet' (did you mean resnet18?)"),
        ({"model": "x"}, "model: no such model: 'x' (one of simple_cnn, deeper_cnn, resnet18, vit)"),
        ({"model": "vit", "learning_rate": 1}, "learning_rate: no such parameter (did you mean lr?)"),
        ({"model": "vit", "shift": 0.1}, "shift: no such parameter (did you mean augment.shift?)"),
        ({"model": "vit", "augment.shfit": 0.1}, "augment.shfit: no such parameter (did you mean augment.shift?)"),
        ({"model": "vit", "stem": "cifar"}, "stem: no such parameter"),
        ({"model": "vit", "lr": 0}, "lr: 0: input should be greater than 0"),
        ({"model": "vit", "lr": math.nan}, "lr: nan: input should be"),
        ({"model": "vit", "lr": math.inf}, "lr: inf: input should be"),
        ({"model": "vit", "lr": "fast"}, "lr: 'fast': input should be a valid number"),
        ({"model": "vit", "lr": None}, "lr: None: input should be a valid number"),
        ({"model": "vit", "dropout": 1}, "dropout: 1: input should be less than 1"),
        ({"model": "vit", "batch_size": 1}, "batch_size: 1: input should be greater than or equal to 2"),
        ({"model": "vit", "batch_size": 64.5}, "batch_size: 64.5: input should be a valid integer"),
        ({"model": "vit", "epochs": 0}, "epochs: 0: input should be greater than or equal to 1"),
        ({"model": "vit", "optimizer": "adam"}, "optimizer: 'adam': input should be 'adamw' or 'sgd'"),
        ({"model": "vit", "augment": {"shift": 0.6}}, "augment.shift: 0.6: input should be less than or equal to 0.5"),
        ({"model": "vit", "data": "../secret"}, "data: '../secret': string should match"),
        ({"model": "vit", "seed": 2**31}, "seed: 2147483648: input should be less than"),
        ({"model": "simple_cnn", "kernel_size": 4}, "kernel_size: 4: input should be 3, 5 or 7"),
        ({"model": "resnet18", "width": 12}, "width: 12: input should be a multiple of 8"),
        ({"model": "vit", "patch_size": 7}, "patch_size 7 does not divide 48: take one of [2, 3, 4, 6, 8, 12, 16, 24]"),
        ({"model": "vit", "dim": 200}, "dim 200 is no multiple of head_dim 32"),
        ({"model": "resnet18", "pretrained": True}, "pretrained weights have the 7x7 stem: set stem=imagenet"),
        (
            {"model": "resnet18", "pretrained": True, "stem": "imagenet", "width": 32},
            "pretrained weights have width 64, not 32",
        ),
        ({"model": "vit", "lr": 0.1, "lr.x": 1}, "lr.x: lr is a value and cannot also be a group"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(values: dict[str, Any], says: str) -> None:
    (problem,) = problems_of(values)
    assert problem.startswith(says)


def test_all_problems_are_reported_at_once() -> None:
    found = problems_of({"model": "vit", "lr": -1, "epochs": 0, "wd": 0.1, "augment": {"mixup": -1, "x": 0}})
    assert len(found) == 5


def test_pretrained_weights_bring_their_own_sizes() -> None:
    config = parse_trial({"model": "vit", "pretrained": "some/vit", "dim": 200, "patch_size": 7})
    assert config.pretrained == "some/vit"  # type: ignore[union-attr]


def test_a_group_and_its_parts_may_be_given_together() -> None:
    config = parse_trial({"model": "vit", "augment": {"shift": 0.2, "flip": False}, "augment.shift": 0.3})
    assert (config.augment.shift, config.augment.flip) == (0.3, False)


def test_names_are_known_by_model_or_over_all() -> None:
    assert "stem" in known_names("resnet18")
    assert "stem" not in known_names("vit")
    assert {"stem", "dim", "blocks", "kernel_size", "augment.shift"} <= set(known_names())
    assert known_names("no such model") == known_names()
    assert len(known_names()) == len(set(known_names()))


def test_suggestions_come_from_what_is_known() -> None:
    assert suggest("learning_rate", ["lr", "seed"]) == "did you mean lr?"
    assert suggest("learning_rate", ["method", "name"]) is None
    assert suggest("bacth_size", ["batch_size"]) == "did you mean batch_size?"
    assert suggest("zzz", ["lr"]) is None


names = st.text("abc", min_size=1, max_size=3)
trees = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=3),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(tree=st.dictionaries(names, trees, max_size=4))
def test_flattening_and_nesting_undo_each_other(tree: dict[str, Any]) -> None:
    assert nest(flatten(tree)) == tree
    assert flatten(nest(flatten(tree))) == flatten(tree)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    model=st.sampled_from(list(ARCHITECTURES)),
    values=st.dictionaries(
        st.sampled_from(known_names()) | st.text(max_size=6),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers()),
        max_size=4,
    ),
)
def test_any_values_are_taken_whole_or_refused_with_problems(model: str, values: dict[str, Any]) -> None:
    try:
        config = parse_trial({**values, "model": model})
    except ConfigError as error:
        assert error.problems
        assert all(problem.message for problem in error.problems)
    else:
        assert parse_trial(json.loads(config.model_dump_json())) == config
