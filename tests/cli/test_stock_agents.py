"""The shipped sweep files under stock ``wandb sweep`` and ``wandb agent``, with no agent of fersweep's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.standin.server import StandIn
from tests.support.standin.stock import BIN, Stock

pytestmark = [pytest.mark.stock, pytest.mark.usefixtures("tiny_data")]

SHIPPED = Path(__file__).resolve().parents[2] / "sweeps"
SMALL: dict[str, dict[str, Any]] = {
    "simple_cnn": {"channels": 4, "hidden": 8},
    "deeper_cnn": {"width": 4},
    "resnet": {"width": 8},
    "vit": {"dim": 32, "head_dim": 16, "depth": 1},
}
"""Parameters for trials that take a second; all others are the file's."""


@pytest.fixture
def stock(online: StandIn, tmp_path: Path) -> Iterator[Stock]:
    with Stock(online, tmp_path) as tools:
        yield tools


def small(name: str, **fixed: Any) -> dict[str, Any]:
    """A shipped sweep file with small trials."""
    plain: dict[str, Any] = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    fixed |= {"data": "tiny", "batch_size": 32, **SMALL[name]}
    plain["parameters"] |= {parameter: {"value": value} for parameter, value in fixed.items()}
    return plain


def test_every_shipped_file_runs_with_nested_and_boolean_parameters(online: StandIn, stock: Stock) -> None:
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
        assert (run.state, run.exit_code, run.sweep_id) == ("finished", 0, sweep), said
        assert run.config["model"] == {"resnet": "resnet18"}.get(name, name)
        assert (run.config["augment"]["flip"], run.config["drop_val_copies"]) == (False, True)
        assert [row["epoch"] for row in run.history if "val_acc" in row] == [1, 2]
        assert run.summary["train_val_gap"] == pytest.approx(run.summary["train_acc"] - run.summary["best_val_acc"])
        assert Path(f".fersweep/sweeps/{sweep}/trials/{run_id}/result.json").is_file()


def test_stock_wandb_takes_the_file_with_several_objectives(online: StandIn, stock: Stock) -> None:
    stock.wandb("sweep", str(SHIPPED / "multi_objective.yaml"))
    (sweep,) = online.sweeps.values()
    assert [metric["name"] for metric in sweep.config["metrics"]] == ["best_val_acc", "train_val_gap"]


def test_a_stop_from_the_server_ends_the_run_with_its_result_and_not_the_stock_agent(
    online: StandIn, stock: Stock
) -> None:
    sweep = online.create_sweep(small("simple_cnn", epochs=10_000), project="fersweep")
    agent = stock.start(str(BIN / "wandb"), "agent", "--count", "1", f"tester/fersweep/{sweep.id}")
    online.wait_for(lambda server: any(run.history for run in server.runs.values()), 120)
    (run,) = online.runs.values()
    online.stop_run(run.id)
    said = stock.output(agent)
    assert agent.returncode == 0, said
    assert (run.state, run.exit_code) == ("finished", 0), "three failures would end a stock agent"
    assert run.summary["state"] == "pruned"
    assert run.summary["best_val_acc"] > 0
    assert [row["epoch"] for row in run.history if "val_acc" in row] == list(range(1, run.summary["epochs"] + 1))
