"""Control groups for tests: a real one, and folders that look like any."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_sweep.worker.resources import control_groups
from tests.support.processes import until


@contextlib.contextmanager
def memory_group(limit_mb: int) -> Iterator[Path]:
    """A group with that much memory and no swap, below the test's own; what is left in it at the end is killed."""
    group = _parent() / f"fersweep-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        # Version 1's memory.memsw counts memory and swap; the files of swap are absent where there is none.
        for file in ("memory.max", "memory.limit_in_bytes", "memory.swap.max", "memory.memsw.limit_in_bytes"):
            if (group / file).exists():
                (group / file).write_text("0" if file == "memory.swap.max" else str(limit_mb * 2**20))
        if (entered := run_in(group, ["true"])).returncode:
            pytest.skip(f"no process can be put into a control group here: {entered.stderr.strip()}")
        yield group
    finally:
        until(lambda: _is_removed(group))


def run_in(group: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a member of a group from its first instruction on."""
    return subprocess.run([*_entering(group), *words], capture_output=True, text=True)


@contextlib.contextmanager
def taken_in(group: Path, mb: int) -> Iterator[None]:
    """While the block runs, another process in the group has that much of its memory."""
    code = f"import sys; taken = b'x' * ({mb} << 20); print('taken', flush=True); sys.stdin.read()"
    words = [*_entering(group), sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "taken\n"
        yield
        assert other.poll() is None, "the kernel killed this process"


def _entering(group: Path) -> list[str]:
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]


def _parent() -> Path:
    """The group to make another in: the test's own, or the nearest around it that distributes memory."""
    for group in control_groups("memory") if sys.platform == "linux" else []:
        if (group / "memory.usage_in_bytes").exists():
            return group
        with contextlib.suppress(OSError):
            if "memory" in (group / "cgroup.subtree_control").read_text().split():
                return group
    pytest.skip("no control group can be made here: nothing mounted distributes memory")


def _is_removed(group: Path) -> bool:
    for pid in map(int, (group / "cgroup.procs").read_text().split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):  # a process ends a moment before its memory is released
        group.rmdir()
    return not group.exists()


class ControlTree:
    """Control groups as another host has them, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "cgroup"
        self.membership = folder / "membership"
        self.mount.mkdir(parents=True)

    def group(self, version: int, controller: str, path: str) -> Path:
        """Make a group, and those around it, with no files in them."""
        folder = (self.mount / controller if version == 1 else self.mount) / path
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def join(self, version: int, controller: str, path: str) -> None:
        """Make this process a member of a group, as the kernel would report it."""
        others = "12:pids:/elsewhere\n1:name=systemd:/elsewhere\n"
        own = f"4:{controller}:{path}\n0::/elsewhere\n" if version == 1 else f"0::{path}\n"
        self.membership.write_text(others + own)
