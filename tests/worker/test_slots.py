"""Which GPUs are found and chosen, how they and CPU cores are divided into slots, and how many cores are granted."""

import contextlib
import platform
import sys
from unittest.mock import Mock

import pynvml
import pytest

from fer_sweep.errors import InputError
from fer_sweep.worker.resources import control_groups, granted_cores
from fer_sweep.worker.slots import Gpu, choose, discover, free_mb, gpus_here, make_slots, one_slot, usable_cores

GPUS = (Gpu("GPU-a", "0", "H100", 80_000), Gpu("GPU-b", "1", "H100", 80_000))


def test_slots_sharing_a_gpu_have_names_of_their_own_and_see_one_device():
    slots = make_slots(GPUS, per_gpu=2)
    assert [slot.name for slot in slots] == ["gpu0/0", "gpu0/1", "gpu1/0", "gpu1/1"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]
    assert {slot.device for slot in slots} == {"cuda:0"}


@pytest.mark.parametrize(
    ("cores", "count", "threads"),
    [(8, 3, [3, 3, 2]), (8, 1, [8]), (8, None, [4, 4]), (1, None, [1])],
)
def test_cpu_slots_divide_every_core_and_see_no_gpu(cores, count, threads, monkeypatch):
    monkeypatch.setattr("fer_sweep.worker.slots.usable_cores", lambda: cores)
    slots = make_slots((), cpu_slots=count)
    assert [slot.threads for slot in slots] == threads
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots} == {""}


def test_granted_cores_count_where_nothing_enforces_them(monkeypatch):
    here = usable_cores()
    for granted, cores in (("1", 1), ("10000", here)):
        monkeypatch.setenv("FERSWEEP_CORES", granted)
        assert usable_cores() == cores


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_cores_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("FERSWEEP_CORES", text)
    with pytest.raises(InputError, match=f"FERSWEEP_CORES={text}"):
        usable_cores()


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        ((), {"cpu_slots": 0}, "slots 0"),
        ((), {"cpu_slots": 10_000}, "slots 10000"),
        (GPUS, {"cpu_slots": 2}, "gpus none"),
        (GPUS, {"per_gpu": 0}, "per_gpu 0"),
    ],
)
def test_impossible_numbers_of_slots_are_refused(gpus, wanted, message):
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
def test_the_group_of_a_container_is_the_outermost_that_is_mounted(control_tree, version, path):
    outermost = control_tree.group(version, "memory", "")
    control_tree.group(version, "memory", "other")
    control_tree.join(version, "memory", path)
    assert control_groups("memory") == [outermost]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("around", "own", "cores"),
    [(None, 100_000, 1.0), (150_000, None, 1.5), (50_000, 900_000, 0.5), (None, None, None)],
)
def test_the_tightest_quota_is_the_number_of_cores(control_tree, version, around, own, cores):
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


FOUND = (
    Gpu("GPU-aaaa1111-0000", "0", "NVIDIA H100", 80_000),
    Gpu("GPU-aaaa2222-0000", "1", "NVIDIA H100", 80_000),
    Gpu("MIG-bbbb0000-0000", "2:0", "NVIDIA H100 MIG 3g.40gb", 40_000),
    Gpu("MIG-bbbb1111-0000", "2:1", "NVIDIA H100 MIG 3g.40gb", 40_000),
)


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("auto", ["0", "1", "2:0", "2:1"]),
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        (" 0 , 2:1 ", ["0", "2:1"]),
        ("GPU-aaaa2222-0000", ["1"]),
        ("GPU-aaaa1", ["0"]),
        ("MIG-bbbb1111-0000", ["2:1"]),
    ],
)
def test_gpus_are_chosen_by_number_uuid_and_mig_id(wanted, indices):
    assert [gpu.index for gpu in choose(wanted, FOUND)] == indices
    assert gpus_here("none") == ()


@pytest.mark.parametrize("wanted", ["7", "GPU-", "GPU-aaaa", "0,0", "", "0,,1", "all", "-1", "GPU-cccc"])
def test_unknown_gpus_are_refused_and_the_known_ones_named(wanted):
    with pytest.raises(InputError) as caught:
        choose(wanted, FOUND)
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
def test_numbers_count_within_cuda_visible_devices_which_end_at_the_first_unknown_entry(wanted, visible, indices):
    with pytest.raises(InputError) if indices is None else contextlib.nullcontext():
        assert [gpu.index for gpu in choose(wanted, FOUND, visible=visible)] == indices


def without_nvidia(system, machine, monkeypatch):
    """A host without NVIDIA's driver, as Python describes it."""
    error = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monkeypatch.setattr(pynvml, "nvmlInit", Mock(side_effect=error))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_mac_has_its_gpu_as_a_slot_which_shares_the_hosts_memory(monkeypatch):
    without_nvidia("darwin", "arm64", monkeypatch)
    slots = make_slots(gpus_here("auto"), per_gpu=2)
    assert [slot.name for slot in slots] == ["mps/0", "mps/1"]
    assert slots[0].environment == slots[1].environment == {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}
    assert free_mb(slots[0]) is not None
    assert [one_slot(word, None).device for word in ("auto", "mps", "cpu")] == ["mps", "mps", "cpu"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_here("auto") == ()
    assert [gpu.index for gpu in gpus_here("mps")] == ["mps"]


@pytest.mark.parametrize(("system", "machine"), [("darwin", "x86_64"), ("linux", "arm64")])
def test_elsewhere_mps_is_refused_with_what_it_needs(system, machine, monkeypatch):
    without_nvidia(system, machine, monkeypatch)
    assert gpus_here("auto") == ()
    with pytest.raises(InputError, match="unknown GPU 'mps'") as caught:
        gpus_here("mps")
    assert "Apple silicon" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("init", "lost", "found", "says"),
    [
        pytest.param(None, None, ["0", "1"], [], id="a host with two GPUs"),
        pytest.param(None, pynvml.NVML_ERROR_GPU_IS_LOST, ["1"], ["GPU 0 is left out: GPU is lost"], id="one is lost"),
        pytest.param(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, None, [], [], id="no driver"),
        pytest.param(
            pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
            None,
            [],
            ["no GPU can be used, the NVIDIA driver reports: RM has detected an NVML/RM version mismatch."],
            id="a driver that was updated without a reboot",
        ),
    ],
)
def test_a_gpu_or_driver_that_fails_is_named_and_the_other_gpus_are_found(init, lost, found, says, monkeypatch):
    nvml = {
        "nvmlInit": Mock(side_effect=init and pynvml.NVMLError(init)),
        "nvmlShutdown": Mock(),
        "nvmlDeviceGetCount": Mock(return_value=2),
        "nvmlDeviceGetHandleByIndex": Mock(side_effect=[pynvml.NVMLError(lost) if lost else 0, 1]),
        "nvmlDeviceGetMigMode": Mock(side_effect=pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)),
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetName": lambda handle: "H100",
        "nvmlDeviceGetMemoryInfo": Mock(return_value=Mock(total=80 * 2**30)),
    }
    for name, function in nvml.items():
        monkeypatch.setattr(pynvml, name, function)
    said: list[str] = []
    assert [gpu.index for gpu in discover(said.append)] == found
    assert said == says
