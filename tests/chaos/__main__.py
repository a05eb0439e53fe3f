"""Chaos: agents at work on sweeps of short trials while a monkey kills, pauses and restarts them, and what is left.

    python -m tests.chaos --search optuna --seconds 60 --seed 1

Two agents of two slots each work on a grid of small SimpleCNNs in a folder of their own, and on another grid once it is
done; the lease is short, so that a pause of seconds is a long one. Afterwards every configuration must be complete
exactly once, whole, and bit for bit what an undisturbed sweep gives (some are trained again); no process may be left.
The exit code is 1 if anything is wrong; how fast the machine is only decides how much happens. With search wandb the
server is the stand-in, whose connections break as well.

With --in-turns freeze-thaw searches, and its trials, slower ones, are paused and resumed as well. Afterwards each is
complete, or pruned while it was paused, with every epoch up to there once; the best one is complete.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.chaos import checks
from tests.chaos.agents import Seat, on_cores, send, working_on
from tests.chaos.monkey import Monkey
from tests.support.faces import Faces
from tests.support.processes import COMMAND
from tests.support.standin.server import StandIn

LEASE_S = 3.0
BETWEEN_S = (0.3, 2.0)
"""From one fault to the next."""
LOOK_EVERY_S = 0.5
STUCK_S = 300.0
"""Without a fault and without progress: what has not ended by then never will. Only a run with a finding waits."""
TRIALS, EPOCHS = 8, 40
"""Of a sweep; another sweep follows until time is up."""
CONFIG = {"model": "simple_cnn", "data": "tiny", "epochs": EPOCHS, "channels": 4, "hidden": 8, "batch_size": 16}
CONFIG |= {"dropout": 0.2, "lr": 0.005}
TURNS = {
    "model": "resnet18",
    "data": "tiny",
    "epochs": 20,
    "stem": "imagenet",
    "width": 8,
    "batch_size": 8,
    "lr": 0.005,
}
"""The same for trials in turns: their epochs take so long that a turn is a part of them."""


class Chaos:
    """One run."""

    def __init__(self, given: argparse.Namespace, folder: Path, server: StandIn | None) -> None:
        self.given = given
        self.folder = folder
        self.server = server
        self.environment = self._environment("work", server)
        self.cores = set(sorted(os.sched_getaffinity(0))[:2])
        self.rng = random.Random(given.seed)
        self.sweeps: list[checks.Sweep] = []
        self.findings: list[str] = []
        self._began = time.monotonic()

    def run(self) -> int:
        """Everything: prepare, disturb, wait, check; gives the exit code."""
        Faces.banded().prepared(self.folder, "tiny")
        first = self._next_sweep()
        seats = [Seat(name, first.id, self.environment, self.folder, self.cores) for name in "ab"]
        self.monkey = Monkey(seats, self.rng, LEASE_S, self.server.faults if self.server else None)
        try:
            self._wait(lambda: bool(self.monkey.working()), "no agent works")
            self._disturb()
            self.monkey.undo(everything=True)
            self._wait(self._is_over, "the last sweep does not end")
            self._wait(lambda: not self._processes(), "processes are left", may_start=False)
        finally:
            for process in self._processes():
                send(process, signal.SIGKILL)
        self.findings += [failure for seat in seats for failure in seat.failures]
        compared = self._compare([folder for sweep in self.sweeps for folder in self._check(sweep)])
        print("| fault | times |", "|---|---|", sep="\n")
        print(*(f"| {kind} | {times} |" for kind, times in sorted(self.monkey.strikes.items())), sep="\n")
        trials, agents = sum(len(sweep.seeds) for sweep in self.sweeps), sum(seat.starts for seat in seats)
        print(f"{trials} trials, {agents} agents; {compared} trials compared bit for bit")
        print(*(f"WRONG: {finding}" for finding in self.findings), sep="\n")
        return 1 if self.findings else 0

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)

    def _environment(self, home: str, server: StandIn | None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "FERSWEEP_"))}
        own = {
            "FERSWEEP_HOME": str(self.folder / home),
            "FERSWEEP_CACHE": str(self.folder / "cache"),
            "FERSWEEP_LEASE_S": str(LEASE_S),
            "WANDB_MODE": "online" if server else "disabled",
            "WANDB_CONFIG_DIR": str(self.folder / "wandb-config"),
            "WANDB_CACHE_DIR": str(self.folder / "wandb-cache"),
            "NETRC": str(self.folder / "netrc"),
            "WANDB_SILENT": "true",
        }
        return {**kept, **own, **(server.environment if server else {})}

    def _next_sweep(self) -> checks.Sweep:
        begun = len(self.sweeps) * TRIALS
        seeds = range(begun, begun + TRIALS)
        words = ("--search", self.given.search)
        self.sweeps.append(self._create(seeds, self.environment, *words, in_turns=self.given.in_turns))
        return self.sweeps[-1]

    def _create(
        self, seeds: Sequence[int], environment: Mapping[str, str], *words: str, in_turns: bool = False
    ) -> checks.Sweep:
        config = TURNS if self.given.in_turns else CONFIG
        parameters: dict[str, Any] = {name: {"value": value} for name, value in config.items()}
        parameters["seed"] = {"values": list(seeds)}
        metric = {"name": "best_val_acc", "goal": "maximize"}
        sweep = {"program": "fersweep", "method": "grid", "metric": metric, "parameters": parameters}
        if in_turns:
            sweep |= {"method": "bayes", "run_cap": len(seeds)}
        file = self.folder / "sweep.yaml"
        file.write_text(json.dumps(sweep))  # JSON is YAML
        made = json.loads(self._command(environment, "create", str(file), "--json", *words))
        home, epochs = Path(environment["FERSWEEP_HOME"]), int(str(config["epochs"]))
        return checks.Sweep(made["sweep"], home, seeds, epochs, in_turns)

    def _command(self, environment: Mapping[str, str], *words: str) -> str:
        done = subprocess.run(
            [*COMMAND, *words], capture_output=True, text=True, check=False, env=environment, cwd=self.folder
        )
        if done.returncode:
            raise SystemExit(f"fersweep {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _processes(self) -> list[psutil.Process]:
        return working_on(self.environment["FERSWEEP_HOME"])

    def _tend(self, *, may_start: bool = True) -> None:
        """Do what has to be done all the time, and rest a moment."""
        self.monkey.undo()
        for seat in self.monkey.seats:
            seat.tend(may_start=may_start)
        time.sleep(0.02)

    def _disturb(self) -> None:
        self._say("agents are at work")
        began = next_at = look_at = time.monotonic()
        while (now := time.monotonic()) < began + self.given.seconds:
            self._tend()
            if now >= look_at:
                look_at = now + LOOK_EVERY_S
                if self._is_over():
                    self.monkey.undo(everything=True)
                    sweep = self._next_sweep()
                    for seat in self.monkey.seats:
                        seat.sweep = sweep.id
            if now >= next_at and (kind := self.monkey.strike()):
                next_at = time.monotonic() + self.rng.uniform(*BETWEEN_S)
                self._say(kind)
        self._say("no more faults")

    def _wait(self, over: Callable[[], bool], otherwise: str, *, may_start: bool = True) -> None:
        """Return once it is over, or with a finding where nothing happens any more."""
        deadline, before = time.monotonic() + STUCK_S, -1
        while not over():
            look_at = time.monotonic() + LOOK_EVERY_S
            while time.monotonic() < look_at:
                self._tend(may_start=may_start)
            if (done := self._epochs_done()) != before:
                deadline, before = time.monotonic() + STUCK_S, done
            if time.monotonic() > deadline:
                states, left = self.sweeps[-1].states(), self._processes()
                self.findings.append(f"{otherwise}: no progress for {STUCK_S:.0f} s; trials {states}, processes {left}")
                return

    def _epochs_done(self) -> int:
        """Something that changes with every epoch of the last sweep."""
        sizes = [path.stat().st_size for folder in self.sweeps[-1].folders for path in folder.glob("history.jsonl")]
        return sum(sizes) + len(self.sweeps[-1].states())

    def _is_over(self) -> bool:
        """Whether nothing of the last sweep is left to be trained, as far as database and server know."""
        sweep = self.sweeps[-1]
        states = sweep.states()
        if any(state in ("running", "preempted", "paused") for state in states):
            return False
        if self.server is None:
            return len(states) >= len(sweep.seeds)
        return self.server.sweeps[sweep.id].state == "FINISHED"

    def _check(self, sweep: checks.Sweep) -> list[Path]:
        """Look at one sweep; gives the folders of the trials that took more than one attempt."""
        trials = json.loads(self._command(self.environment, "status", sweep.id, "--json"))["trials"]
        if self.server is not None:
            parts = [run for run in checks.runs_of(sweep, self.server) if not checks.is_whole(run, sweep)]
            for run in parts:
                print(f"left to sync: run {run.id} is {checks.standing(run)}")
            if parts:
                self._command(self.environment, "sync", sweep.id)
        self.findings += checks.findings(sweep, trials, self.server)
        return [folder for folder in sweep.disturbed() if checks.epochs_of(folder) == sweep.epochs]

    def _compare(self, disturbed: Sequence[Path]) -> int:
        """Train some configurations again without faults, and compare; gives how many."""
        most = max(4, int(self.given.seconds / 15))
        chosen = self.rng.sample(list(disturbed), min(most, len(disturbed)))
        folders = {json.loads((folder / "config.json").read_text())["seed"]: folder for folder in chosen}
        if folders:
            environment = self._environment("reference", None)
            reference = self._create(sorted(folders), environment)
            with on_cores(self.cores):
                self._command(environment, "agent", reference.id, "--gpus", "none", "--slots", str(len(self.cores)))
            for theirs in reference.folders:
                seed = json.loads((theirs / "config.json").read_text())["seed"]
                self.findings += checks.differences(folders[seed], theirs)
        return len(folders)


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", choices=("optuna", "wandb"), required=True)
    parser.add_argument("--in-turns", action="store_true", help="with --search optuna: freeze-thaw pauses trials")
    parser.add_argument("--seconds", type=float, default=300.0, help="of faults; then the trials of the sweep may end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work, kept; a temporary folder if not given")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(StandIn()) if given.search == "wandb" else None
        return Chaos(given, folder.absolute(), server).run()


if __name__ == "__main__":
    sys.exit(main())
