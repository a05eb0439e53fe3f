"""Every module imports on macOS and on Windows, which are imitated here in a process of its own."""

import os
import subprocess
import sys

import pytest

from fer_sweep.errors import InputError
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.starters import starter_for
from tests.conftest import REPOSITORY

# Imports everything once as it is, so that other packages and the standard library have chosen this platform; then
# fersweep alone again, on another one. Prints how many modules were imported on which.
IMPORT_ALL = """
import importlib, os, pkgutil, select, signal, socket, sys
import fer_sweep

def import_all():
    names = [module.name for module in pkgutil.walk_packages(fer_sweep.__path__, "fer_sweep.")]
    for name in names:
        importlib.import_module(name)
    return len(names)

import_all()
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty"):
    sys.modules[name] = None  # an import raises ModuleNotFoundError
for platform in ("darwin", "win32"):
    for name in [name for name in sys.modules if name.partition(".")[0] == "fer_sweep"]:
        del sys.modules[name]
    sys.platform = platform
    if platform == "win32":
        for module, lacking in UNIX_ONLY.items():
            for name in lacking.split():
                vars(sys.modules[module]).pop(name, None)
        signal.SIGBREAK = 21
    importlib.import_module("fer_sweep")
    print(platform, import_all())
"""
UNIX_ONLY = {
    "os": "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK WNOHANG chown fdatasync fork getegid geteuid getgid getloadavg "
    "getpgid getpgrp getpriority getuid killpg mkfifo nice pidfd_open posix_fadvise pread pwrite register_at_fork "
    "sched_getaffinity sched_setaffinity sendfile set_blocking setpgid setsid statvfs sync sysconf uname wait",
    "signal": "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIG_BLOCK "
    "SIG_SETMASK SIG_UNBLOCK alarm pthread_kill pthread_sigmask setitimer sigwait",
    "select": "POLLERR POLLIN epoll poll",
    "socket": "AF_UNIX",
}


def test_every_module_imports_on_macos_and_windows() -> None:
    program = f"UNIX_ONLY = {UNIX_ONLY}\n{IMPORT_ALL}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (first, on_macos), (second, on_windows) = (line.split() for line in done.stdout.splitlines())
    assert (first, second) == ("darwin", "win32")
    assert on_macos == on_windows
    assert int(on_macos) > 150


@pytest.mark.parametrize(
    ("platform", "device", "asked", "expected"),
    [
        ("linux", "cuda:0", "", "ForkserverStarter"),
        ("linux", "cpu", "spawn", "SpawnStarter"),
        ("darwin", "cpu", "", "ForkserverStarter"),
        ("darwin", "mps", "", "SpawnStarter"),
        ("darwin", "mps", "forkserver", "ForkserverStarter"),
        ("win32", "cpu", "", "SpawnStarter"),
        ("win32", "cpu", "forkserver", "Windows has no fork"),
        ("linux", "cpu", "fork", "FERSWEEP_START=fork"),
    ],
)
def test_the_platform_the_devices_and_fersweep_start_choose_the_starter(
    monkeypatch: pytest.MonkeyPatch, platform: str, device: str, asked: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("FERSWEEP_START", asked)
    try:
        found = type(starter_for([Slot("0", device, 1)])).__name__
    except InputError as error:
        assert "spawn" in (error.hint or "")
        found = str(error)
    assert expected in found
