"""Which search finds a good SimpleCNN with the fewest epochs: every one on the recorded curves, over many seeds.

    python -m tests.benchmarks.search_efficiency.compare

A proposal is answered with the curve of the nearest configuration of the table (``record.py``). A search has found it
once its best validation accuracy is within one standard error of the table's best. Searches run one trial at a time,
as fersweep's agent, Optuna's ``ask`` or W&B's ``sweeps`` package propose them. Writes ``efficiency.png``.
"""

import argparse
import contextlib
import csv
import math
import tempfile
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from matplotlib import pyplot

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search.axes import axes_of
from fer_sweep.search.embedded import create_sweep
from tests.benchmarks.search_efficiency.record import CURVES, FIXED, GRID, VAL
from tests.support.searches import embedded_search

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is written for an older pydantic
    import sweeps

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "lr": {"distribution": "log_uniform_values", "min": min(GRID["lr"]), "max": max(GRID["lr"])},
    "dropout": {"min": min(GRID["dropout"]), "max": max(GRID["dropout"])},
    **{name: {"values": GRID[name]} for name in ("channels", "hidden", "batch_size")},
}
Seen = Generator[tuple[int, float], None, None]
"""Epochs a trial took, and its best accuracy in them."""
Best = npt.NDArray[np.float64]
"""The best accuracy after each number of epochs; nan before the first trial has ended."""


class Table:
    """Recorded validation accuracies by epoch, looked up by the nearest configuration."""

    def __init__(self) -> None:
        with CURVES.open() as stream:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
        self._by_place = {place(row): tuple(row.values())[len(GRID) :] for row in rows}
        self.curves = list(self._by_place.values())
        self.best = max(map(max, self.curves))

    def curve(self, values: Mapping[str, Any]) -> tuple[float, ...]:
        return self._by_place[place(values)]


def place(values: Mapping[str, Any]) -> tuple[int, ...]:
    """The nearest value on each axis of the grid, by its index; learning rates are compared by their logarithm."""

    def distance(name: str, level: int) -> float:
        scaled = math.log if name == "lr" else float
        return abs(scaled(GRID[name][level]) - scaled(values[name]))

    return tuple(min(range(len(GRID[name])), key=partial(distance, name)) for name in GRID)


def ours(table: Table, seed: int, *, method: str, hyperband: Mapping[str, int] | None = None) -> Seen:
    """fersweep's embedded search, as an agent of one slot meets it."""
    fixed = {name: {"value": value} for name, value in FIXED.items()}
    spec: dict[str, Any] = {"program": "fersweep", "method": method, "parameters": {**PARAMETERS, **fixed}}
    spec["metric"] = {"name": "best_val_acc", "goal": "maximize"}
    if hyperband is not None:
        spec["early_terminate"] = {"type": "hyperband", **hyperband}
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/sweeps.db"
        create_sweep(parse_sweep(spec), sweep_id="compare", storage=storage, seed=seed)
        with contextlib.closing(embedded_search("compare", storage)) as search:
            while isinstance(request := search.next_trial("cpu0"), TrialRequest):
                curve, state = table.curve(request.parameters), TrialState.COMPLETE
                for epoch, accuracy in enumerate(curve, 1):
                    best = max(curve[:epoch])
                    metrics = {"epoch": epoch, "val_acc": accuracy, "best_val_acc": best}
                    if search.report(request.trial_id, epoch, metrics) is not None and epoch < len(curve):
                        state = TrialState.PRUNED
                        break
                search.finish(request.trial_id, TrialOutcome(state))
                yield epoch, best


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
    f"TPE + hyperband, {settings}": partial(ours, method="bayes", hyperband=settings)
    for settings in ({"min_iter": first, "eta": eta} for first in (1, 2, 3, 4, 6) for eta in (2, 3, 4))
}


def walk(search: Callable[[Table, int], Seen], table: Table, seed: int, budget: int) -> Best:
    """Run a search until its epochs are spent or it ends."""
    best, spent = np.full(budget + 1, np.nan), 0
    with contextlib.closing(search(table, seed)) as seen:
        for took, accuracy in seen:
            spent += took
            if spent > budget:
                break
            best[spent:] = np.fmax(best[spent:], accuracy)
    return best


def reached(best: Best, target: float) -> float:
    """Epochs spent when the target was reached; infinity if it was not."""
    return next((float(spent) for spent in np.flatnonzero(best >= target)), math.inf)


def main() -> None:
    """Compare, print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=720, metavar="EPOCHS")
    parser.add_argument("--hyperband", action="store_true", help="compare settings of hyperband instead, and no plot")
    arguments = parser.parse_args()
    searches = SETTINGS if arguments.hyperband else SEARCHES
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    table = Table()
    target = table.best - math.sqrt(table.best * (1 - table.best) / VAL)
    good = sum(max(curve) >= target for curve in table.curves)
    print(f"{len(table.curves)} configurations, best {table.best:.2%}, target {target:.2%} ({good} of them reach it)\n")
    print("| search | epochs to the target: median | quarter to three quarters | seeds that reached it |")
    print("|---|---|---|---|")
    walks: dict[str, list[Best]] = {}
    for name in searches:
        walks[name] = [walk(searches[name], table, seed, arguments.budget) for seed in range(arguments.seeds)]
        spent = [reached(best, target) for best in walks[name]]
        first, middle, third = (
            f"{epochs:,.0f}" if math.isfinite(epochs) else f"over {arguments.budget}"
            for epochs in np.quantile(spent, [0.25, 0.5, 0.75], method="inverted_cdf")
        )
        print(f"| {name} | {middle} | {first} to {third} | {np.isfinite(spent).sum()} of {len(spent)} |", flush=True)
    if not arguments.hyperband:
        draw(walks, target, arguments.budget)


def draw(walks: Mapping[str, Sequence[Best]], target: float, budget: int) -> None:
    """The mean best accuracy over epochs spent, by search."""
    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    spent = range(12, budget + 1, 4)
    for style, (name, bests) in enumerate(walks.items()):
        means = 100 * np.mean(bests, axis=0)[spent]
        axes.plot(spent, means, label=name, linestyle=("-", "--", "-.", ":")[style % 4], linewidth=1.8)
    axes.axhline(100 * target, color="0.4", linewidth=1)
    axes.text(spent[0], 100 * target, "one standard error from the best", va="bottom", color="0.3")
    axes.set(xlabel="epochs trained", ylabel="best validation accuracy so far, % (mean over seeds)", xscale="log")
    ticks = [12, 24, 48, 96, 192, 384, 720]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(Path(__file__).with_name("efficiency.png"), dpi=110)


if __name__ == "__main__":
    main()
