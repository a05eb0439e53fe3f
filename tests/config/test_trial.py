"""TrialConfig: what can be trained is accepted, also from a command line; the rest is refused with the reason."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from fer_sweep.config.arguments import option_groups, parse_arguments
from fer_sweep.config.trial import ARCHITECTURES, flatten, known_names, nest, parse_trial, parse_trial_json
from fer_sweep.errors import ConfigError, InputError


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


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "vit", "added": 1}', '{"model": "x"}'])
def test_json_that_is_not_a_configuration_of_this_version_is_refused(text):
    with pytest.raises(ConfigError):
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
        ({"lr": 0}, "lr: 0: input should be greater than 0"),
        ({"lr": math.nan}, "lr: nan: input should be"),
        ({"lr": "fast"}, "lr: 'fast': input should be a valid number"),
        ({"batch_size": 64.5}, "batch_size: 64.5: input should be a valid integer"),
        ({"optimizer": "adam"}, "optimizer: 'adam': input should be 'adamw' or 'sgd'"),
        ({"augment": {"shift": 0.6}}, "augment.shift: 0.6: input should be less than or equal to 0.5"),
        ({"data": "../secret"}, "data: '../secret': string should match"),
        (
            {"distill_from": "out/of/here"},
            "distill_from: 'out/of/here': give SWEEP/TRIAL by their ids, or the absolute",
        ),
        ({"model": "simple_cnn", "kernel_size": 4}, "kernel_size: 4: input should be 3, 5 or 7"),
        ({"model": "resnet18", "width": 12}, "width: 12: input should be a multiple of 8"),
        ({"dim": 200}, "dim 200 is not a multiple of head_dim 32"),
        ({"stem": "conv", "patch_size": 6}, "patch_size 6 cannot have stem=conv: take one of [2, 4, 8, 16]"),
        (
            {"pool": "mean", "pretrained": "some/vit"},
            "pretrained weights have patches and a class token: set stem=patch",
        ),
        (PRETRAINED, "pretrained weights have the 7x7 stem: set stem=imagenet"),
        (PRETRAINED | {"stem": "imagenet", "width": 32}, "pretrained weights have width 64, not 32"),
        ({"lr": 0.1, "lr.x": 1}, "lr.x: lr is a value and cannot also be a group"),
    ],
)
def test_value_that_cannot_be_trained_is_refused_with_the_reason(values, says):
    (problem,) = problems_of({"model": "vit", **values})
    assert problem.startswith(says)


def test_patches_must_cover_the_images():
    with pytest.raises(ConfigError, match=r"does not divide images of 40x48 pixels: take one of \[2, 4, 8\]"):
        parse_trial({"model": "vit", "patch_size": 5}).check_image_size(48, 40)
    with pytest.raises(ConfigError, match=r"take one of \[2, 4, 8\]"):
        parse_trial({"model": "vit", "patch_size": 16, "stem": "conv"}).check_image_size(24, 24)
    parse_trial({"model": "vit", "patch_size": 7, "pretrained": "some/vit"}).check_image_size(48, 48)


def test_all_problems_are_reported_at_once():
    assert len(problems_of({"model": "vit", "lr": -1, "epochs": 0, "wd": 0.1, "augment": {"mixup": -1, "x": 0}})) == 5
    missing = "model: missing: which architecture to train, one of simple_cnn, deeper_cnn, resnet18, vit"
    assert problems_of({"lr": -1}) == [missing]


def test_values_that_go_together_are_accepted():
    parse_trial({"model": "vit", "pretrained": "some/vit", "dim": 200, "patch_size": 7})  # the weights give the sizes
    config = parse_trial({"model": "vit", "augment": {"shift": 0.2, "flip": False}, "augment.shift": 0.3})
    assert (config.augment.shift, config.augment.flip) == (0.3, False)
    for teacher in ("k3v9/12", "/models/winner", r"C:\models\winner", None):
        assert parse_trial({"model": "vit", "distill_from": teacher}).distill_from == teacher


CONFIGS = st.fixed_dictionaries(
    {"model": st.sampled_from(["simple_cnn", "deeper_cnn", "resnet18", "vit"])},
    optional={
        "lr": st.floats(1e-6, 10, exclude_min=True),
        "batch_size": st.integers(2, 8192),
        "drop_val_copies": st.booleans(),
        "optimizer": st.sampled_from(["adamw", "sgd"]),
        "train_samples": st.none() | st.integers(7, 1000),
        "augment": st.fixed_dictionaries({}, optional={"flip": st.booleans(), "shift": st.floats(0, 0.5)}),
    },
)


def stock_arguments(values):
    return create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})


WRITERS = {
    "typed": lambda values: [word for name, value in flatten(values).items() for word in (f"--{name}", str(value))],
    "joined": lambda values: [f"--{name.replace('_', '-')}={value}" for name, value in flatten(values).items()],
    "stock agent": lambda values: stock_arguments(values)["args"],
    "stock agent without =": lambda values: stock_arguments(values)["args_no_equals"],
    "JSON": lambda values: [f"--{k}={json.dumps(v) if isinstance(v, dict) else v}" for k, v in values.items()],
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@settings(derandomize=True, deadline=None, max_examples=30)
@given(values=CONFIGS)
def test_configuration_survives_every_way_of_writing_it(write, values):
    assert parse_trial(parse_arguments(write(values))) == parse_trial(values)


def test_every_field_is_an_option_of_its_architectures_with_a_whole_sentence_that_describes_it():
    groups = {heading: dict(rows) for heading, _, rows in option_groups()}
    shared = groups.pop("All architectures")
    assert list(groups) == list(ARCHITECTURES)
    for model, own in groups.items():
        names = {option.split(" ")[0] for option in (*shared, *own)}
        assert names == {f"--{name}" for name in known_names(model) if name != "model"}
        assert all(len(meaning) > 10 for meaning in own.values())
    assert (
        "(Zhang et al. 2018)" in shared["--augment.mixup"]
        and "(Huang et al. 2016)" in groups["vit"]["--stochastic_depth"]
    )
    assert "--optimizer adamw|sgd" in shared and "--head gap|flatten" in groups["deeper_cnn"]


def test_all_wrong_options_are_reported_with_suggestions():
    with pytest.raises(ConfigError) as caught:
        parse_arguments(["--learning-rate", "0.1", "--batchsize=3", "--lr"])
    for part in ("did you mean lr?", "did you mean batch_size?", "needs a value"):
        assert part in str(caught.value)
    for words in (["0.05"], ["-lr", "3"], ["--"], ["--lr", "0.1", "0.2"]):
        with pytest.raises(InputError):
            parse_arguments(words)


@pytest.mark.parametrize("group", ["[1]", "3", "{'a': __import__('os')}", "{", "", "(" * 5000])
def test_group_that_is_not_a_dictionary_is_refused_and_never_evaluated(group):
    with pytest.raises(ConfigError):
        parse_arguments([f"--augment={group}"])
