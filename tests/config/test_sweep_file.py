"""Sweep files: every problem is reported with its line and a remedy; a valid file is read, written and changed."""

import pytest

from fer_sweep.config.sweep_file import EarlyTerminate, load_sweep_file, parse_sweep, with_constants
from fer_sweep.errors import SweepFileError
from tests.config.conftest import problems_behind_lines

MINIMAL = {"method": "random", "parameters": {"lr": {"min": 0.1, "max": 0.2}}}


def refusal_of(**changes):
    with pytest.raises(SweepFileError) as caught:
        parse_sweep({**MINIMAL, **changes})
    (problem,) = caught.value.problems
    return str(problem)


# Each problem stands behind its line; the message continues with a remedy where there is no more room.
SWEEP = """\
metod: bayes  # metod: no such key (did you mean method?)
metric:  # metric.name: missing (such as best_val_acc)
  nam: best_val_acc  # metric.nam: no such key (did you mean name?)
  goal: maximise  # metric.goal: 'maximise' is not allowed (did you mean maximize?)
early_terminate:  # early_terminate: has no bands (give min_iter, or max_iter and s)
  type: hyperbands  # early_terminate.type: 'hyperbands' is not allowed (did you mean hyperband?)
  eta: 1  # early_terminate.eta: 1 is not above 1
run_cap: 0  # run_cap: 0 is not 1 or more
parameters:
  model: resnet18  # parameters.model: 'resnet18' is not a parameter (write value: resnet18)
  lr: {min: 0.1, max: 0.01}  # parameters.lr: min 0.1 is not less than max 0.01 (swap them)
  dropout: {distribution: log_unifrm, min: 0, max: 0.5}  # parameters.dropout: no such distribution: 'log_unifrm' (did
  warmup: {distribution: log_uniform, min: -5, max: -1}  # parameters.warmup: log_uniform is deprecated: its min and max
  epochs: {min: 3}  # parameters.epochs.max: missing (int_uniform needs min and max)
  blocks: {min: 1, max: 3, q: 2}  # parameters.blocks.q: int_uniform takes no q (q belongs to q_uniform)
  augment:
    parameters:
      shift: {min: 0.0, max: "0.1"}  # parameters.augment.parameters.shift.max: '0.1' is not a number
name:  # name: is empty (give it a value or remove the line)
"""


def test_all_problems_are_reported_with_line_key_and_remedy(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    with pytest.raises(SweepFileError) as caught:
        load_sweep_file(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    missing, *problems = map(str, caught.value.problems)
    assert missing == "method: missing (bayes, random, grid or custom)"
    for problem, expected in zip(problems, problems_behind_lines(SWEEP), strict=True):
        assert problem.startswith(expected)


def of_a(form):
    return {"parameters": {"a": form}}


OPTUNA = {"method": "custom", "scheduler": {"engine": "optuna"}}
BANDS = {"type": "hyperband", "min_iter": 1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lr": {"value": 1}}, "lr: no such key (move it under parameters:)"),
        (
            {"metric": {"name": "a"}, "metrics": [{"name": "a"}, {"name": "b"}]},
            "metrics: cannot be combined with metric",
        ),
        ({"metrics": [{"name": "a"}, {"name": "b"}]}, "metrics: several objectives need method custom, not random"),
        (
            {"scheduler": {"engine": "optuna"}},
            "scheduler.engine: optuna does not support method random (method: custom)",
        ),
        (OPTUNA | {"scheduler": {"engine": "optuna", "optimizer": "f"}}, "scheduler.optimizer: needs source"),
        (
            OPTUNA | {"controller": {"type": "local"}},
            "controller: a local controller cannot be combined with scheduler",
        ),
        (OPTUNA | {"early_terminate": BANDS}, "early_terminate: cannot be combined with scheduler"),
        (of_a({"values": []}), "parameters.a.values: needs at least one entry"),
        (of_a([1, 2]), "parameters.a: [1, 2] is not a parameter (write values: [1, 2])"),
        (of_a({}), "parameters.a: has no values"),
        (of_a({"min": 3, "max": 3}), "parameters.a: min 3 is not less than max 3 (one value only"),
        (of_a({"values": [1, 2], "probabilities": [0.5, 0.2]}), "parameters.a: the probabilities sum to 0.7, not to 1"),
        (of_a({"distribution": "log_uniform_values", "min": 0, "max": 1}), "parameters.a.min: 0 is not above zero"),
        (of_a({"min": 1, "max": 10**400}), "parameters.a.max: the number is too large"),
        (of_a({"parameters": {"b": {"min": 2, "max": 1}}}), "parameters.a.parameters.b: min 2 is not"),
    ],
)
def test_problem_says_what_is_wrong_and_what_to_do(changes, says):
    assert refusal_of(**changes).startswith(says)


def test_goals_and_other_defaults_are_filled_in():
    assert parse_sweep(MINIMAL).objectives == ()
    (metric,) = parse_sweep({**MINIMAL, "metric": {"name": "loss"}}).objectives
    assert (metric.goal, metric.impute, metric.impute_while_running) == ("minimize", "worst", "false")
    both = [{"name": "best_val_acc", "goal": "maximize"}, {"name": "train_val_gap"}]
    sweep = parse_sweep({**MINIMAL, "method": "custom", "metrics": both})
    assert [(m.name, m.goal) for m in sweep.objectives] == [("best_val_acc", "maximize"), ("train_val_gap", "minimize")]
    settings = parse_sweep({**MINIMAL, "early_terminate": {"type": "hyperband", "min_iter": 3.0}}).early_terminate
    assert (settings.min_iter, settings.eta, settings.strict) == (3, 3, True)


def test_constants_are_set_and_constants_and_run_cap_are_checked():
    group = {"parameters": {"x": {"min": 1, "max": 2}}}
    sweep = parse_sweep({**MINIMAL, "parameters": {**MINIMAL["parameters"], "g": group}})
    fixed = with_constants(sweep, {"lr": 0.15, "g.x": 2, "g.y": 3, "epochs": 4, "h.z": 5})
    assert fixed.to_plain()["parameters"] == {
        "lr": {"value": 0.15},
        "g": {"parameters": {"x": {"value": 2}, "y": {"value": 3}}},
        "epochs": {"value": 4},
        "h.z": {"value": 5},
    }
    assert sweep.to_plain()["parameters"]["lr"] == {"min": 0.1, "max": 0.2}
    with pytest.raises(SweepFileError, match="not a valid parameter name"):
        with_constants(sweep, {"no name": 1})
    assert refusal_of(run_cap=0).startswith("run_cap: 0 is not 1 or more")


def test_number_of_bands_is_bounded():
    rule = EarlyTerminate(type="hyperband", max_iter=10**9, s=10**9, eta=1.000001)
    assert len(rule.bands) == 100
