"""What there is around training: starting a command, ending and proposing a trial, the memory of one more.

Under an agent a trial is one epoch of a small SimpleCNN on 64 drawn faces, tracked online. Under the stock agents it is
what their users write: a program started anew for every trial (``fersweep train``), or a function in a process that has
torch imported. A script that only logs, without torch, shows what the stock agent costs by itself. The grid of seeds is
proposed in no time, so that nothing but the agents is measured.

The time of ``next_trial`` in a sweep that already has many trials is compared with Optuna as one uses it by itself:
``study.ask`` with its TPE on its own SQLite tables, over the same trials and the fifteen parameters of simple_cnn.yaml.
"""

import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_sweep_file, parse_sweep
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search import study
from fer_sweep.search.axes import axes_of
from fer_sweep.search.embedded import EmbeddedSearch, create_sweep
from fer_sweep.search.sampling import RandomProposer
from fer_sweep.search.turns import MOST_TRIALS
from fer_sweep.store.trials import Lease, ledger_of
from tests.benchmarks.commands import FERSWEEP, SIMPLE_CNN, WANDB, agent_at_work, run
from tests.benchmarks.rows import Row
from tests.support.processes import descendants, private_mb, until
from tests.support.searches import database_at, embedded_search
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
STARTERS = ("spawn", "forkserver")
ASKED = 8
"""Trials asked for; the median counts, after a first one that reads what is there."""


def command(program: Sequence[str], *words: str, online: bool = False) -> Callable[[int], float]:
    """Measures the wall time of a command; with a W&B server to log in to if ``online``."""

    def seconds(_: int) -> float:
        with StandIn() if online else contextlib.nullcontext() as server:
            login = {**server.environment, "WANDB_MODE": "online"} if server else {}
            began = time.perf_counter()
            run(words, program, **login)
            return time.perf_counter() - began

    return seconds


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
    return _seconds_said(said)


def seconds_between_long_trials(starter: str) -> float:
    """The same by one starter, untracked, after trials of some seconds: by their ends a spare is warm."""
    parameters: dict[str, Any] = {key: {"value": value} for key, value in {**TINY, "epochs": 100}.items()}
    parameters["seed"] = {"values": list(range(TRIALS))}
    sweep = {"program": "fersweep", "method": "grid", "parameters": parameters}
    sweep["metric"] = {"name": "best_val_acc", "goal": "maximize"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sweep.yaml")
        file.write_text(json.dumps(sweep))
        words = ["run", str(file), "--search=optuna", "--gpus=none", "--slots=1"]
        return _seconds_said(run(words, FERSWEEP_START=starter).stderr)


def _seconds_said(said: str) -> float:
    found = re.search(r"first step: ([0-9.]+) s", said)
    assert found, said
    return float(found[1])


def ms_of_next_trial(trials: int) -> float:
    """Milliseconds of ``next_trial`` with so many trials ended."""
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/sweeps.db"
        capped = parse_sweep({**load_sweep_file(SIMPLE_CNN)[0].to_plain(), "run_cap": 2 * trials})
        create_sweep(capped, sweep_id="cost", storage=storage, seed=0)

        def opened(asks: int) -> float:
            with contextlib.closing(embedded_search("cost", storage)) as search:
                return _median(asks, lambda: search.next_trial("cpu0"), lambda request: _end(search, request))

        with patch.object(study, "SAMPLER_DRAWS", 0):  # filled from the prior, in a hundredth of the time
            opened(trials)
        return opened(ASKED)


def ms_of_next_turn(trials: int) -> float:
    """Milliseconds of ``next_trial`` where freeze-thaw decides, with so many trials paused after different epochs."""
    plain = load_sweep_file(SIMPLE_CNN)[0].to_plain()
    del plain["early_terminate"]
    sweep = parse_sweep({**plain, "run_cap": trials + ASKED if trials < MOST_TRIALS else trials})
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/sweeps.db"
        create_sweep(sweep, sweep_id="cost", storage=storage, seed=0)
        database = database_at(storage)
        with ledger_of(database, "cost", write=True) as ledger:
            drawn = RandomProposer(Space.from_sweep(sweep), seed=1)
            for number in range(trials):
                proposal = drawn.propose(number, ledger)
                assert proposal is not None
                given = {"identity": proposal.identity, "config": proposal.config, "parameters": proposal.values}
                ledger.add(number, **given, memo=None, lease=Lease("filler", "cpu0", 1, 0.0), now=0.0)
                for epoch in range(1, 3 + number % 10):
                    ledger.record_epoch(number, epoch, _after(number, epoch), 0.0)
                ledger.end(number, TrialOutcome(TrialState.PAUSED), objectives=[_worth(number)], now=0.0)

        def end(request: TrialRequest) -> None:
            epoch = request.until or 0
            search.report(request.trial_id, epoch - 1, _after(int(request.trial_id), epoch))
            search.finish(request.trial_id, TrialOutcome(TrialState.PAUSED))

        with contextlib.closing(embedded_search("cost", storage)) as search:
            return _median(ASKED, lambda: search.next_trial("cpu0"), end)


def _after(number: int, epoch: int) -> dict[str, float]:
    worth = _worth(number) * (1 - 0.8 / epoch)
    return {"epoch": epoch, "best_val_acc": worth, "val_acc": worth}


def ms_of_optunas_ask(trials: int) -> float:
    """Milliseconds of Optuna's own ask with so many trials ended."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = axes_of(Space.from_sweep(load_sweep_file(SIMPLE_CNN)[0]).parameters)
    natives = {name: axis.native for name, axis in axes.items()}
    filler = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(trials):
        filler.tell(filler.ask(natives), _worth(number))
    with tempfile.TemporaryDirectory() as folder:
        sampler = optuna.samplers.TPESampler(seed=0)
        stored = optuna.create_study(storage=f"sqlite:///{folder}/o.db", direction="maximize", sampler=sampler)
        stored.add_trials(filler.get_trials(deepcopy=False))
        return _median(ASKED, lambda: stored.ask(natives), lambda trial: stored.tell(trial, _worth(trial.number)))


def _median(asks: int, ask: Callable[[], Any], end: Callable[[Any], object]) -> float:
    times = []
    for _ in range(asks):
        began = time.perf_counter()
        asked = ask()
        times.append(time.perf_counter() - began)
        end(asked)
    return 1000 * statistics.median(times[1:])


def _end(search: EmbeddedSearch, request: TrialRequest) -> None:
    worth = _worth(int(request.trial_id))
    search.report(request.trial_id, 1, {"epoch": 1, "best_val_acc": worth, "val_acc": worth})
    search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))


def _worth(number: int) -> float:
    return (number * 7919 % 1000) / 1000


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


def _search(trials: int, *, is_slow: bool) -> Row:
    title = f"the next trial in a sweep of {trials:,} (bayes), ms"
    theirs = "Optuna's `ask` on SQLite"
    sides = {"fersweep": lambda _: ms_of_next_trial(trials), theirs: lambda _: ms_of_optunas_ask(trials)}
    return Row(title, sides, "less", is_slow)


def _turn(trials: int) -> Row:
    title = f"the next turn in a sweep of {trials:,} (freeze-thaw), ms"
    theirs = "Optuna's `ask` on SQLite, TPE"
    sides = {"fersweep": lambda _: ms_of_next_turn(trials), theirs: lambda _: ms_of_optunas_ask(trials)}
    return Row(title, sides, "less")


CREATE = (FERSWEEP, "create", str(SIMPLE_CNN))
WANDB_SWEEP = command(WANDB, "sweep", str(SIMPLE_CNN), online=True)
ROWS = {
    "help": Row("`--help`, s", {"fersweep": command(FERSWEEP, "--help"), "`wandb`": command(WANDB, "--help")}, "less"),
    "create": Row(
        "`fersweep create sweeps/simple_cnn.yaml` without a server, s",
        {"fersweep": command(*CREATE), "`wandb sweep` on a server": WANDB_SWEEP},
        "less",
    ),
    "create-online": Row(
        "the same on a W&B server (on loopback), s",
        {"fersweep": command(*CREATE, online=True), "`wandb sweep`": WANDB_SWEEP},
        "less",
    ),
    "between": _between("not tracked", "disabled"),
    "between-offline": _between("tracked by wandb offline", "offline"),
    "between-online": _between("tracked online (a server on loopback)", "online"),
    "between-spawn": Row(
        "the same between trials of some seconds, not tracked: spawned with a warm spare, s",
        {starter: lambda _, starter=starter: seconds_between_long_trials(starter) for starter in STARTERS},
        "less",
        is_slow=True,
    ),
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
    "search-1000": _search(1_000, is_slow=False),
    "search-10000": _search(10_000, is_slow=True),
    "turn-100": _turn(100),
    "turn-300": _turn(300),
}
