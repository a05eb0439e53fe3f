"""Trial options on a command line: every form is read alike, and wrong ones are refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from fer_sweep.config.arguments import option_lines, parse_arguments
from fer_sweep.config.trial import flatten, known_names, parse_trial
from fer_sweep.errors import ConfigError, InputError

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


def test_every_field_is_an_option_with_a_description():
    lines = dict(option_lines())
    assert set(lines) == {f"--{name}" for name in known_names() if name != "model"}
    assert all(len(meaning) > 10 for meaning in lines.values())


def test_all_wrong_options_are_reported_with_suggestions():
    with pytest.raises(ConfigError) as caught:
        parse_arguments(["--learning-rate", "0.1", "--batchsize=3", "--lr"])
    for part in ("did you mean lr?", "did you mean batch_size?", "needs a value"):
        assert part in str(caught.value)


@pytest.mark.parametrize("words", [["0.05"], ["-lr", "3"], ["--"], ["--lr", "0.1", "0.2"]])
def test_word_that_belongs_to_no_option_is_refused(words):
    with pytest.raises(InputError):
        parse_arguments(words)


@pytest.mark.parametrize("text", ["[1]", "3", "{'a': __import__('os')}", "{", "", "(" * 5000])
def test_group_that_is_not_a_dictionary_is_refused_and_never_evaluated(text):
    with pytest.raises(ConfigError):
        parse_arguments([f"--augment={text}"])
