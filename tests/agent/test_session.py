"""What an agent prepares for a sweep before its first trial."""

from typing import Any

import pytest

from fer_sweep.agent.session import architectures
from fer_sweep.config.sweep_file import load_sweep_file, parse_sweep
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"value": "vit"}, ("vit",)),
        ({"values": ["resnet18", "simple_cnn"]}, ("simple_cnn", "resnet18")),
        (None, ("simple_cnn", "deeper_cnn", "resnet18", "vit")),
    ],
)
def test_the_forkserver_imports_what_the_sweep_can_ask_for(
    model: dict[str, Any] | None, expected: tuple[str, ...]
) -> None:
    parameters: dict[str, Any] = {"lr": {"value": 0.1}} | ({"model": model} if model else {})
    assert architectures(parse_sweep({"method": "grid", "parameters": parameters})) == expected


@pytest.mark.parametrize("name", ["simple_cnn", "deeper_cnn", "resnet", "vit", "multi_objective"])
def test_a_shipped_sweep_asks_for_one_architecture(name: str) -> None:
    assert len(architectures(load_sweep_file(REPOSITORY / "sweeps" / f"{name}.yaml"))) == 1
