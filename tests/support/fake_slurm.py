"""A fake Slurm: ``sbatch``, ``squeue``, ``scancel`` and ``scontrol`` on PATH, with their state in files.

An element of a job array is a folder ``JOB_N``. A supervisor process runs its batch script for real, and again when it
is requeued.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAM = (sys.executable, "-S", "-m", "tests.support.fake_slurm")


class FakeSlurm:
    """The cluster, for a test."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._root = folder / "bin", folder / "jobs"
        self._root.mkdir(parents=True)
        self._programs.mkdir()
        for name in PROGRAMS:
            self.program(name, f'exec {" ".join(PROGRAM)} {name} "$@"')
        self.environment = {"FAKE_SLURM": str(self._root), "PATH": f"{self._programs}:{os.environ['PATH']}"}

    def program(self, name: str, does: str) -> None:
        """Put a shell script on PATH."""
        (self._programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (self._programs / name).chmod(0o755)

    def signal_script(self, agent: str, number: signal.Signals) -> None:
        """Signal the batch script alone, as ``sbatch --signal=B:`` does."""
        os.kill(_pid(self._root / agent), number)

    def end_and_requeue(self, agent: str, number: signal.Signals) -> None:
        """End all that runs of an element, with SIGTERM for a preemption, with SIGKILL for a lost node."""
        (self._root / agent / "requeued").touch()
        os.killpg(_pid(self._root / agent), number)

    def close(self) -> None:
        """End every job."""
        for element in self._root.glob("*_*"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(_pid(element), signal.SIGKILL)
            _until((element / "ended").exists)


def sbatch(root: Path, words: list[str]) -> None:
    options = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    job, script = 100 * (1 + len(list(root.glob("*_0")))), sys.stdin.read()
    for number in range(int(options["array"].partition("%")[0].removeprefix("0-")) + 1):
        element = root / f"{job}_{number}"
        element.mkdir()
        (element / "script").write_text(script)
        _write(element / "state", "PENDING||Resources")
        log = options["output"].replace("%A", str(job)).replace("%a", str(number)).replace("%%", "%")
        words = [*PROGRAM, "supervise", str(element), log, options["chdir"]]
        silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        subprocess.Popen(words, start_new_session=True, **silent)
    print(f"{job};tests")


def supervise(root: Path, words: list[str]) -> None:
    element, log, folder = Path(words[0]), words[1], words[2]
    job, _, number = element.name.partition("_")
    own = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": number, "SLURM_JOB_ID": element.name}
    for restarts in itertools.count():
        node = f"n{restarts + 1}"
        environment = {**os.environ, **own, "SLURM_RESTART_COUNT": str(restarts), "SLURMD_NODENAME": node}
        with Path(log).open("ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            words = ["bash", str(element / "script")]
            process = subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True, **streams)
        _write(element / "pid", str(process.pid))
        _write(element / "state", f"RUNNING|{node}|None")
        code = process.wait()
        if not (element / "requeued").exists():
            break
        (element / "requeued").unlink()
    state = "CANCELLED" if (element / "cancelled").exists() else "FAILED" if code else "COMPLETED"
    _write(element / "state", f"{state}||None")
    (element / "ended").touch()


def squeue(root: Path, words: list[str]) -> None:
    (jobs,) = [word.removeprefix("--jobs=").split(",") for word in words if word.startswith("--jobs=")]
    for element in (element for job in jobs for element in root.glob(f"{job}_*")):
        print(f"{element.name}|{(element / 'state').read_text()}")


def scancel(root: Path, words: list[str]) -> None:
    element = root / words[-1]
    if "--batch" in words:
        assert "--signal=TERM" in words
        os.kill(_pid(element), signal.SIGTERM)
    else:  # as where KillWait is zero
        (element / "cancelled").touch()
        os.killpg(_pid(element), signal.SIGKILL)


def scontrol(root: Path, words: list[str]) -> None:
    requeue, job = words
    assert requeue == "requeue"
    (root / job / "requeued").touch()


PROGRAMS = {"sbatch": sbatch, "squeue": squeue, "scancel": scancel, "scontrol": scontrol, "supervise": supervise}


def _pid(element: Path) -> int:
    _until((element / "pid").exists)  # the agent may be faster than the supervisor
    return int((element / "pid").read_text())


def _until(true: Callable[[], bool]) -> None:
    # Not that of tests.support.processes, which imports psutil: the programs start without site-packages.
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def _write(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](Path(os.environ["FAKE_SLURM"]), sys.argv[2:])
