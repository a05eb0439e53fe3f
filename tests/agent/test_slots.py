"""How GPUs and CPU cores are divided into slots."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.errors import InputError
from fer_sweep.worker.gpus import Gpu
from fer_sweep.worker.slots import make_slots, usable_cores

GPUS = (Gpu("GPU-a", "0", "H100", 80_000), Gpu("GPU-b", "1", "H100", 80_000))


def test_slots_sharing_a_gpu_have_names_of_their_own_and_see_one_device() -> None:
    slots = make_slots(GPUS, per_gpu=2)
    assert [slot.name for slot in slots] == ["gpu0/0", "gpu0/1", "gpu1/0", "gpu1/1"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]
    assert {slot.device for slot in slots} == {"cuda:0"}


@settings(derandomize=True, deadline=None)
@given(st.data())
def test_cpu_slots_divide_every_core_and_see_no_gpu(data: st.DataObject) -> None:
    cores = usable_cores()
    count = data.draw(st.integers(1, cores))
    slots = make_slots((), cpu_slots=count)
    assert len(slots) == count
    assert sum(slot.threads for slot in slots) == cores
    assert max(slot.threads for slot in slots) - min(slot.threads for slot in slots) <= 1
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots} == {""}


def test_granted_cores_count_where_nothing_enforces_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERSWEEP_CORES", "1")
    assert [slot.threads for slot in make_slots(())] == [1]
    monkeypatch.delenv("FERSWEEP_CORES")
    here = usable_cores()
    monkeypatch.setenv("FERSWEEP_CORES", "10000")
    assert usable_cores() == here


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_cores_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERSWEEP_CORES", text)
    with pytest.raises(InputError, match=f"FERSWEEP_CORES={text}"):
        usable_cores()


def test_without_a_number_the_cpu_has_at_least_one_slot() -> None:
    assert len(make_slots(())) >= 1


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        ((), {"cpu_slots": 0}, "--slots 0"),
        ((), {"cpu_slots": -1}, "--slots -1"),
        ((), {"cpu_slots": 10_000}, "--slots 10000"),
        (GPUS, {"cpu_slots": 2}, "--gpus none"),
        (GPUS, {"per_gpu": 0}, "--per-gpu 0"),
    ],
)
def test_impossible_numbers_of_slots_are_refused(gpus: tuple[Gpu, ...], wanted: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_slots(gpus, **wanted)
