"""Chaos: agents at work on a sweep of short trials while a monkey kills, pauses and restarts them, and what is left.

    python -m tests.chaos --search optuna --seconds 300 --seed 1 --json chaos.json

Two agents of two slots each work on a grid of small SimpleCNNs in a folder of their own; the lease is short, so that a
pause of seconds is a long one. Afterwards every configuration must be complete exactly once, whole, and bit for bit
what an undisturbed sweep gives; no process may be left. The exit code is 1 if anything is wrong. With search wandb the
server is the stand-in, whose connections break as well.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_sweep.data.cache import prepare
from fer_sweep.records import CLASSES
from tests.chaos import checks
from tests.chaos.agents import Seat
from tests.chaos.checks import Sweep, Verdict
from tests.chaos.family import Family
from tests.chaos.monkey import Monkey, Strike
from tests.chaos.progress import Progress
from tests.support.processes import COMMAND
from tests.support.standin.server import StandIn

LEASE_S = 3.0
BETWEEN_S = (0.3, 2.0)
"""From one fault to the next."""
ENDS_WITHIN_S = 240.0
"""After the last fault: another trial, until all have. Where others use the host too, all of them may take longer."""
LOOK_EVERY_S = 0.5
GONE_WITHIN_S = 90.0
"""After that: all agents ended by themselves, and every process they ever had. A sync under way may take a minute."""
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


@dataclass
class Chaos:
    """One run: where, how long, with what."""

    search: str
    seconds: float
    strikes: float
    """So many at most."""
    seed: int
    trials: int
    epochs: int
    compared: int
    """So many trials at most are trained once more, undisturbed."""
    folder: Path
    cores: set[int] = field(default_factory=lambda: set(sorted(os.sched_getaffinity(0))[:2]))

    def run(self) -> dict[str, Any]:
        """Everything: prepare, disturb, wait, check."""
        draw_faces(self.folder)
        verdict = Verdict()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(StandIn()) if self.search == "wandb" else None
            environment = self._environment("work", server)
            sweep = self._create(range(self.trials), environment, "--search", self.search)
            rng = random.Random(self.seed)
            with Family() as family, Progress(sweep.trials) as progress:
                seats = [Seat(name, sweep.id, family, environment, self.folder, self.cores, rng) for name in "ab"]
                monkey = Monkey(family, seats, rng=rng, lease_s=LEASE_S, server=server.faults if server else None)
                self._disturb(monkey, sweep, server, progress)
                finish_s = self._let_finish(monkey, sweep, server, verdict)
                self._see_them_go(monkey, verdict)
            trials = self._check(sweep, environment, server, verdict)
            hit = {trial for strike in monkey.strikes for trial in strike.trials}
            compared = self._compare(sweep, trials, hit, verdict)
        return {
            "search": self.search,
            "seed": self.seed,
            "seconds": self.seconds,
            "finish_s": round(finish_s, 1),
            "trials": self.trials,
            "epochs": self.epochs,
            "table": table(monkey, progress, verdict),
            "agents": sum(seat.starts for seat in seats),
            "processes": family.count,
            "compared": compared,
            "left_to_sync": verdict.left_to_sync,
            "notes": verdict.notes,
            "findings": verdict.findings,
        }

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

    def _create(self, seeds: Sequence[int], environment: dict[str, str], *words: str) -> Sweep:
        file = self.folder / "sweep.yaml"
        file.write_text(SWEEP.replace("EPOCHS", str(self.epochs)).replace("SEEDS", str(list(seeds))))
        made = json.loads(self._command(environment, "create", str(file), "--json", *words))
        return Sweep(made["sweep"], Path(environment["FERSWEEP_HOME"]), frozenset(seeds), self.epochs)

    def _command(self, environment: dict[str, str], *words: str) -> str:
        done = subprocess.run(
            [*COMMAND, *words], capture_output=True, text=True, check=False, env=environment, cwd=self.folder
        )
        if done.returncode:
            raise SystemExit(f"fersweep {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _disturb(self, monkey: Monkey, sweep: Sweep, server: StandIn | None, progress: Progress) -> None:
        started = time.monotonic()
        while not progress.since(started):
            tend(monkey)
            assert time.monotonic() < started + ENDS_WITHIN_S, "no trial has begun"
        began = next_at = look_at = time.monotonic()
        while (now := time.monotonic()) < began + self.seconds and len(monkey.strikes) < self.strikes:
            tend(monkey)
            if now >= look_at:
                look_at = now + LOOK_EVERY_S
                if is_over(sweep, server):
                    break
            if now >= next_at and (strike := monkey.strike()):
                next_at = time.monotonic() + monkey.rng.uniform(*BETWEEN_S)
                print(f"{strike.at - began:6.1f} s  {strike.kind}: {', '.join(sorted(strike.trials))}", flush=True)
        print(f"{time.monotonic() - began:6.1f} s  enough", flush=True)

    def _let_finish(self, monkey: Monkey, sweep: Sweep, server: StandIn | None, verdict: Verdict) -> float:
        monkey.undo(everything=True)
        began = look_at = latest_end = time.monotonic()
        ended = ended_trials(sweep)
        while (now := time.monotonic()) < latest_end + ENDS_WITHIN_S:
            tend(monkey)
            if now >= look_at:
                look_at = now + LOOK_EVERY_S
                if is_over(sweep, server):
                    return now - began
                if (so_far := ended_trials(sweep)) > ended:
                    ended, latest_end = so_far, now
        verdict.findings.append(f"{ended} trials had ended, and for {ENDS_WITHIN_S:.0f} s without a fault no other did")
        return time.monotonic() - began

    def _see_them_go(self, monkey: Monkey, verdict: Verdict) -> None:
        seats, family = monkey.seats, monkey.family
        deadline = time.monotonic() + GONE_WITHIN_S
        while any(seat.agent for seat in seats) or family.alive():
            tend(monkey, may_start=False)
            if time.monotonic() > deadline:
                left = ", ".join(str(process) for process in family.alive())
                verdict.findings.append(f"still there {GONE_WITHIN_S:.0f} s after the last trial's end: {left}")
                break
        if unserved := sum(seat.without_server for seat in seats):
            verdict.notes.append(f"{unserved} agents found no server at their start and ended; others followed")
        for seat in seats:
            for ended in seat.ended:
                if not ended.wanted:
                    verdict.findings.append(f"agent {seat.name} ended by itself with code {ended.code}:\n{ended.said}")

    def _check(
        self, sweep: Sweep, environment: dict[str, str], server: StandIn | None, verdict: Verdict
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._command(environment, "status", sweep.id, "--json"))["trials"]
        checks.check_trials(sweep, found, verdict)
        checks.check_folders(sweep, verdict)
        checks.check_database(sweep, verdict)
        if server is not None:
            parts = [run for run in server.runs.values() if not checks.whole(run, self.epochs)]
            if parts:
                verdict.left_to_sync = len(parts)
                verdict.notes += [f"left to sync: {checks.standing(run)}" for run in parts]
                self._command(environment, "sync", sweep.id)
            checks.check_runs(sweep, server, verdict)
        return found

    def _compare(self, sweep: Sweep, trials: Sequence[dict[str, Any]], hit: set[str], verdict: Verdict) -> int:
        disturbed = [trial["config"]["seed"] for trial in trials if trial["id"] in hit]
        chosen = sorted(random.Random(self.seed).sample(disturbed, min(self.compared, len(disturbed))))
        if not chosen:
            return 0
        environment = self._environment("reference", None)
        reference = self._create(chosen, environment)
        with self._on_cores():
            self._command(environment, "agent", reference.id, "--gpus", "none", "--slots", str(len(self.cores)))
        return checks.check_bits(sweep, reference, verdict)

    @contextlib.contextmanager
    def _on_cores(self) -> Iterator[None]:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def tend(monkey: Monkey, *, may_start: bool = True) -> None:
    """What has to be done all the time, and a moment's rest."""
    monkey.undo()
    for seat in monkey.seats:
        seat.tend(may_start=may_start)
    time.sleep(0.02)


def is_over(sweep: Sweep, server: StandIn | None) -> bool:
    """Whether nothing is left to be trained, as far as database and server know."""
    states = states_of(sweep)
    if any(state in ("running", "preempted") for state in states):
        return False
    if server is None:
        return len(states) >= len(sweep.seeds)
    return server.sweeps[sweep.id].state == "FINISHED"


def states_of(sweep: Sweep) -> list[str]:
    """The state of every trial that has been begun, as the database has it."""
    with contextlib.closing(sqlite3.connect(sweep.home / "sweeps.db", timeout=60.0)) as database:
        rows = database.execute("SELECT state FROM fersweep_trials WHERE sweep_id = ?", [sweep.id])
        return [state for (state,) in rows]


def ended_trials(sweep: Sweep) -> int:
    """How many have ended for good."""
    return sum(state not in ("running", "preempted") for state in states_of(sweep))


def table(monkey: Monkey, progress: Progress, verdict: Verdict) -> list[dict[str, Any]]:
    """One row a kind of fault."""
    rows = []
    for kind in dict.fromkeys(strike.kind for strike in monkey.strikes):
        strikes = [strike for strike in monkey.strikes if strike.kind == kind]
        hit = frozenset().union(*(strike.trials for strike in strikes))
        backs = [back for strike in strikes if (back := seconds_back(strike, monkey.strikes, progress)) is not None]
        rows.append(
            {
                "fault": kind,
                "times": len(strikes),
                "trials_hit": sum(len(strike.trials) for strike in strikes),
                "lost": len(hit & verdict.lost),
                "doubled": len(hit & verdict.doubled),
                "back_s_median": round(statistics.median(backs), 2) if backs else None,
                "back_s_most": round(max(backs), 2) if backs else None,
            }
        )
    return sorted(rows, key=lambda row: str(row["fault"]))


def seconds_back(strike: Strike, strikes: Sequence[Strike], progress: Progress) -> float | None:
    """Until all the trials that a fault hit trained on; None if another fault hit one of them before that."""
    anew = not strike.kind.startswith(("pause", "server")) and strike.kind != "kill -9 wandb's service"
    back = progress.back_after(strike.at, strike.trials, anew=anew)
    if back is None or any(
        strike.at < other.at < strike.at + back and other.trials & strike.trials for other in strikes
    ):
        return None
    return back


def shown(found: dict[str, Any]) -> str:
    """The result as a Markdown table and some lines."""
    columns = ("fault", "times", "trials_hit", "lost", "doubled", "back_s_median", "back_s_most")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in found["table"]:
        lines.append("| " + " | ".join("" if row[name] is None else str(row[name]) for name in columns) + " |")
    lines += [
        f"{found['trials']} trials, {found['agents']} agents, {found['processes']} processes; "
        f"{found['compared']} trials compared bit for bit; {found['left_to_sync']} runs left to sync",
        *found["notes"],
        *(f"WRONG: {finding}" for finding in found["findings"]),
    ]
    return "\n".join(lines)


def draw_faces(folder: Path) -> None:
    """Prepare the data set `tiny` in a cache below a folder."""
    rng = np.random.default_rng(0)
    for code, label in enumerate(CLASSES):
        for split, prefix, count in (("train", "Training", 20), ("test", "PublicTest", 10)):
            target = folder / "faces" / split / label
            target.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
                pixels[6 * code : 6 * code + 6] //= 2  # a darker band shows the class through the noise
                Image.fromarray(pixels).save(target / f"{prefix}_{code}{number:04d}.png")
    os.environ["FERSWEEP_CACHE"] = str(folder / "cache")
    prepare(folder / "faces", "tiny")


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", choices=("optuna", "wandb"), required=True)
    parser.add_argument("--seconds", type=float, default=300.0, help="of faults; then all trials may end")
    parser.add_argument("--strikes", type=int, default=float("inf"), help="faults at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, help="configurations [default: as many as take about that long]")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--compared", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where to work, kept; a temporary folder if not given")
    parser.add_argument("--json", type=Path, metavar="F")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        chaos = Chaos(
            given.search,
            given.seconds,
            given.strikes,
            given.seed,
            given.trials or max(6, int(given.seconds / 2)),
            given.epochs,
            given.compared,
            folder.absolute(),
        )
        found = chaos.run()
    print(shown(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if found["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
