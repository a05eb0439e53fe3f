"""Commands with stock wandb on a W&B server: its agents with our sweep files, our agents with its runs, our report."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import write_sweep
from tests.support.documentation import REPOSITORY
from tests.support.processes import COMMAND, alive, descendants, fersweep, until
from tests.support.standin.state import Run
from tests.support.standin.stock import BIN, Stock

pytestmark = [pytest.mark.stock, pytest.mark.usefixtures("one_core", "tiny_data")]

SHIPPED = REPOSITORY / "sweeps"
SMALL: dict[str, dict[str, Any]] = {
    "simple_cnn": {"channels": 4, "hidden": 8},
    "deeper_cnn": {"width": 4},
    "resnet": {"width": 8},
    "vit": {"dim": 32, "head_dim": 16, "depth": 1},
}
"""Parameters for trials that take a second; all others are the file's."""
IMPATIENT = "import fer_sweep.wandb_client.tracking as t; t.FINISH_S = 2.0; from fer_sweep.cli import main; main()"
"""fersweep whose agents give a run two seconds to be sent at its end."""


def epochs(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


@pytest.fixture
def stock(online, tmp_path):
    with Stock(online, tmp_path) as tools:
        yield tools


def small(name: str, **fixed: Any) -> dict[str, Any]:
    """A shipped sweep file with small trials."""
    plain: dict[str, Any] = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    fixed |= {"data": "tiny", "batch_size": 32, **SMALL[name]}
    plain["parameters"] |= {parameter: {"value": value} for parameter, value in fixed.items()}
    return plain


def test_every_shipped_file_runs_with_nested_and_boolean_parameters(online, stock):
    agents = {}
    for name in SMALL:
        plain = small(name, epochs=2, drop_val_copies=True)
        plain["parameters"]["augment"]["parameters"]["flip"] = {"values": [False]}
        Path(f"{name}.yaml").write_text(yaml.safe_dump(plain))
        stock.wandb("sweep", f"{name}.yaml")
        sweep = list(online.sweeps)[-1]
        words = ("agent", "--count", "1", f"tester/fersweep/{sweep}")
        agents[sweep] = name, stock.start(str(BIN / "wandb"), *words)
    for sweep, (name, agent) in agents.items():
        said = stock.output(agent)
        assert agent.returncode == 0, said
        (run_id,) = online.sweeps[sweep].run_ids
        run = online.runs[run_id]
        assert (run.state, run.exit_code, run.sweep_id, epochs(run)) == ("finished", 0, sweep, [1, 2]), said
        assert run.config["model"] == {"resnet": "resnet18"}.get(name, name)
        assert (run.config["augment"]["flip"], run.config["drop_val_copies"]) == (False, True)
        assert run.summary["train_val_gap"] == pytest.approx(run.summary["train_acc"] - run.summary["best_val_acc"])
        assert Path(f".fersweep/sweeps/{sweep}/trials/{run_id}/result.json").is_file()
    stock.wandb("sweep", str(SHIPPED / "multi_objective.yaml"))
    metrics = list(online.sweeps.values())[-1].config["metrics"]
    assert [metric["name"] for metric in metrics] == ["best_val_acc", "train_val_gap"]


def test_a_stop_from_the_server_ends_the_run_with_its_result_and_not_the_stock_agent(online, stock):
    sweep = online.create_sweep(small("simple_cnn", epochs=10_000), project="fersweep")
    agent = stock.start(str(BIN / "wandb"), "agent", "--count", "1", f"tester/fersweep/{sweep.id}")
    online.wait_for(lambda server: any(run.history for run in server.runs.values()), 120)
    (run,) = online.runs.values()
    online.stop_run(run.id)
    said = stock.output(agent)
    assert agent.returncode == 0, said
    assert (run.state, run.exit_code) == ("finished", 0), "three failures would end a stock agent"
    assert run.summary["state"] == "pruned" and run.summary["best_val_acc"] > 0
    assert epochs(run) == list(range(1, run.summary["epochs"] + 1))


@contextmanager
def agent() -> Iterator["subprocess.Popen[str]"]:
    words = [COMMAND[0], "-c", IMPATIENT, "agent", "--gpus", "none"]
    out = subprocess.PIPE
    with subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, text=True, process_group=0) as process:
        yield process


def said_until(text: str, process: "subprocess.Popen[str]") -> str:
    """What the agent says up to the line that holds this text, or to its end."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text and text in line:
            return said
    assert not text and process.wait(120) == 0, said
    return said


@pytest.mark.process
def test_a_run_is_whole_in_spite_of_a_killed_agent_and_a_network_cut_at_the_end_of_the_next(online):
    def trained(count: int) -> None:
        histories = Path(f".fersweep/sweeps/{sweep}/trials")
        until(lambda: any(path.read_text().count("\n") >= count for path in histories.glob("*/history.jsonl")))

    sweep = fersweep("create", write_sweep(epochs=150)).stdout.strip()
    with agent() as first:
        trained(20)
        family = {first.pid} | descendants(first.pid)
        os.killpg(first.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in family))
    with agent() as second:
        trained(60)
        online.faults.offline()
        said = said_until("could not finish the run", second)
        online.faults.online()
        said += said_until("", second)
    (run,) = online.runs.values()
    assert (run.state, run.exit_code) == ("finished", 0), online.dump()
    assert epochs(run) == list(range(1, 151)), "no gap and no repeat"
    assert "not uploaded" not in said, said
    assert online.sweeps[sweep].state == "FINISHED"


def test_stdout_has_both_addresses_or_one_document_and_nothing_else(online, shell, monkeypatch):
    sweep = shell.json("create", str(SHIPPED / "simple_cnn.yaml"))["sweep"]
    monkeypatch.delenv("WANDB_SILENT")  # wandb may print as it likes
    done = fersweep("report", "--wandb")
    assert done.returncode == 0, done.stderr
    report, workspace = done.stdout.splitlines()
    assert report.startswith(f"report: {online.url}/tester/fersweep/reports/simple-cnn-sweep-{sweep}--")
    assert workspace.startswith(f"workspace: {online.url}/tester/fersweep?nw=")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["note", "next"]
    sweeps = [sweep, shell.json("create", str(SHIPPED / "resnet.yaml"), "--search", "optuna")["sweep"]]
    document = shell.json("report", "--wandb", *sweeps, sweep)
    assert [shown["sweep"] for shown in document["sweeps"]] == sweeps
