"""Choosing GPUs is pure; what NVML shows on this host is looked at once."""

import pytest

from fer_sweep.errors import InputError
from fer_sweep.worker.gpus import Gpu, choose, discover

GPUS = (
    Gpu("GPU-aaaa1111-0000", "0", "NVIDIA H100", 80_000),
    Gpu("GPU-aaaa2222-0000", "1", "NVIDIA H100", 80_000),
    Gpu("MIG-bbbb0000-0000", "2:0", "NVIDIA H100 MIG 3g.40gb", 40_000),
    Gpu("MIG-bbbb1111-0000", "2:1", "NVIDIA H100 MIG 3g.40gb", 40_000),
)


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("auto", ["0", "1", "2:0", "2:1"]),
        ("none", []),
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        (" 0 , 2:1 ", ["0", "2:1"]),
        ("GPU-aaaa2222-0000", ["1"]),
        ("GPU-aaaa1", ["0"]),
        ("MIG-bbbb1111-0000", ["2:1"]),
    ],
)
def test_gpus_are_chosen_by_number_uuid_and_mig_id(wanted: str, indices: list[str]) -> None:
    assert [gpu.index for gpu in choose(wanted, GPUS)] == indices


@pytest.mark.parametrize("wanted", ["7", "GPU-", "GPU-aaaa", "0,0", "", "0,,1", "all", "-1", "GPU-cccc"])
def test_unknown_gpus_are_refused_and_the_known_ones_named(wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        choose(wanted, GPUS)
    assert wanted in str(caught.value)
    assert caught.value.exit_code == 2


def test_numbers_count_within_cuda_visible_devices() -> None:
    assert [gpu.index for gpu in choose("0", GPUS, visible="1,0")] == ["1"]
    assert [gpu.index for gpu in choose("auto", GPUS, visible="GPU-aaaa2222-0000")] == ["1"]


def test_cuda_visible_devices_ends_at_its_first_unknown_entry() -> None:
    assert choose("auto", GPUS, visible="") == ()
    assert [gpu.index for gpu in choose("auto", GPUS, visible="0,9,1")] == ["0"]
    with pytest.raises(InputError):
        choose("1", GPUS, visible="0,9,1")


def test_discovery_needs_no_driver_and_imports_no_framework() -> None:
    for gpu in discover():
        assert gpu.uuid.startswith(("GPU-", "MIG-"))
        assert gpu.memory_mb > 0
