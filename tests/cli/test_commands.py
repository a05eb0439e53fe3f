"""Every command: its help, what it prints and where, its exit code; and one sweep as a user runs it."""

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from fer_sweep.cli import app
from fer_sweep.config.trial import known_names
from tests.cli.conftest import write_sweep
from tests.support.documentation import REPOSITORY
from tests.support.processes import fersweep

TINY = ("--model=simple_cnn", "--data=tiny", "--epochs=1", "--channels=4", "--hidden=8", "--device=cpu")


@pytest.fixture
def small(tiny_data):
    return write_sweep(trials=2)


TOP = get_command(app).commands


@pytest.mark.parametrize(
    "command", [name for name in TOP if name != "data"] + [f"data {name}" for name in TOP["data"].commands]
)
def test_help_of_every_command_has_an_example(shell, command):
    code, out, _ = shell(*command.split(), "--help")
    assert code == 0 and "Example: fersweep" in out
    if command == "train":
        assert [name for name in known_names() if f"--{name}" not in out] == []


def test_help_has_every_command_in_its_section_on_one_line(shell):
    _, out, _ = shell("--help")
    listed = out.partition("\nStart:\n")[2].partition("\n\n")[0].splitlines()
    shown = [line.split()[0] for line in listed if not line.endswith(":")]
    assert sorted(shown) == sorted(TOP), "each stands in groups.GROUPS"
    assert all(line.endswith(".") for line in listed if not line.endswith(":")), "with its whole summary"


def test_options_may_be_written_with_either_dash(shell, small):
    assert shell("create", small, "--max_gap", "0.2")[0] == 0
    assert shell("agent", "--on_oom", "smaller-micro-batch", "--per_gpu", "x")[2].startswith("error: --per-gpu x")


def test_validate_shows_every_problem_with_its_line_and_binds_parameters_unless_told_not_to(shell):
    Path("bad.yaml").write_text("program: x\nmethod: randm\nparameters:\n  lr: {min: 2, max: 1}\n")
    code, out, err = shell("validate", "bad.yaml")
    assert (code, out) == (2, "")
    assert "line 2" in err and "random" in err and "line 4" in err
    code, out, _ = shell("validate", "bad.yaml", "--json")
    document = json.loads(out)
    assert (code, document["valid"]) == (2, False)
    assert {problem["line"] for problem in document["problems"]} >= {2, 4}
    other = Path(write_sweep())
    other.write_text(other.read_text().replace("lr:", "learning_rate:"))
    assert shell("validate", str(other), "--schema-only")[0] == 0
    code, _, err = shell("validate", str(other))
    assert code == 2 and "did you mean lr" in err


@pytest.mark.parametrize(
    "words",
    [
        "create sweep.yaml --set epochs",
        "create sweep.yaml --set leaning=3",
        "create sweep.yaml --search magic",
        "create sweep.yaml --storage mysql://host/db",
        "confirm --seeds 0",
        "test --tta five",
        "test --folder x --trial 1",
        "train --model simple_cnn --lr -1",
        "train --config nowhere.json",
        "train --model simple_cnn --device 99",
        "nonsense",
        "report --wandb -o x.html",
        "report --wandb --faces",
        "report --new",
        "report --faces --format csv",
    ],
)
def test_bad_input_exits_with_2_and_says_why(shell, small, words):
    code, out, err = shell(*words.split())
    assert (code, out) == (2, "")
    assert err.strip() and "Traceback" not in err


NEED_A_SWEEP = ("status", "best", "confirm", "test", "agent", "pause", "export -o out", "predict x.png", "report")


@pytest.mark.parametrize("words", [*NEED_A_SWEEP, "report --wandb"])
def test_without_a_sweep_there_is_nothing_to_do(shell, words):
    code, _, err = shell(*words.split())
    assert code == 3 and "fersweep create" in err


def test_run_trains_a_sweep_from_its_file_to_the_winner_in_real_processes(small_synthetic):
    file = str(REPOSITORY / "sweeps" / "simple_cnn.yaml")
    smaller = ("--set", "epochs=1", "--set", "channels=4", "--set", "hidden=8", "--count", "2")
    done = fersweep("run", file, "--data", "synthetic", *smaller, "--gpus", "none", "--slots", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" complete: best_val_acc") == 2
    (model,) = re.findall(r"^model: (.*)$", done.stdout, flags=re.MULTILINE)
    assert Path(model).is_file()


def test_a_sweep_from_file_to_winner_and_another_stopped_and_cancelled(shell, small, played_trials):
    sweep = shell.json("create", small)["sweep"]
    for command, state in (("pause", "paused"), ("resume", "running")):
        assert shell(command)[0] == 0
        assert shell.json("status")["state"] == state
    document = shell.json("agent", "--gpus", "none", "--slots", "1")
    assert document == {"sweep": sweep, "ended": {"complete": 2}, "interrupted": False}
    assert played_trials.is_closed
    for trial in shell.json("status", sweep)["trials"]:
        assert (trial["state"], trial["config"]["model"], trial["reason"]) == ("complete", "simple_cnn", None)
        assert {"best_val_acc", "train_val_gap", "epoch", "verdict"} <= set(trial["metrics"])
    _, out, err = shell("best")
    assert f"sweep {sweep}" in out and "best.safetensors" in out and "next:" in err
    code, _, err = shell("agent")
    assert code == 3 and "finished" in err

    shell("create", small)
    for command, state in (("stop", "stopped"), ("cancel", "cancelled")):
        assert shell(command)[0] == 0
        assert shell.json("status")["state"] == state
        assert shell("agent", "--gpus", "none")[0] == 3
    code, _, err = shell("resume")
    assert code == 3 and "cancelled" in err


def test_train_takes_the_arguments_of_the_stock_wandb_agent_and_a_configuration(shell, tiny_data):
    given = ("--drop_val_copies=True", "--augment={'flip': False, 'shift': 0.05}", "--folder=first")
    result = shell.json("train", *TINY, *given)
    assert result["epochs"] == 1
    assert {"best_val_acc", "train_val_gap", "images_per_second", "verdict"} <= set(result)
    written = json.loads(Path("first/config.json").read_text())
    assert (written["drop_val_copies"], written["augment"]["shift"]) == (True, 0.05)
    shell.json("train", "--config", "first/config.json", "--seed", "7", "--device", "cpu", "--folder", "second")
    assert json.loads(Path("second/config.json").read_text()) == {**written, "seed": 7}
