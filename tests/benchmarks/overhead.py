"""What there is around training: the start of a command, the time between two trials, the memory of one more trial.

Under an agent a trial is one epoch of a small SimpleCNN on 64 drawn faces, tracked online. Under the stock agents it is
what their users write: a program started anew for every trial (``fersweep train``), or a function in a process that has
torch imported. A script that only logs, without torch, shows what the stock agent costs by itself. The grid of seeds is
proposed in no time, so that nothing but the agents is measured.
"""

import contextlib
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.commands import FERSWEEP, SIMPLE_CNN, WANDB, agent_at_work, run
from tests.benchmarks.rows import Row
from tests.support.processes import descendants, private_mb, until
from tests.support.standin.server import StandIn

TRIALS = 6
TINY = {"model": "simple_cnn", "data": "synthetic", "train_samples": 64, "channels": 4, "hidden": 8, "batch_size": 64}
STOCK = [sys.executable, "-m", "tests.benchmarks.stock"]
TRAIN = ["fersweep", "train", "${args}"]
AGENTS = {
    "fersweep": ([*FERSWEEP, "agent", "SWEEP", "--gpus", "none", "--slots", "1"], TRAIN),
    "stock `wandb agent`, `fersweep train`": ([*WANDB, "agent", "SWEEP"], TRAIN),
    "stock `wandb agent`, a script that only logs": ([*WANDB, "agent", "SWEEP"], [*STOCK, "logs"]),
    "stock `wandb.agent(function=)`": ([*STOCK, "function", "SWEEP"], TRAIN),
}
"""Each agent's words, and the program of its sweep."""


def seconds(program: Sequence[str], *words: str, online: bool = False) -> float:
    """Wall time of a command; with a W&B server to log in to if ``online``."""
    with StandIn() if online else contextlib.nullcontext() as server:
        login = {**server.environment, "WANDB_MODE": "online"} if server else {}
        began = time.perf_counter()
        run(words, program, **login)
        return time.perf_counter() - began


def seconds_of_create(*, online: bool) -> float:
    return seconds(FERSWEEP, "create", str(SIMPLE_CNN), online=online)


def seconds_of_wandb_sweep(_: int) -> float:
    return seconds(WANDB, "sweep", str(SIMPLE_CNN), online=True)


def seconds_a_trial(name: str) -> float:
    """The median time from one run's end on the server to the next one's, under an agent."""
    agent, program = AGENTS[name]
    parameters: dict[str, Any] = {key: {"value": value} for key, value in {**TINY, "epochs": 1}.items()}
    parameters["seed"] = {"values": list(range(TRIALS))}
    with agent_at_work(agent, program, parameters, method="grid") as (server, sweep, working):
        output, _ = working.communicate()
        if working.returncode or [server.runs[run].state for run in sweep.run_ids] != ["finished"] * TRIALS:
            raise SystemExit(f"{name}: {working.returncode}\n{output}\n{server.dump()}")
        ends = [r.at for r in server.requests if r.operation == "file_stream" and r.variables.get("complete")]
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))


def seconds_between_trials(mode: str) -> float:
    """From one trial's end to the first step of the next one in its slot, with W&B tracking in ``mode``."""
    with StandIn() if mode == "online" else contextlib.nullcontext() as server:
        login = server.environment if server else {}
        said = run([*_run_of_tiny_trials(epochs=1), "--count=8", "--slots=1"], **login, WANDB_MODE=mode).stderr
    found = re.search(r"first step: ([0-9.]+) s", said)
    assert found, said
    return float(found[1])


def forked_mb() -> float:
    """Megabytes that a trial of a running agent holds for itself; the median of its slots."""
    slots = os.cpu_count() or 1
    words = [*_run_of_tiny_trials(epochs=200), "--gpus=none", f"--slots={slots}"]
    with tempfile.TemporaryDirectory() as home, _started(words, home) as agent:
        until(lambda: len(list(Path(home).glob("sweeps/*/trials/*/history.jsonl"))) == slots)
        trials = [pid for pid in descendants(agent.pid) if _log_of(pid) == "trial.log"]
        return statistics.median(private_mb(pid) for pid in trials)


def cold_mb() -> float:
    """Megabytes that the same trial holds in a process of its own (``fersweep train``)."""
    given = {**TINY, "epochs": 200}
    words = ["train", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]
    with tempfile.TemporaryDirectory() as home, _started([*words, f"--folder={home}/trial"], home) as trainer:
        until(Path(home, "trial", "history.jsonl").exists)
        return private_mb(trainer.pid)


def _run_of_tiny_trials(epochs: int) -> list[str]:
    fixed = [f"--set={name}={value}" for name, value in {**TINY, "epochs": epochs}.items()]
    return ["run", str(SIMPLE_CNN), "--search=optuna", *fixed]


@contextlib.contextmanager
def _started(words: Sequence[str], home: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "FERSWEEP_HOME": home, "WANDB_MODE": "disabled"}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen([*FERSWEEP, *words], env=environment, stdout=nowhere, stderr=nowhere) as started:
        try:
            yield started
        finally:
            started.kill()  # its trials end with it


def _log_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/fd/1").readlink().name
    return ""


def _between(how: str, mode: str) -> Row:
    title = f"end of a trial to the next one's first step, {how}, s"
    return Row(title, {"fersweep": lambda _: seconds_between_trials(mode)}, "less")


ROWS = {
    "help": Row(
        "`--help`, s",
        {"fersweep": lambda _: seconds(FERSWEEP, "--help"), "`wandb`": lambda _: seconds(WANDB, "--help")},
        "less",
    ),
    "create": Row(
        "`fersweep create sweeps/simple_cnn.yaml` without a server, s",
        {"fersweep": lambda _: seconds_of_create(online=False), "`wandb sweep` on a server": seconds_of_wandb_sweep},
        "less",
    ),
    "create-online": Row(
        "the same on a W&B server (on loopback), s",
        {"fersweep": lambda _: seconds_of_create(online=True), "`wandb sweep`": seconds_of_wandb_sweep},
        "less",
    ),
    "between": _between("not tracked", "disabled"),
    "between-offline": _between("tracked by wandb offline", "offline"),
    "between-online": _between("tracked online (a server on loopback)", "online"),
    "agents": Row(
        "a trivial trial under an agent, from one run's end on the server to the next one's, s",
        {name: lambda _, name=name: seconds_a_trial(name) for name in AGENTS},
        "less",
        is_slow=True,
    ),
    "memory": Row(
        "private memory of a further trial, MB",
        {"fersweep": lambda _: forked_mb(), "a process of its own": lambda _: cold_mb()},
        "less",
    ),
}
