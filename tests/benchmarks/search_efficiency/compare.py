"""Which search finds a good SimpleCNN with the fewest epochs: every one on the recorded curves, over many seeds.

    python -m tests.benchmarks.search_efficiency.compare

A proposal is answered with the curve of the nearest configuration of the table (``record.py``). A search has found it
once its best validation accuracy is within one standard error of the table's best. Searches run one trial at a time,
as fersweep's agent, Optuna's ``ask`` or W&B's ``sweeps`` package propose them. Writes ``efficiency.png``.
"""

import argparse
import contextlib
import json
import math
import statistics
import tempfile
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search.axes import axes_of
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.sweeps import create_sweep
from tests.benchmarks.search_efficiency.record import FIXED, GRID, VAL
from tests.benchmarks.search_efficiency.table import Table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is written for an older pydantic
    import sweeps

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "lr": {"distribution": "log_uniform_values", "min": min(GRID["lr"]), "max": max(GRID["lr"])},
    "dropout": {"min": min(GRID["dropout"]), "max": max(GRID["dropout"])},
    **{name: {"values": GRID[name]} for name in ("channels", "hidden", "batch_size")},
}
PLOT = Path(__file__).with_name("efficiency.png")
Seen = Generator[tuple[int, float], None, None]
"""Epochs a trial took, and its best accuracy in them."""


def ours(table: Table, seed: int, *, method: str, hyperband: Mapping[str, Any] | None = None) -> Seen:
    """fersweep's embedded search, as an agent of one slot meets it."""
    spec: dict[str, Any] = {"program": "fersweep", "method": method, "parameters": {**PARAMETERS}}
    spec["metric"] = {"name": "best_val_acc", "goal": "maximize"}
    spec["parameters"] |= {name: {"value": value} for name, value in FIXED.items()}
    if hyperband is not None:
        spec["early_terminate"] = {"type": "hyperband", **hyperband}
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/sweeps.db"
        create_sweep(parse_sweep(spec), sweep_id="compare", storage=storage, seed=seed)
        with contextlib.closing(OptunaSearch("compare", storage=storage)) as search:
            while isinstance(request := search.next_trial("cpu0"), TrialRequest):
                yield _trained(search, request, table.curve(request.parameters))


def _trained(search: OptunaSearch, request: TrialRequest, curve: Sequence[float]) -> tuple[int, float]:
    for epoch in range(1, len(curve) + 1):
        best = max(curve[:epoch])
        stop = search.report(
            request.trial_id, epoch, {"epoch": epoch, "val_acc": curve[epoch - 1], "best_val_acc": best}
        )
        if stop is not None and epoch < len(curve):
            search.finish(request.trial_id, TrialOutcome(TrialState.PRUNED))
            return epoch, best
    search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
    return len(curve), max(curve)


def optunas(table: Table, seed: int, *, sampler: Callable[..., optuna.samplers.BaseSampler]) -> Seen:
    """One of Optuna's own samplers."""
    axes = axes_of(Space.from_sweep(parse_sweep({"method": "bayes", "parameters": PARAMETERS})).parameters)
    natives = {name: axis.native for name, axis in axes.items()}
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))
    while True:
        trial = study.ask(natives)
        curve = table.curve({name: axis.value(trial.params[name]) for name, axis in axes.items()})
        study.tell(trial, max(curve))
        yield len(curve), max(curve)


def wandbs(table: Table, seed: int) -> Seen:
    """W&B's bayes, as its server runs it: the ``sweeps`` package."""
    np.random.seed(seed)
    metric = {"name": "best_val_acc", "goal": "maximize"}
    config = {"method": "bayes", "metric": metric, "parameters": {k: dict(v) for k, v in PARAMETERS.items()}}
    runs: list[Any] = []
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = sweeps.next_run(config, runs)
        curve = table.curve({name: given["value"] for name, given in run.config.items()})
        run.state, run.summary_metrics = sweeps.RunState.finished, {"best_val_acc": max(curve)}
        runs.append(run)
        yield len(curve), max(curve)


HYPERBAND = {"min_iter": 3, "eta": 3}
SEARCHES: Mapping[str, Callable[[Table, int], Seen]] = {
    "random": partial(ours, method="random"),
    "random + hyperband": partial(ours, method="random", hyperband=HYPERBAND),
    "TPE (fersweep's bayes)": partial(ours, method="bayes"),
    "TPE + hyperband": partial(ours, method="bayes", hyperband=HYPERBAND),
    "Optuna's GP": partial(optunas, sampler=optuna.samplers.GPSampler),
    "W&B's bayes (GP)": wandbs,
}

SETTINGS: Mapping[str, Callable[[Table, int], Seen]] = {
    f"TPE + hyperband, min_iter {first}, eta {eta}": partial(
        ours, method="bayes", hyperband={"min_iter": first, "eta": eta}
    )
    for first in (1, 2, 3, 4, 6)
    for eta in (2, 3, 4)
}


@dataclass(frozen=True)
class Course:
    """How one search of one seed got on: its best accuracy after so many epochs."""

    steps: tuple[tuple[int, float], ...]

    def reached(self, target: float) -> float:
        """Epochs spent when the target was reached; infinity if it was not."""
        return next((spent for spent, best in self.steps if best >= target), math.inf)

    def at(self, epochs: int) -> float:
        """The best after so many epochs; nan before the first trial has ended."""
        return max((best for spent, best in self.steps if spent <= epochs), default=math.nan)


def walk(search: Callable[[Table, int], Seen], table: Table, seed: int, budget: int) -> Course:
    """Run a search until its epochs are spent or it ends."""
    steps = []
    spent, best = 0, 0.0
    with contextlib.closing(search(table, seed)) as seen:
        for took, accuracy in seen:
            spent, best = spent + took, max(best, accuracy)
            if spent > budget:
                break
            steps.append((spent, best))
    return Course(tuple(steps))


def main() -> None:
    """Compare, print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=720, metavar="EPOCHS")
    parser.add_argument("--only", choices=SEARCHES, action="append", metavar="SEARCH")
    parser.add_argument("--hyperband", action="store_true", help="compare settings of hyperband instead, and no plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the epochs of every seed here")
    arguments = parser.parse_args()
    searches = SETTINGS if arguments.hyperband else SEARCHES
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    table = Table.read()
    target = table.best - math.sqrt(table.best * (1 - table.best) / VAL)
    good = sum(max(curve) >= target for curve in table.curves)
    print(f"{len(table.curves)} configurations, best {table.best:.2%}, target {target:.2%} ({good} of them reach it)\n")
    print("| search | epochs to the target: median | quarter to three quarters | seeds that reached it |")
    print("|---|---|---|---|")
    walks: dict[str, list[Course]] = {}
    for name in arguments.only or searches:
        walks[name] = [walk(searches[name], table, seed, arguments.budget) for seed in range(arguments.seeds)]
        reached = [path.reached(target) for path in walks[name]]
        quarters = [_epochs(q, arguments.budget) for q in np.quantile(reached, [0.25, 0.75], method="inverted_cdf")]
        found = sum(math.isfinite(spent) for spent in reached)
        middle = _epochs(statistics.median_low(reached), arguments.budget)
        print(f"| {name} | {middle} | {' to '.join(quarters)} | {found} of {len(reached)} |", flush=True)
    if arguments.json:
        spent = {name: [path.reached(target) for path in paths] for name, paths in walks.items()}
        arguments.json.write_text(json.dumps(spent, indent=2) + "\n")
    if not arguments.hyperband:
        draw(walks, target, arguments.budget)


def _epochs(spent: float, budget: int) -> str:
    return f"{spent:,.0f}" if math.isfinite(spent) else f"over {budget}"


def draw(walks: Mapping[str, Sequence[Course]], target: float, budget: int) -> None:
    """The mean best accuracy over epochs spent, by search."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    spent = list(range(12, budget + 1, 4))
    for style, (name, paths) in enumerate(walks.items()):
        means = [100 * float(np.mean([path.at(epochs) for path in paths])) for epochs in spent]
        axes.plot(spent, means, label=name, linestyle=("-", "--", "-.", ":")[style % 4], linewidth=1.8)
    axes.axhline(100 * target, color="0.4", linewidth=1)
    axes.text(spent[0], 100 * target, "one standard error from the best", va="bottom", color="0.3")
    axes.set(xlabel="epochs trained", ylabel="best validation accuracy so far, % (mean over seeds)", xscale="log")
    ticks = [12, 24, 48, 96, 192, 384, 720]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(PLOT, dpi=110)


if __name__ == "__main__":
    main()
