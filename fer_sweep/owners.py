"""Who holds a trial: names of processes that can be told alive or dead from the same host."""

import contextlib
import functools
import hashlib
import os
import signal
import socket
import sys
from pathlib import Path


def this_process() -> str:
    """A name no other process has, ever: host, process id, and the process's start time."""
    return _name(os.getpid())


def on_this_host() -> str:
    """What the name of every process of this host begins with."""
    return f"{_host()}:"


def is_dead(owner: str) -> bool:
    """Whether ``owner`` is surely gone: it ran on this host, and its process is no longer there.

    False for a process of another host or container, of which nothing can be said from here.
    """
    parts = owner.rsplit(":", 2)
    if sys.platform == "win32":  # there, a signal 0 would end the process
        return False
    if len(parts) != 3 or parts[0] != _host() or not parts[1].isdigit():
        return False
    pid, started = int(parts[1]), parts[2]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return _start_time(pid) != started


def kill(owner: str) -> None:
    """End ``owner`` at once, if it is a process of this host that still runs."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host != _host() or not rest.isdigit() or sys.platform != "linux":
        return
    pid = int(rest)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(pid)  # from here on the number cannot come to mean another process
        try:
            if owner == _name(pid):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _name(pid: int) -> str:
    return f"{_host()}:{pid}:{_start_time(pid)}"


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
    """Clock ticks since boot; "0" where the system does not tell, and then only the id counts."""
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
