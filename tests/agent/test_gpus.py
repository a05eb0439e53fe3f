"""Which GPUs `--gpus` and CUDA_VISIBLE_DEVICES choose."""

import contextlib

import pytest

from fer_sweep.errors import InputError
from fer_sweep.worker.gpus import Gpu, choose

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


@pytest.mark.parametrize(
    ("wanted", "visible", "indices"),
    [
        ("0", "1,0", ["1"]),
        ("auto", "GPU-aaaa2222-0000", ["1"]),
        ("auto", "", []),
        ("auto", "0,9,1", ["0"]),
        ("1", "0,9,1", None),
    ],
)
def test_numbers_count_within_cuda_visible_devices_which_end_at_the_first_unknown_entry(
    wanted: str, visible: str, indices: list[str] | None
) -> None:
    with pytest.raises(InputError) if indices is None else contextlib.nullcontext():
        assert [gpu.index for gpu in choose(wanted, GPUS, visible=visible)] == indices
