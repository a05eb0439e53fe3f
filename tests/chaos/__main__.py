"""Chaos: agents at work on sweeps of short trials while a monkey kills, pauses and restarts them, and what is left.

    python -m tests.chaos --search optuna --seconds 60 --seed 1

Two agents of two slots each work on a grid of small SimpleCNNs in a folder of their own, and on another grid once it is
done; the lease is short, so that a pause of seconds is a long one. Afterwards every configuration must be complete
exactly once, whole, and bit for bit what an undisturbed sweep gives (some are trained again); no process may be left.
The exit code is 1 if anything is wrong; how fast the machine is only decides how much happens. With search wandb the
server is the stand-in, whose connections break as well.
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

from tests.chaos import checks
from tests.chaos.agents import Seat, on_cores
from tests.chaos.checks import Sweep, Verdict
from tests.chaos.family import Family
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
SWEEP = """\
program: fersweep
method: grid
metric: {name: best_val_acc, goal: maximize}
parameters:
  model: {value: simple_cnn}
  data: {value: tiny}
  epochs: {value: EPOCHS}
  channels: {value: 4}
  hidden: {value: 8}
  batch_size: {value: 16}
  dropout: {value: 0.2}
  lr: {value: 0.005}
  seed: {values: SEEDS}
"""


class Chaos:
    """One run."""

    def __init__(self, given: argparse.Namespace, folder: Path, server: StandIn | None) -> None:
        self.given = given
        self.folder = folder
        self.server = server
        self.environment = self._environment("work", server)
        self.cores = set(sorted(os.sched_getaffinity(0))[:2])
        self.sweeps: list[Sweep] = []
        self.verdict = Verdict()
        self._began = time.monotonic()

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)

    def run(self) -> int:
        """Everything: prepare, disturb, wait, check; gives the exit code."""
        Faces.banded().prepared(self.folder, "tiny")
        rng = random.Random(self.given.seed)
        first = self._next_sweep()
        with Family() as family:
            seats = [Seat(name, first.id, family, self.environment, self.folder, self.cores) for name in "ab"]
            monkey = Monkey(seats, rng, LEASE_S, self.server.faults if self.server else None)
            self._disturb(monkey, family)
            self._let_finish(monkey, family)
            self._say("all trials have ended")
            self._see_them_go(monkey, family)
            self._say("all processes have ended")
        hit = {trial for strike in monkey.strikes for trial in strike.trials}
        disturbed = [seed for sweep in self.sweeps for seed in self._check(sweep, hit)]
        compared = self._compare(rng.sample(disturbed, min(self.given.compared, len(disturbed))))
        self._say("checked")
        trials, agents = sum(len(sweep.seeds) for sweep in self.sweeps), sum(seat.starts for seat in seats)
        print(table(monkey, self.verdict))
        print(f"{trials} trials, {agents} agents; {compared} trials compared bit for bit")
        print(*self.verdict.notes, *(f"WRONG: {finding}" for finding in self.verdict.findings), sep="\n")
        return 1 if self.verdict.findings else 0

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

    def _next_sweep(self) -> Sweep:
        begun = len(self.sweeps) * self.given.trials
        seeds = range(begun, begun + self.given.trials)
        self.sweeps.append(self._create(seeds, self.environment, "--search", self.given.search))
        return self.sweeps[-1]

    def _create(self, seeds: Sequence[int], environment: Mapping[str, str], *words: str) -> Sweep:
        file = self.folder / "sweep.yaml"
        file.write_text(SWEEP.replace("EPOCHS", str(self.given.epochs)).replace("SEEDS", str(list(seeds))))
        made = json.loads(self._command(environment, "create", str(file), "--json", *words))
        return Sweep(made["sweep"], Path(environment["FERSWEEP_HOME"]), frozenset(seeds), self.given.epochs)

    def _command(self, environment: Mapping[str, str], *words: str) -> str:
        done = subprocess.run(
            [*COMMAND, *words], capture_output=True, text=True, check=False, env=environment, cwd=self.folder
        )
        if done.returncode:
            raise SystemExit(f"fersweep {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _disturb(self, monkey: Monkey, family: Family) -> None:
        self._wait(monkey, family, lambda: bool(monkey.trials()))
        self._say("agents are at work")
        began = next_at = look_at = time.monotonic()
        while (now := time.monotonic()) < began + self.given.seconds:
            tend(monkey, family)
            if now >= look_at:
                look_at = now + LOOK_EVERY_S
                if self._is_over():
                    monkey.undo(everything=True)
                    sweep = self._next_sweep()
                    for seat in monkey.seats:
                        seat.sweep = sweep.id
            if now >= next_at and (strike := monkey.strike()):
                next_at = time.monotonic() + monkey.rng.uniform(*BETWEEN_S)
                self._say(f"{strike.kind}: {', '.join(sorted(strike.trials))}")
        self._say("no more faults")

    def _let_finish(self, monkey: Monkey, family: Family) -> None:
        monkey.undo(everything=True)
        if not self._wait(monkey, family, self._is_over):
            states = ", ".join(self.sweeps[-1].states())
            self.verdict.findings.append(f"no progress for {STUCK_S:.0f} s without a fault; trials are {states}")

    def _see_them_go(self, monkey: Monkey, family: Family) -> None:
        def all_gone() -> bool:
            return not any(seat.agent for seat in monkey.seats) and not family.alive()

        if not self._wait(monkey, family, all_gone, may_start=False):
            left = ", ".join(map(str, family.alive()))
            self.verdict.findings.append(f"still there {STUCK_S:.0f} s after the last trial's end: {left}")
        for seat in monkey.seats:
            self.verdict.findings += seat.failures
        if unserved := sum(seat.without_server for seat in monkey.seats):
            self.verdict.notes.append(f"{unserved} agents found no server at their start and ended; others followed")

    def _wait(self, monkey: Monkey, family: Family, over: Callable[[], bool], *, may_start: bool = True) -> bool:
        """Whether it came true before nothing happened any more."""
        deadline, before = time.monotonic() + STUCK_S, -1
        while not over():
            look_at = time.monotonic() + LOOK_EVERY_S
            while time.monotonic() < look_at:
                tend(monkey, family, may_start=may_start)
            if (done := self._epochs_done()) != before:
                deadline, before = time.monotonic() + STUCK_S, done
            if time.monotonic() > deadline:
                return False
        return True

    def _epochs_done(self) -> int:
        """Something that changes with every epoch of the last sweep."""
        sizes = [path.stat().st_size for folder in self.sweeps[-1].folders for path in folder.glob("history.jsonl")]
        return sum(sizes) + len(self.sweeps[-1].states())

    def _is_over(self) -> bool:
        """Whether nothing of the last sweep is left to be trained, as far as database and server know."""
        sweep = self.sweeps[-1]
        states = sweep.states()
        if any(state in ("running", "preempted") for state in states):
            return False
        if self.server is None:
            return len(states) >= len(sweep.seeds)
        return self.server.sweeps[sweep.id].state == "FINISHED"

    def _check(self, sweep: Sweep, hit: set[str]) -> list[int]:
        """Look at one sweep; gives the seeds of the trials that were hit."""
        trials = json.loads(self._command(self.environment, "status", sweep.id, "--json"))["trials"]
        checks.check_trials(sweep, trials, self.verdict)
        checks.check_folders(sweep, self.verdict)
        checks.check_database(sweep, self.verdict)
        if self.server is not None:
            parts = [run for run in checks.runs_of(sweep, self.server) if not checks.is_whole(run, sweep.epochs)]
            if parts:
                self.verdict.notes += [f"left to sync: {checks.standing(run)}" for run in parts]
                self._command(self.environment, "sync", sweep.id)
            checks.check_runs(sweep, self.server, self.verdict)
        return [trial["config"]["seed"] for trial in trials if f"{sweep.id}/{trial['id']}" in hit]

    def _compare(self, seeds: Sequence[int]) -> int:
        if not seeds:
            return 0
        environment = self._environment("reference", None)
        reference = self._create(sorted(seeds), environment)
        with on_cores(self.cores):
            self._command(environment, "agent", reference.id, "--gpus", "none", "--slots", str(len(self.cores)))
        return checks.check_bits(self.sweeps, reference, self.verdict)


def tend(monkey: Monkey, family: Family, *, may_start: bool = True) -> None:
    """What has to be done all the time, and a moment's rest."""
    monkey.undo()
    for seat in monkey.seats:
        seat.tend(may_start=may_start)
    family.reap()
    time.sleep(0.02)


def table(monkey: Monkey, verdict: Verdict) -> str:
    """A Markdown table with a row for each kind of fault."""
    lines = ["| fault | times | trials hit | lost | doubled |", "|---|---|---|---|---|"]
    for kind in sorted({strike.kind for strike in monkey.strikes}):
        hits = [strike.trials for strike in monkey.strikes if strike.kind == kind]
        hit = frozenset().union(*hits)
        lost, doubled = len(hit & verdict.lost), len(hit & verdict.doubled)
        lines.append(f"| {kind} | {len(hits)} | {sum(map(len, hits))} | {lost} | {doubled} |")
    return "\n".join(lines)


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", choices=("optuna", "wandb"), required=True)
    parser.add_argument("--seconds", type=float, default=300.0, help="of faults; then the trials of the sweep may end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8, help="of a sweep; another one follows until time is up")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--compared", type=int, help="trials at most [default: one for each 15 seconds]")
    parser.add_argument("--folder", type=Path, help="where to work, kept; a temporary folder if not given")
    given = parser.parse_args()
    given.compared = given.compared or max(4, int(given.seconds / 15))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(StandIn()) if given.search == "wandb" else None
        return Chaos(given, folder.absolute(), server).run()


if __name__ == "__main__":
    sys.exit(main())
