"""How GPUs and CPU cores are divided into slots, and how many cores control groups of both versions grant."""

import pytest

from fer_sweep.errors import InputError
from fer_sweep.worker.gpus import Gpu
from fer_sweep.worker.resources import control_groups, granted_cores
from fer_sweep.worker.slots import make_slots, usable_cores
from tests.support.control_groups import ControlTree

GPUS = (Gpu("GPU-a", "0", "H100", 80_000), Gpu("GPU-b", "1", "H100", 80_000))


def test_slots_sharing_a_gpu_have_names_of_their_own_and_see_one_device() -> None:
    slots = make_slots(GPUS, per_gpu=2)
    assert [slot.name for slot in slots] == ["gpu0/0", "gpu0/1", "gpu1/0", "gpu1/1"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]
    assert {slot.device for slot in slots} == {"cuda:0"}


@pytest.mark.parametrize(
    ("cores", "count", "threads"),
    [(8, 3, [3, 3, 2]), (8, 1, [8]), (8, None, [4, 4]), (1, None, [1])],
)
def test_cpu_slots_divide_every_core_and_see_no_gpu(
    cores: int, count: int | None, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.worker.slots.usable_cores", lambda: cores)
    slots = make_slots((), cpu_slots=count)
    assert [slot.threads for slot in slots] == threads
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots} == {""}


def test_granted_cores_count_where_nothing_enforces_them(monkeypatch: pytest.MonkeyPatch) -> None:
    here = usable_cores()
    for granted, cores in (("1", 1), ("10000", here)):
        monkeypatch.setenv("FERSWEEP_CORES", granted)
        assert usable_cores() == cores


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_cores_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERSWEEP_CORES", text)
    with pytest.raises(InputError, match=f"FERSWEEP_CORES={text}"):
        usable_cores()


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        ((), {"cpu_slots": 0}, "--slots 0"),
        ((), {"cpu_slots": 10_000}, "--slots 10000"),
        (GPUS, {"cpu_slots": 2}, "--gpus none"),
        (GPUS, {"per_gpu": 0}, "--per-gpu 0"),
    ],
)
def test_impossible_numbers_of_slots_are_refused(gpus: tuple[Gpu, ...], wanted: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_slots(gpus, **wanted)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/", id="a container with a namespace of its own"),
        pytest.param("/docker/4f1c", id="a container that is told the host's names and sees its own group alone"),
        pytest.param("/../other", id="a process outside its namespace's root"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_group_of_a_container_is_the_outermost_that_is_mounted(
    control_tree: ControlTree, version: int, path: str
) -> None:
    outermost = control_tree.group(version, "memory", "")
    control_tree.group(version, "memory", "other")
    control_tree.join(version, "memory", path)
    assert control_groups("memory") == [outermost]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("around", "own", "cores"),
    [(None, 100_000, 1.0), (150_000, None, 1.5), (50_000, 900_000, 0.5), (None, None, None)],
)
def test_the_tightest_quota_is_the_number_of_cores(
    control_tree: ControlTree, version: int, around: int | None, own: int | None, cores: float | None
) -> None:
    without = usable_cores()
    control_tree.join(version, "cpu", "/job/task")
    for path, quota in (("job", around), ("job/task", own)):
        group = control_tree.group(version, "cpu", path)
        if version == 2:
            (group / "cpu.max").write_text(f"{quota or 'max'} 100000\n")
        else:
            (group / "cpu.cfs_quota_us").write_text(f"{quota or -1}\n")
            (group / "cpu.cfs_period_us").write_text("100000\n")
    assert granted_cores() == cores
    assert usable_cores() == (1 if cores else without)
