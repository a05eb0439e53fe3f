"""Control groups of both versions: which ones limit a process, and how many cores they grant."""

import os
from pathlib import Path

import pytest

from fer_sweep.worker.control_groups import control_groups, granted_cores
from fer_sweep.worker.slots import usable_cores
from tests.support.control_groups import ControlTree


def test_the_groups_of_a_process_are_its_own_and_all_around_it(control_tree: ControlTree) -> None:
    own = control_tree.group(2, "memory", "system.slice/sweep.service")
    control_tree.join(2, "memory", "/system.slice/sweep.service")
    assert control_groups("memory") == [own, own.parent, control_tree.mount]


def test_a_controller_of_version_1_has_a_tree_of_its_own(control_tree: ControlTree) -> None:
    own = control_tree.group(1, "memory", "user/1")
    control_tree.group(1, "cpu", "user/2")
    control_tree.join(1, "cpuset,memory", "/user/1")
    assert control_groups("memory") == [own, own.parent, control_tree.mount / "memory"]


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


def test_a_host_without_a_membership_file_may_still_have_limits(control_tree: ControlTree) -> None:
    assert control_groups("memory") == [control_tree.mount]


def set_quota(group: Path, version: int, quota: int | None) -> None:
    if version == 2:
        (group / "cpu.max").write_text(f"{quota or 'max'} 100000\n")
    else:
        (group / "cpu.cfs_quota_us").write_text(f"{quota or -1}\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("around", "own", "cores"),
    [
        pytest.param(None, 100_000, 1.0, id="its own"),
        pytest.param(150_000, None, 1.5, id="around it"),
        pytest.param(50_000, 900_000, 0.5, id="tightest"),
    ],
)
def test_the_tightest_quota_is_the_number_of_cores(
    control_tree: ControlTree, version: int, around: int | None, own: int | None, cores: float
) -> None:
    control_tree.join(version, "cpu", "/job/task")
    for path, quota in (("job", around), ("job/task", own)):
        set_quota(control_tree.group(version, "cpu", path), version, quota)
    assert granted_cores() == cores
    assert usable_cores() == 1


def test_without_a_quota_the_affinity_counts(control_tree: ControlTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FERSWEEP_CORES", raising=False)
    set_quota(control_tree.group(2, "cpu", "job"), 2, None)
    control_tree.join(2, "cpu", "/job")
    assert granted_cores() is None
    assert usable_cores() == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
