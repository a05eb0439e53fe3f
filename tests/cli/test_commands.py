"""Every command as a user calls it: what it prints, where, and its exit code."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Shell

pytestmark = pytest.mark.usefixtures("one_core")

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = """\
program: fersweep
method: random
metric: {name: best_val_acc, goal: maximize}
run_cap: 2
parameters:
  model: {value: simple_cnn}
  data: {value: tiny}
  epochs: {value: 2}
  channels: {value: 4}
  hidden: {value: 8}
  batch_size: {value: 16}
  lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
"""


@pytest.fixture
def small(tmp_path: Path, tiny_data: str) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


COMMANDS = (
    "validate create agent run status best confirm test pause resume stop cancel train doctor "
    "data data|prepare data|list data|audit data|share report dashboard"
)


@pytest.mark.parametrize("command", COMMANDS.split())
def test_help_of_every_command_has_an_example_or_lists_commands(shell: Shell, command: str) -> None:
    code, out, _ = shell(*command.split("|"), "--help")
    assert code == 0
    assert "Example: fersweep" in out or command == "data"


def test_train_help_lists_every_field_of_every_architecture(shell: Shell) -> None:
    from fer_sweep.config.trial import known_names

    _, out, _ = shell("train", "--help")
    for name in known_names():
        assert f"--{name}" in out


@pytest.mark.parametrize("name", ["simple_cnn", "deeper_cnn", "resnet", "vit", "multi_objective"])
def test_every_shipped_file_is_valid_and_can_be_created_for_synthetic_faces(shell: Shell, name: str) -> None:
    file = str(REPOSITORY / "sweeps" / f"{name}.yaml")
    assert shell("validate", file)[0] == 0
    made = shell.json("create", file, "--data", "synthetic", "--set", "epochs=2", "--count", "3")
    assert set(made) == {"sweep", "search", "url"}
    assert shell.json("status")["sweep"] == made["sweep"]


def test_validate_shows_every_problem_with_its_line_and_exits_with_2(shell: Shell, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("program: x\nmethod: randm\nparameters:\n  lr: {min: 2, max: 1}\n")
    code, out, err = shell("validate", str(bad))
    assert code == 2
    assert out == ""
    assert "line 2" in err and "random" in err and "line 4" in err
    code, out, _ = shell("validate", str(bad), "--json")
    assert code == 2
    document = json.loads(out)
    assert document["valid"] is False
    assert {problem["line"] for problem in document["problems"]} >= {2, 4}


def test_validate_binds_parameters_unless_told_not_to(shell: Shell, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("program: x\nmethod: random\nparameters:\n  learning_rate: {min: 0.1, max: 0.2}\n")
    assert shell("validate", str(other), "--schema-only")[0] == 0
    code, _, err = shell("validate", str(other))
    assert code == 2
    assert "did you mean lr" in err


@pytest.mark.parametrize(
    "words",
    [
        ("create", "nowhere.yaml"),
        ("create", "small.yaml", "--set", "epochs"),
        ("create", "small.yaml", "--set", "epochs=0"),
        ("create", "small.yaml", "--set", "leaning=3"),
        ("create", "small.yaml", "--count", "0"),
        ("create", "small.yaml", "--search", "magic"),
        ("create", "small.yaml", "--storage", "mysql://host/db"),
        ("confirm", "--seeds", "0"),
        ("test", "--tta", "five"),
        ("test", "--folder", "x", "--trial", "1"),
        ("test", "--folder", "nowhere"),
        ("train", "--model", "resnt"),
        ("train", "--model", "simple_cnn", "--lr"),
        ("train", "--model", "simple_cnn", "--lr", "-1"),
        ("train", "--model", "simple_cnn", "word"),
        ("train", "--config", "nowhere.json"),
        ("train", "--model", "simple_cnn", "--device", "99"),
        ("data", "prepare", "nowhere.zip"),
        ("data", "audit", "nowhere"),
        ("status", "nosuchid"),
        ("nonsense",),
        ("agent", "--count", "x"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_to_do(shell: Shell, small: str, words: tuple[str, ...]) -> None:
    assert shell("create", small)[0] == 0
    code, out, err = shell(*words)
    assert code == 2
    assert out == ""
    assert err.strip()
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["status", "best", "confirm", "test", "agent", "pause"])
def test_without_a_sweep_there_is_nothing_to_do(shell: Shell, command: str) -> None:
    code, _, err = shell(command)
    assert code == 3
    assert "fersweep create" in err


def test_best_without_a_result_has_nothing_to_do(shell: Shell, small: str) -> None:
    shell("create", small)
    code, _, err = shell("best")
    assert code == 3
    assert "fersweep agent" in err


def test_a_sweep_from_file_to_winner(shell: Shell, small: str) -> None:
    sweep = shell.json("create", small)["sweep"]
    document = shell.json("agent", "--gpus", "none", "--slots", "1")
    assert document == {"sweep": sweep, "ended": {"complete": 2}, "interrupted": False}

    status = shell.json("status", sweep)
    assert [trial["state"] for trial in status["trials"]] == ["complete", "complete"]
    for trial in status["trials"]:
        assert trial["config"]["model"] == "simple_cnn"
        assert {"best_val_acc", "train_val_gap", "epoch", "verdict"} <= set(trial["metrics"])
        assert trial["reason"] is None

    best = shell.json("best")
    assert len(best["ranking"]) == 2
    assert best["winner"] in best["ranking"]
    assert best["pareto"][0] == best["ranking"][0]
    _, out, err = shell("best")
    assert f"sweep {sweep}" in out and "best.safetensors" in out
    assert "next:" in err

    code, _, err = shell("agent")
    assert code == 3
    assert "more trials" in err or "finished" in err
    config = Path(".fersweep/sweeps") / sweep / "trials" / best["winner"]["id"] / "config.json"
    result = shell.json("train", "--config", str(config), "--seed", "7", "--device", "cpu")
    assert {"best_val_acc", "train_val_gap", "images_per_second", "verdict"} <= set(result)


def test_paused_resumed_stopped_and_cancelled(shell: Shell, small: str) -> None:
    shell("create", small)
    for command, state in (("pause", "paused"), ("resume", "running"), ("stop", "stopped"), ("cancel", "cancelled")):
        assert shell(command)[0] == 0
        assert shell.json("status")["state"] == state
    code, _, err = shell("resume")
    assert code == 2
    assert "cancelled" in err


def test_a_stopped_sweep_gives_its_agent_nothing_to_do(shell: Shell, small: str) -> None:
    shell("create", small)
    shell("stop")
    assert shell("agent", "--gpus", "none")[0] == 3


def test_an_agent_wants_its_data_prepared_first(shell: Shell, small: str) -> None:
    shell("create", small, "--data", "fer2013")
    code, _, err = shell("agent", "--gpus", "none")
    assert code == 2
    assert "fersweep data prepare" in err


def test_train_takes_the_words_of_the_stock_wandb_agent(shell: Shell, tiny_data: str) -> None:
    result = shell.json(
        "train",
        "--model=simple_cnn",
        "--data=tiny",
        "--epochs=1",
        "--channels=4",
        "--hidden=8",
        "--drop_val_copies=True",
        "--augment={'flip': False, 'shift': 0.05}",
        "--device=cpu",
    )
    assert result["epochs"] == 1


def test_data_is_listed_and_audited(shell: Shell, tiny_data: str) -> None:
    (info,) = shell.json("data", "list")
    assert info["name"] == "tiny"
    assert shell("data", "list")[1].count("tiny")
    assert shell("data", "audit", "tiny")[0] == 0
    assert shell.json("data", "audit", "tiny")


def test_doctor_says_what_is_here(shell: Shell) -> None:
    findings = shell.json("doctor")
    assert {"GPUs", "processor", "data", "storage", "W&B"} <= {finding["topic"] for finding in findings}
    assert all(finding["advice"] for finding in findings if not finding["ok"])
    assert shell("doctor")[0] == 0
