"""The arithmetic that ``precision: auto`` selects."""

import contextlib
import json

import pytest
import torch

from fer_sweep.errors import ConfigError
from fer_sweep.files import cache_dir
from fer_sweep.training import precision
from tests.training.conftest import small


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A processor that has bf16 and has not been measured; gives the file of measurements."""
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "_processor", lambda: "EPYC 9999")
    cache_dir().mkdir(parents=True)
    precision.cpu_gains_by_bf16.cache_clear()
    yield cache_dir() / "bf16.json"
    precision.cpu_gains_by_bf16.cache_clear()


@pytest.mark.parametrize(
    ("asked", "gains", "expected"),
    [("auto", True, "bf16"), ("auto", False, "fp32"), ("bf16", False, "bf16"), ("fp32", True, "fp32")],
)
def test_precision_is_as_asked_and_auto_is_as_measured(asked, gains, expected, monkeypatch):
    monkeypatch.setattr(precision, "cpu_gains_by_bf16", lambda: gains)
    assert precision.choose_precision(small("resnet18", precision=asked), torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("asked", "macos", "expected"),
    [("auto", 15, "fp32"), ("bf16", 14, "bf16"), ("fp32", 13, "fp32"), ("bf16", 13, None)],
)
def test_apples_gpu_has_fp32_unless_bf16_is_asked_for_and_macos_has_it(asked, macos, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: macos >= major)
    with pytest.raises(ConfigError, match="macOS 14") if expected is None else contextlib.nullcontext():
        assert precision.choose_precision(small(precision=asked), torch.device("mps")) == expected


@pytest.mark.parametrize(("speedup", "expected"), [(1.9, True), (1.1, False)])
def test_auto_measures_once_per_processor(speedup, expected, measured, monkeypatch):
    asked = []
    monkeypatch.setattr(precision, "bf16_speedup", lambda: asked.append(speedup) or speedup)
    measured.write_text('{"another": false}')
    assert precision.cpu_gains_by_bf16() is expected
    precision.cpu_gains_by_bf16.cache_clear()  # as in the next trial's process
    assert precision.cpu_gains_by_bf16() is expected
    assert asked == [speedup]
    own = {f"EPYC 9999, torch {torch.__version__}": expected}
    assert json.loads(measured.read_text()) == {"another": False, **own}, "another host's measurement is kept"


@pytest.mark.parametrize("damage", [lambda path: path.write_text("[1, 2]"), lambda path: path.mkdir()])
def test_damaged_measurement_is_repeated_and_need_not_be_kept(damage, measured, monkeypatch):
    monkeypatch.setattr(precision, "bf16_speedup", lambda: 2.0)
    damage(measured)
    assert precision.cpu_gains_by_bf16()


def test_processor_without_bf16_is_not_measured(measured, monkeypatch):
    monkeypatch.setattr(precision, "_processor", lambda: None)
    monkeypatch.delattr(precision, "bf16_speedup")
    assert not precision.cpu_gains_by_bf16()


def test_measurement_changes_neither_threads_nor_random_numbers():
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    assert precision.bf16_speedup() > 0.0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), generator)
