"""Who holds a trial: names of processes that can be told alive or dead from the same host."""

import functools
import hashlib
import os
import socket
from pathlib import Path

import psutil


def this_process() -> str:
    """A name that no other process ever has: host, process id, and the process's start time."""
    pid = os.getpid()
    return f"{_host()}:{pid}:{_start_time(pid)}"


def on_this_host() -> str:
    """The prefix of the names of all processes of this host."""
    return f"{_host()}:"


def host_of(owner: str) -> str:
    """The name of the host of a process."""
    return owner.rpartition("/")[0] or owner


def is_dead(owner: str) -> bool:
    """Whether ``owner`` is surely dead: it ran on this host, and its process does not exist any more.

    False for a process of another host or container, whose state is unknown here.
    """
    parts = owner.rsplit(":", 2)
    if len(parts) != 3 or parts[0] != _host() or not parts[1].isdigit():
        return False
    pid = int(parts[1])
    return not psutil.pid_exists(pid) or _start_time(pid) != parts[2]


@functools.cache
def _host() -> str:
    # Two containers may share a name, but not the namespace of their process ids; a reboot makes a new host.
    marks = [_read(Path("/proc/sys/kernel/random/boot_id"))]
    try:
        marks.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        marks.append("")
    return f"{socket.gethostname()}/{hashlib.sha256(''.join(marks).encode()).hexdigest()[:12]}"


def _start_time(pid: int) -> str:
    """Clock ticks since boot, "gone" for a zombie; "0" outside Linux, where only the id counts.

    psutil's create_time() is in wall-clock seconds: it moves when the clock is set, and then a live owner looks dead.
    """
    # The command's name, in parentheses, may hold spaces; the start time is field 22 of the line, 20 after it.
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    if not fields:
        return "0"
    return "gone" if fields[0] in "ZX" else fields[19]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
