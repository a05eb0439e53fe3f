"""The arithmetic that ``precision: auto`` comes to."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fer_sweep.config.trial import parse_trial
from fer_sweep.files import cache_dir
from fer_sweep.training import precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test here made this process believe of its processor is no other test's business."""
    believed = precision.cpu_gains_by_bf16  # a test may put another in its place
    believed.cache_clear()
    yield
    believed.cache_clear()


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that has bf16, newly met."""
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "_processor", lambda: "EPYC 9999")


@pytest.mark.parametrize(
    ("model", "asked", "gains", "expected"),
    [
        ("resnet18", "auto", True, "bf16"),
        ("resnet18", "auto", False, "fp32"),
        ("vit", "auto", True, "bf16"),
        ("vit", "bf16", False, "bf16"),
        ("simple_cnn", "fp32", True, "fp32"),
    ],
)
def test_what_is_asked_for_and_what_auto_comes_to(
    model: str, asked: str, gains: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_gains_by_bf16", lambda: gains)
    assert precision.choose_precision(parse_trial({"model": model, "precision": asked}), CPU) == expected


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize(("speedup", "expected"), [(1.9, True), (1.1, False), (0.3, False)])
def test_auto_measures_once_and_remembers(speedup: float, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(precision, "bf16_speedup", lambda: asked.append(speedup) or speedup)
    assert precision.cpu_gains_by_bf16() is expected
    precision.cpu_gains_by_bf16.cache_clear()  # as in the next trial's process
    assert precision.cpu_gains_by_bf16() is expected
    assert asked == [speedup]
    assert json.loads((cache_dir() / "bf16.json").read_text()) == {f"EPYC 9999, torch {torch.__version__}": expected}


@pytest.mark.usefixtures("processor")
def test_what_another_host_found_in_a_shared_cache_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda: 2.0)
    cache_dir().mkdir(parents=True, exist_ok=True)
    (cache_dir() / "bf16.json").write_text('{"another": false}')
    assert precision.cpu_gains_by_bf16()
    assert json.loads((cache_dir() / "bf16.json").read_text())["another"] is False


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "\0"])
def test_a_spoilt_memory_is_measured_again(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda: 2.0)
    cache_dir().mkdir(parents=True, exist_ok=True)
    (cache_dir() / "bf16.json").write_text(content)
    assert precision.cpu_gains_by_bf16()
    assert json.loads((cache_dir() / "bf16.json").read_text())


@pytest.mark.usefixtures("processor")
def test_a_cache_that_cannot_be_written_costs_the_measurement_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda: 2.0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "file" / "cache"))
    assert precision.cpu_gains_by_bf16()


def test_a_processor_without_bf16_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_processor", lambda: None)
    monkeypatch.delattr(precision, "bf16_speedup")
    assert not precision.cpu_gains_by_bf16()


def test_the_measurement_leaves_threads_and_generator_as_they_were() -> None:
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    assert precision.bf16_speedup() > 0.0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), generator)
