"""So many agents on one sweep: each the search that a real agent opens, in a process of its own, with nothing to train.

Processes, not threads: threads would take turns at one interpreter. They are forked from one that has imported
everything, so that 256 fit into memory.

    python -m tests.benchmarks.scale.crowd ORDER.json      as ``measure`` starts it, with FERSWEEP_HOME set
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fer_sweep.search.registry import find

from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState
from fer_sweep.search import Search
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.leases import lease_seconds
from tests.support.processes import private_mb

METRICS = ("train_loss", "train_acc", "val_loss", "val_acc", "train_val_gap", "lr", "images_per_second")
"""What a real trial reports as well, so that a report has its size."""


@dataclass(frozen=True)
class Order:
    """What a crowd is to do."""

    sweep: str
    agents: int
    epochs: int
    """Reports of a trial."""
    folder: str
    """Where each agent leaves what it has done."""
    one_host: bool = False
    """Whether each agent is what it is, a process of this host; otherwise as if each had a host of its own."""


@dataclass
class Work:
    """What one agent has done; seconds are those that it waited."""

    next_trial: list[tuple[int, float]] = field(default_factory=list)
    """By number of the trial that it got."""
    report: list[float] = field(default_factory=list)
    finish: list[float] = field(default_factory=list)
    finished: list[tuple[str, int]] = field(default_factory=list)
    """Trials and their attempts."""
    pruned: list[str] = field(default_factory=list)
    """Those of them that the search stopped early."""
    cpu_s: float = 0.0
    private_mb: float = 0.0


def worth(number: int, epoch: int) -> Mapping[str, float]:
    """What trial ``number`` reports of an epoch, from 1."""
    best = 0.3 + 0.4 * (number * 7919 % 1009) / 1009 + 0.001 * epoch
    return {"epoch": float(epoch), "best_val_acc": best, **{name: best / (2 + i) for i, name in enumerate(METRICS)}}


def work_through(search: Search, epochs: int, work: Work) -> None:
    """Take trials until there are no more; report all epochs of each, or those before it is stopped, and finish it."""
    while True:
        request, took = _timed(search.next_trial, "cpu/0")
        if not isinstance(request, TrialRequest):
            return
        trial, number = request.trial_id, int(request.trial_id)
        work.next_trial.append((number, took))
        outcome = TrialOutcome(TrialState.COMPLETE)
        for epoch in range(1, epochs + 1):
            reason, took = _timed(search.report, trial, epoch, worth(number, epoch))
            work.report.append(took)
            if reason is StopReason.PRUNED and epoch < epochs:
                outcome = TrialOutcome(TrialState.PRUNED)
                work.pruned.append(trial)
                break
        work.finish.append(_timed(search.finish, trial, outcome)[1])
        work.finished.append((trial, request.attempt))


def _timed(step: Callable[..., Any], *arguments: object) -> tuple[Any, float]:
    began = time.perf_counter()
    return step(*arguments), time.perf_counter() - began


def _agent(order: Order, number: int, ready: int, go: int) -> None:
    # What `open_search` gives, but for the owner's name: so many agents are on as many hosts, and only on its own
    # host does an agent look whether others are still there.
    entry, owner = find(order.sweep), None if order.one_host else f"node{number}/simulated:{os.getpid()}:0"
    work = Work()
    with closing(OptunaSearch(entry.id, storage=entry.database, owner=owner, lease_s=lease_seconds())) as search:
        os.write(ready, b".")
        os.close(ready)
        os.read(go, 1)  # ends when the crowd closes it: all begin at once
        began = time.process_time()
        work_through(search, order.epochs, work)
        work.cpu_s = time.process_time() - began
        work.private_mb = private_mb(os.getpid())
    (Path(order.folder) / f"{number}.json").write_text(json.dumps(asdict(work)))


def main() -> None:
    """Fork the agents, say that they are ready, let them begin once a line comes, and say how long they took."""
    order = Order(**json.loads(Path(sys.argv[1]).read_text()))
    from fer_sweep.search import study  # noqa: F401 imported once, for all of them

    (ready, said), (go, held) = os.pipe(), os.pipe()
    agents = []
    for number in range(order.agents):
        if (agent := os.fork()) == 0:
            os.close(held)
            os.close(ready)
            try:
                _agent(order, number, said, go)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        agents.append(agent)
    os.close(said)
    while os.read(ready, 4096):  # ends when each has said it, or has died
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    os.close(held)
    ends = [os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]) for agent in agents]
    print(time.perf_counter() - began, flush=True)
    sys.exit(any(ends))


if __name__ == "__main__":
    main()
