"""A sweep that cannot be trained is refused before anything is created, with the reason at its line."""

import pytest

from fer_sweep.config.binding import bind
from fer_sweep.config.metrics import BETTER_HIGH, BETTER_LOW, EPOCH_METRICS, RESULT_METRICS
from fer_sweep.config.sweep_file import load_sweep_file, parse_sweep
from fer_sweep.errors import SweepFileError
from fer_sweep.records import TrialResult
from tests.config.conftest import problems_behind_lines

METRIC = {"name": "best_val_acc", "goal": "maximize"}


def sweep_of(parameters, **changes):
    forms = {name: form if isinstance(form, dict) else {"value": form} for name, form in parameters.items()}
    return {"method": "bayes", "metric": METRIC, "parameters": forms, **changes}


def notes_on(data):
    return [str(note) for note in bind(parse_sweep(data))]


def problems_in(data):
    with pytest.raises(SweepFileError) as caught:
        notes_on(data)
    return [str(problem) for problem in caught.value.problems]


# Each problem stands behind its line, or the beginning of it.
SWEEP = """\
method: bayes
metric: {name: best_val_ac, goal: maximize}  # metric.name: no trial reports 'best_val_ac' (did you mean best_val_acc?)
parameters:
  model: {value: simple_cnn}
  batchsize: {value: 3}  # parameters.batchsize: no such parameter (did you mean batch_size?)
  stem: {value: cifar}  # parameters.stem: simple_cnn has no stem: it belongs to resnet18 and vit (remove it
  epochs: {value: 0}  # parameters.epochs.value: 0: input should be greater than or equal to 1
  optimizer: {values: [adamw, sgdd, adam]}  # parameters.optimizer.values.1: 'sgdd':
  kernel_size: {min: 3, max: 7}  # parameters.kernel_size: 4:
  dropout:
    min: -0.1  # parameters.dropout.min: -0.1:
    max: 1.5  # parameters.dropout.max: 1.5:
  batch_size:
    values:
      - 64
      - 0.5  # parameters.batch_size.values.1: 0.5:
  lr: {distribution: normal, mu: 0.01, sigma: 0.01}  # parameters.lr: -
  hidden: {distribution: q_uniform, min: 3, max: 90, q: 8}  # parameters.hidden: 0:
  augment:
    parameters:
      shft: {min: 0.0, max: 0.1}  # parameters.augment.parameters.shft: no such parameter (did you mean augment.shift?)
      shift: {min: 0.0, max: 0.6}  # parameters.augment.parameters.shift.max: 0.6:
"""


def test_every_problem_is_reported_at_its_line_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    sweep, lines = load_sweep_file(path)
    with pytest.raises(SweepFileError) as caught:
        bind(sweep, source=str(path), lines=lines)
    assert str(caught.value).startswith(f"{path}: 13 problems")
    for problem, expected in zip(caught.value.problems, problems_behind_lines(SWEEP), strict=True):
        assert str(problem).startswith(expected)
    assert "0.1% of the draws" in str(caught.value.problems[9])


VIT = {"model": "vit", "dim": {"values": [192, 200]}, "head_dim": {"values": [16, 32, 64]}}
CONV = {"model": "vit", "stem": "conv"}
WIDE = {name: {"min": 0.0, "max": 0.5} for name in ("dropout", "label_smoothing", "warmup", "momentum")}
RESNET = {"model": "resnet18", "pretrained": {"values": [True, False]}, "stem": {"values": ["imagenet", "cifar"]}}
TWICE = {"model": "vit", "augment.shift": 0.1, "augment": {"parameters": {"shift": {"value": 0.2}}}}
THREE = {"model": {"values": ["resnet18", "vit", "simple_cnn"]}}
UNTRAINABLE = "a combination that cannot be trained: "


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"lr": 0.1}, "parameters: no model is given: which architecture to train (add model: {value: simple_cnn}"),
        ({"model": "resnet"}, "parameters.model: no such model: 'resnet' (did you mean resnet18?)"),
        (THREE | {"width": 8}, "parameters.width: resnet18 has width, but vit and simple_cnn have not (write one"),
        ({"model": {"values": ["resnet18", "deeper_cnn"]}, "width": 4}, "parameters.width.value: 4: "),
        ({"model": "vit", "augment": {"values": [{"shift": 0.0}, {"shift": 0.9}]}}, "parameters.augment.values.1: 0.9"),
        (VIT, f"parameters.dim: {UNTRAINABLE}dim 200 is not a multiple of head_dim 16, and 2 more such combinations"),
        (VIT | WIDE | {"lr": 0.1}, f"parameters.dim: {UNTRAINABLE}dim 200 is not a multiple"),
        (VIT | {"dim": 192, "patch_size": 7}, "parameters.patch_size.value: patch_size 7 does not divide "),
        (CONV | {"patch_size": 6}, f"parameters.patch_size: {UNTRAINABLE}patch_size 6 cannot have stem=conv: take"),
        (
            CONV | {"patch_size": {"values": [4, 6]}},
            "parameters.patch_size.values.1: patch_size 6 cannot have stem=conv",
        ),
        (TWICE, "parameters.augment.shift: given twice: once nested, once with a dotted name"),
        (RESNET, f"parameters.pretrained: {UNTRAINABLE}pretrained weights have the 7x7 stem"),
    ],
)
def test_parameter_or_combination_that_cannot_be_trained_is_one_problem(parameters, says):
    (problem,) = problems_in(sweep_of(parameters))
    assert problem.startswith(says)


@pytest.mark.parametrize(
    "parameters",
    [
        # Unbounded distributions that stay in range in practice.
        {"model": "simple_cnn", "lr": {"distribution": "log_normal", "mu": -5, "sigma": 0.5}},
        {"model": "simple_cnn", "lr": {"distribution": "normal", "mu": 1.0, "sigma": 0.1}},
        {"model": "simple_cnn", "lr": {"distribution": "beta", "a": 2, "b": 5}},
        {"model": "vit", "dim": 200, "head_dim": 8},  # dim fits no default of head_dim
        THREE | {"lr": {"min": 0.01, "max": 0.1}},
        {"model": "simple_cnn", "seed": {"values": list(range(5_000))}},
    ],
)
def test_valid_sweep_is_accepted_without_a_note(parameters):
    assert notes_on(sweep_of(parameters)) == []


def test_patches_are_checked_by_the_images_of_the_data_and_each_value_that_does_not_fit_is_named():
    sweep = parse_sweep(sweep_of({"model": "vit", "data": "wide", "patch_size": {"values": [5, 2, 10]}}))
    assert bind(sweep, image_size={"wide": (40, 50)}.__getitem__) == ()
    with pytest.raises(SweepFileError) as caught:
        bind(sweep, image_size={"wide": (40, 48)}.__getitem__)
    assert [problem.key for problem in caught.value.problems] == [f"parameters.patch_size.values.{n}" for n in (0, 2)]
    assert "patch_size 5 does not divide images of 48x40 pixels" in str(caught.value)


def hyperband(metric="best_val_acc", **settings):
    rule = {"type": "hyperband", **settings}
    return {"metric": {"name": metric, "goal": "maximize"}, "early_terminate": rule}


ENGINE = {"method": "custom", "scheduler": {"engine": "optuna"}, "metric": None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": {"name": "val_accuracy"}}, "metric.name: no trial reports 'val_accuracy' (did you mean val_acc"),
        (ENGINE | {"metrics": [METRIC, {"name": "gap"}, METRIC]}, "metrics.1.name: no trial reports 'gap'"),
        ({"metric": None}, "method: method bayes needs a metric"),
        ({"method": "custom"}, "method: method custom needs a scheduler (write scheduler: {engine: optuna})"),
        (
            {"method": "custom", "scheduler": {"engine": "ax"}},
            "scheduler.engine: fersweep does not support",
        ),
        ({"method": "grid"}, "parameters.augment.parameters.shift: has no grid"),
        (
            hyperband(min_iter=2) | {"method": "random", "metric": None},
            "early_terminate: needs a metric to compare",
        ),
    ],
)
def test_unsupported_search_is_refused(changes, says):
    augment = {"parameters": {"shift": {"min": 0.0, "max": 0.1}}}
    data = sweep_of({"model": "simple_cnn", "augment": augment}, **changes)
    assert problems_in({key: value for key, value in data.items() if value is not None})[0].startswith(says)


NEVER = "early_terminate: no trial will be stopped early: "


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": {"name": "best_val_acc"}}, "metric: the goal is to minimize best_val_acc, the default"),
        ({"metric": {"name": "val_loss", "goal": "maximize"}}, "metric: the goal is to maximize val_loss (goal: mini"),
        (hyperband(min_iter=20), NEVER + "the first band, 20, is not before the last of 20 epochs"),
        (hyperband(max_iter=2, s=1), NEVER + "no band is before the last of 20 epochs"),
        (hyperband("macro_f1", min_iter=3), NEVER + "macro_f1 is known only at a trial's end"),
        ({"run_cap": 9}, "run_cap: there are only 2 configurations, and none is trained twice"),
        ({"program": "train.py"}, "program: fersweep does not run it: it trains its own architectures"),
        ({"program": "a.py", "command": ["python", "a.py"]}, "program: fersweep does not run program and command:"),
        ({"program": "/usr/bin/fersweep", "command": ["fersweep", "train"], "job": "x"}, "job: fersweep does not run"),
        ({"command": ["${env}", "${arg}", "${envvar:X}"]}, "command.1: the stock agent drops ${arg} (did you mean"),
    ],
)
def test_valid_but_probably_unintended_settings_are_noted(changes, says):
    (note,) = notes_on(sweep_of({"model": "simple_cnn", "seed": {"min": 0, "max": 1}}, **changes))
    assert note.startswith(says)


def test_bands_are_compared_with_the_longest_training():
    for epochs in ({"value": "5"}, {"values": [2, "5", 3.0]}, {"min": 2, "max": 5}):
        parameters = {"model": "vit", "epochs": epochs}
        assert notes_on(sweep_of(parameters, **hyperband(min_iter=4))) == []
        (note,) = notes_on(sweep_of(parameters, **hyperband(min_iter=5)))
        assert "is not before the last of 5 epochs" in note


def test_grid_is_checked_by_its_own_values():
    def stepped(name, method, low, high, q, **changes):
        form = {"distribution": "q_uniform", "min": low, "max": high, "q": q}
        return sweep_of({"model": "vit", name: form}, method=method, **changes)

    # Rounded to multiples of 0.1, up to 0.96 gives 1.0, which is no dropout; the grid ends at 0.9.
    assert "1.0: input should be less than 1" in problems_in(stepped("dropout", "random", 0, 0.96, 0.1))[0]
    ten = "run_cap: there are only 10 configurations, and none is trained twice"
    assert notes_on(stepped("dropout", "grid", 0, 0.96, 0.1, run_cap=99)) == [ten]
    # The grid begins at 2.5, which is no number of images; sampling rounds to multiples of 2.
    assert "2.5: input should be a valid integer" in problems_in(stepped("batch_size", "grid", 2.5, 20, 2))[0]
    assert notes_on(stepped("batch_size", "random", 2.5, 20, 2)) == []


def test_user_defined_search_space_may_leave_out_the_model():
    scheduler = {"engine": "optuna", "source": "s.py", "search_space": "f"}
    own = {"method": "custom", "metric": METRIC, "scheduler": scheduler}
    assert notes_on(own) == []
    assert notes_on({**own, "parameters": {"stem": {"value": "cifar"}}}) == []
    assert notes_on({**own, "parameters": {"width": {"value": 4}}}) == [], "deeper_cnn takes it, resnet18 does not"
    assert len(problems_in({**own, "parameters": {"width": {"value": 0}}})) == 2
    (problem,) = problems_in({**own, "parameters": {"stm": {"value": "cifar"}}})
    assert problem == "parameters.stm: no such parameter (did you mean stem?)"


def test_result_metrics_are_the_numbers_of_a_result():
    numbers = [name for name, info in TrialResult.model_fields.items() if info.annotation in (int, float)]
    assert list(RESULT_METRICS) == numbers
    assert {*RESULT_METRICS, *EPOCH_METRICS} >= {*BETTER_HIGH, *BETTER_LOW}
    assert not {*BETTER_HIGH} & {*BETTER_LOW}
