"""What people write in place of a sweep file's words is refused with a hint that helps."""

from pathlib import Path

import pytest

from fer_sweep.config.sweep_file import load_sweep_file
from fer_sweep.errors import MOST_SHOWN, SweepFileError

TOP = "method: random\nmetric: {name: best_val_acc, goal: maximize}\n"
MODEL = f"{TOP}parameters:\n  model: {{value: simple_cnn}}\n"
LATER = "parameters:\n  model: {value: simple_cnn}\n"

HINTS = [
    (f"{MODEL}  lr:\n\u00a0\u00a0value: 1\n", "line 6: ", "begins with a no-break space (U+00A0)"),
    (f"{TOP}parameters\uff1a\n  model: {{value: vit}}\n", "line 3: it has a fullwidth colon (U+FF1A)", "plain :"),
    (f"{MODEL}  lr: {{\u201cvalue\u201d: 1}}\n", "has a left double quotation mark", 'type a plain "'),
    (f"{TOP}parameters:\n  model:\n    value:simple_cnn\n", "a space after the colon: value: simple_cnn"),
    (f"{MODEL}  lr: {{value:0.1}}\n", "a space after the colon: value: 0.1"),
    (f"method:random\n{LATER}", "line 1: put a space after the colon: method: random"),
    (f"{MODEL}  augment:\n    shift: {{value: 0.1}}\n", "put parameters: between: {parameters: {shift: {value: 0.1}}}"),
    (f"{MODEL}  augment: {{shift: 0.1}}\n", "put parameters: between: {parameters: {shift: {value: 0.1}}}"),
    (f"{MODEL}  batch_size: {{values: 32}}\n", "write values: [32]"),
    (f'{MODEL}  hidden: {{values: "64, 128"}}\n', "write values: [64, 128]"),
    (f"{MODEL}  lr: {{min: '0.001', max: '0.1'}}\n", "without quotes: 0.001", "without quotes: 0.1"),
    (f"method: random\nmetric: val_acc\n{LATER}", "write metric: {name: val_acc, goal: maximize}"),
    (f"method: random\nmetric: val_loss\n{LATER}", "write metric: {name: val_loss, goal: minimize}"),
    (f'{MODEL}  lr: {{"values:": [0.1, 0.2]}}\n', "lr: has no values (did you mean values?)"),
    (f"{MODEL}  dropout: {{vales: [0.1]}}\n", "did you mean values?"),
    (f"{MODEL}  lr: {{low: 0.1, high: 0.2}}\n", "did you mean min?"),
    (f"{MODEL}  lr: {{choices: [0.1, 0.2]}}\n", "did you mean values?"),
    (f"x-range: &r {{min: 0.0, max: 0.5}}\n{MODEL}  dropout: *r\n", "write the anchor (&name) where it is first used"),
    (f"wide: &r {{min: 0.0}}\n{MODEL}  dropout: {{<<: *r, max: 0.5}}\n", "where it is first used"),
    (f"dropout: {{min: 0.0, max: 0.5}}\n{MODEL}", "move it under parameters:"),
    (f"{TOP}count: 20\n{LATER}", "did you mean run_cap?"),
    (f"algorithm: random\n{MODEL}", "did you mean method?"),
    (f"{TOP}command: python train.py ${{args}}\n{LATER}", 'command: ["python", "train.py", "${args}"]'),
    (f"{TOP}parameters:\n  - model: {{value: simple_cnn}}\n", "write the names as keys, without the dashes"),
    (f"{MODEL}   lr:\n    value: 0.1\n", "line 5 is indented by 3, and line 4, where its block begins, by 2"),
    (f"{MODEL}  lr: {{value: 1\n", "close every bracket"),
    (f"{TOP}description: FER: a try\n{LATER}", "quote a text that has a colon"),
    ("data: {root: x}\ntraining: {epochs: 30}\nlogging: 1\n", ": 1 problem\n", "not a sweep file: it has data"),
    ("kind: slurm\nagents: 3\n", "is a pool file", "--pool"),
    (f"{MODEL}scheduler:\n  num_workers: 4\n", ": 1 problem\n", "is W&B Launch's scheduler", "remove scheduler:"),
    (f"{TOP}early_terminate: hyperband\n{LATER}", "write early_terminate: {type: hyperband, min_iter: 3}"),
    (f"{MODEL}  lr: {{distribution: choice, values: [1, 2]}}\n", "did you mean categorical?"),
    (f"{MODEL}  seed: {{distribution: randint, min: 1, max: 3}}\n", "did you mean int_uniform?"),
    (f"{MODEL}  dropout: {{distribution: uniform, min: 0, max: 1, q: 0.1}}\n", "(q belongs to q_uniform)"),
    (f"{MODEL}  lr: {{distribution: loguniform, min: 0.1, max: 1}}\n", "did you mean log_uniform_values?"),
]  # fmt: skip
"""A file, and what each command that reads it says."""


@pytest.mark.parametrize("words", ["validate", "validate --schema-only", "create"])
def test_a_file_gone_wrong_is_refused_with_the_hint_that_helps(words, shell):
    for text, *says in HINTS:
        Path("sweep.yaml").write_text(text)
        code, out, err = shell(*words.split(), "sweep.yaml")
        assert (code, out) == (2, ""), text
        for said in says:
            assert said in err


def test_a_file_of_hundreds_of_problems_shows_the_first_and_counts_the_rest(shell):
    entries = [f"  no_such_{number}: {{value: {number}}}\n" for number in range(300)]
    Path("many.yaml").write_text(MODEL + "".join(entries))
    code, _, err = shell("validate", "many.yaml")
    assert code == 2 and "300 problems" in err and err.count("no such parameter") == MOST_SHOWN
    assert "and 280 more" in err
    _, out, _ = shell("validate", "many.yaml", "--json")
    assert out.count("no such parameter") == 300


def test_a_problem_quotes_no_more_of_the_file_than_can_be_read():
    Path("long.yaml").write_text(f"{TOP}command: {'x' * 100_000}\n{LATER}")
    with pytest.raises(SweepFileError) as caught:
        load_sweep_file(Path("long.yaml"))
    assert len(str(caught.value)) < 2_000
