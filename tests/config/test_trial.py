"""TrialConfig: what can be trained is accepted, the rest is refused with the reason."""

import json
import math

import pytest

from fer_sweep.config.trial import ARCHITECTURES, flatten, known_names, nest, parse_trial, parse_trial_json
from fer_sweep.errors import ConfigError


def problems_of(values):
    with pytest.raises(ConfigError) as caught:
        parse_trial(values)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_model_name_alone_is_a_complete_configuration_that_survives_json(model):
    config = parse_trial({"model": model})
    assert type(config) is ARCHITECTURES[model]
    text = config.model_dump_json()
    for again in (parse_trial(json.loads(text)), parse_trial(flatten(json.loads(text))), parse_trial_json(text)):
        assert again == config
        assert hash(again) == hash(config)
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 1.0


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_json_of_an_earlier_version_without_a_field_gives_its_default(model):
    config = parse_trial({"model": model, "lr": 0.3})
    for name in {*known_names(model)} - {"model", "lr"}:
        earlier = flatten(config.model_dump())
        del earlier[name]
        assert parse_trial_json(json.dumps(nest(earlier))) == config


def test_json_that_is_not_a_configuration_of_this_version_is_refused():
    for text, says in {
        "{": "invalid JSON",
        "[]": "should be an object",
        '{"model": "vit", "added": 1}': "added: no such parameter",
    }.items():
        with pytest.raises(ConfigError, match=says):
            parse_trial_json(text)


def test_text_is_read_by_the_type_of_its_field():
    text = {"lr": "1e-3", "epochs": "7", "kernel_size": "5", "train_samples": "none", "drop_val_copies": "true"}
    values = {"lr": 1e-3, "epochs": 7, "kernel_size": 5, "train_samples": None, "drop_val_copies": True}
    read = parse_trial({"model": "simple_cnn", "augment.flip": "False", "batch_size": 64.0, **text})
    assert read == parse_trial({"model": "simple_cnn", "augment": {"flip": False}, "batch_size": 64, **values})
    assert parse_trial({"model": "vit", "pretrained": "None"}) == parse_trial({"model": "vit"})


PRETRAINED = {"model": "resnet18", "pretrained": True}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": "resnet"}, "model: no such model: 'resnet' (did you mean resnet18?)"),
        ({"model": "x"}, "model: no such model: 'x' (one of simple_cnn, deeper_cnn, resnet18, vit)"),
        ({"learning_rate": 1}, "learning_rate: no such parameter (did you mean lr?)"),
        ({"shift": 0.1}, "shift: no such parameter (did you mean augment.shift?)"),
        ({"augment.shfit": 0.1}, "augment.shfit: no such parameter (did you mean augment.shift?)"),
        ({"stem": "cifar"}, "stem: no such parameter"),
        ({"lr": 0}, "lr: 0: input should be greater than 0"),
        ({"lr": math.nan}, "lr: nan: input should be"),
        ({"lr": "fast"}, "lr: 'fast': input should be a valid number"),
        ({"batch_size": 64.5}, "batch_size: 64.5: input should be a valid integer"),
        ({"optimizer": "adam"}, "optimizer: 'adam': input should be 'adamw' or 'sgd'"),
        ({"augment": {"shift": 0.6}}, "augment.shift: 0.6: input should be less than or equal to 0.5"),
        ({"data": "../secret"}, "data: '../secret': string should match"),
        ({"model": "simple_cnn", "kernel_size": 4}, "kernel_size: 4: input should be 3, 5 or 7"),
        ({"model": "resnet18", "width": 12}, "width: 12: input should be a multiple of 8"),
        ({"patch_size": 7}, "patch_size 7 does not divide 48: take one of [2, 3, 4, 6, 8, 12, 16, 24]"),
        ({"dim": 200}, "dim 200 is no multiple of head_dim 32"),
        (PRETRAINED, "pretrained weights have the 7x7 stem: set stem=imagenet"),
        (PRETRAINED | {"stem": "imagenet", "width": 32}, "pretrained weights have width 64, not 32"),
        ({"lr": 0.1, "lr.x": 1}, "lr.x: lr is a value and cannot also be a group"),
    ],
)
def test_value_that_cannot_be_trained_is_refused_with_the_reason(values, says):
    (problem,) = problems_of({"model": "vit", **values})
    assert problem.startswith(says)


def test_all_problems_are_reported_at_once():
    assert len(problems_of({"model": "vit", "lr": -1, "epochs": 0, "wd": 0.1, "augment": {"mixup": -1, "x": 0}})) == 5
    missing = "model: missing: which architecture to train, one of simple_cnn, deeper_cnn, resnet18, vit"
    assert problems_of({"lr": -1}) == [missing]


def test_values_that_go_together_are_accepted():
    parse_trial({"model": "vit", "pretrained": "some/vit", "dim": 200, "patch_size": 7})  # the weights give the sizes
    config = parse_trial({"model": "vit", "augment": {"shift": 0.2, "flip": False}, "augment.shift": 0.3})
    assert (config.augment.shift, config.augment.flip) == (0.3, False)
