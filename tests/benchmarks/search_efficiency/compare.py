"""Which search finds a good model with the fewest epochs: every one on the recorded tables, over many seeds.

    python -m tests.benchmarks.search_efficiency.compare

A proposal is answered with the curve of the table's nearest configuration (``tables.py``), epoch by epoch; every epoch
of every trial counts, and a paused trial keeps its curve. A search is done once an epoch is within one standard error
of the table's best. Slots train side by side, an epoch each in turn. Writes ``results.csv`` and, from all that is in
it, ``efficiency.png``: a run of some tables, slots or searches replaces those alone.
"""

import argparse
import contextlib
import csv
import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna
from matplotlib import pyplot
from scipy import stats

from tests.benchmarks.search_efficiency.searches import SEARCHES, SETTINGS, Player, Trial
from tests.benchmarks.search_efficiency.tables import TABLES, Table

RESULTS = Path(__file__).with_name("results.csv")
Key = tuple[str, int, str]
"""Table, slots, search."""
Results = dict[Key, list[float]]
"""Epochs to the target by seed; infinity if the budget was spent before."""


def walk(player: Player, table: Table, *, slots: int, budget: int) -> float:
    """Epochs that a search spends until one of its trials reaches the target; infinity if none does."""
    running: list[Trial | None] = [None] * slots
    spent = 0
    while True:
        for slot in range(slots):
            if running[slot] is None:
                running[slot] = player.next()
        if not any(running):
            return math.inf
        for slot, trial in enumerate(running):
            if trial is None:
                continue
            if spent == budget:
                return math.inf
            curve = table.curve(trial.values)
            trial.accuracies.append(curve[len(trial.accuracies)])
            spent += 1
            if trial.accuracies[-1] >= table.target:
                return float(spent)
            if len(trial.accuracies) == len(curve) or player.stops(trial):
                player.ended(trial)
                running[slot] = None


def spent_by_seed(
    search: Callable[[Table, int], Player], table: Table, *, slots: int, seeds: int, budget: int
) -> list[float]:
    """``walk`` of seeds 0, 1, ..."""
    spent = []
    for seed in range(seeds):
        with contextlib.closing(search(table, seed)) as player:
            spent.append(walk(player, table, slots=slots, budget=budget))
    return spent


def quartiles(spent: Sequence[float]) -> list[float]:
    """First quartile, median and third quartile, each one of the values."""
    return [float(epochs) for epochs in np.quantile(spent, [0.25, 0.5, 0.75], method="inverted_cdf")]


def ranks(spent: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], float, float]:
    """How searches compare over blocks, each a seed of a table, that all of them ran (Demsar 2006).

    Returns:
        Each search's mean rank, 1 the best; the p of Friedman's test that all are alike; and Nemenyi's critical
        difference at 5 %: mean ranks that differ by less do not differ.
    """
    columns: npt.NDArray[np.float64] = np.array(list(spent.values()))
    count, blocks = columns.shape
    means = stats.rankdata(columns, axis=0).mean(1)
    # The largest value stands for infinity, whose differences are nan.
    p = float(stats.friedmanchisquare(*np.where(np.isinf(columns), 1e9, columns)).pvalue) if count > 2 else math.nan
    studentized = stats.studentized_range.ppf(0.95, count, np.inf) / math.sqrt(2)
    difference = float(studentized * math.sqrt(count * (count + 1) / (6 * blocks)))
    return dict(zip(spent, means.tolist(), strict=True)), p, difference


def read_results() -> Results:
    """What was measured before."""
    if not RESULTS.exists():
        return {}
    results: Results = {}
    with RESULTS.open() as stream:
        for table, slots, search, *spent in list(csv.reader(stream))[1:]:
            results[table, int(slots), search] = [float(epochs) for epochs in spent]
    return results


def write_results(results: Results) -> None:
    """Write the file anew."""
    with RESULTS.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["table", "slots", "search", "epochs to the target by seed"])
        for key in sorted(results):
            writer.writerow([*key, *(f"{epochs:g}" for epochs in results[key])])


def report(results: Results, budget: int) -> None:
    """Print medians and quartiles by table, and the comparison over all tables by number of slots."""

    def text(epochs: float) -> str:
        return f"{epochs:g}" if math.isfinite(epochs) else f"over {budget}"

    for name, slots in sorted({key[:2] for key in results}):
        table = TABLES[name]
        good = sum(max(curve) >= table.target for curve in table.curves)
        print(f"\n{name}, {counted(slots)}: {len(table.curves)} configurations, best {table.best:.2%}, ", end="")
        print(f"target {table.target:.2%} ({good} of them reach it)\n")
        print("| search | epochs to the target: median | quarter to three quarters | seeds that reached it |")
        print("|---|---|---|---|")
        for search in SEARCHES:
            if spent := results.get((name, slots, search)):
                first, middle, third = map(text, quartiles(spent))
                print(f"| {search} | {middle} | {first} to {third} | {np.isfinite(spent).sum()} of {len(spent)} |")
    for slots in sorted({key[1] for key in results}):
        tables = sorted({key[0] for key in results if key[1] == slots})
        complete = [search for search in SEARCHES if all((name, slots, search) in results for name in tables)]
        joined = {search: [spent for name in tables for spent in results[name, slots, search]] for search in complete}
        if len(complete) < 2 or len(set(map(len, joined.values()))) > 1:
            continue
        means, p, difference = ranks(joined)
        print(f"\n{counted(slots)}, {', '.join(tables)}: Friedman p = {p:.1g}, critical difference {difference:.2f}\n")
        print("| search | mean rank |\n|---|---|")
        for search in sorted(means, key=means.__getitem__):
            print(f"| {search} | {means[search]:.2f} |")


def counted(slots: int) -> str:
    """``1 slot``, ``4 slots``."""
    return f"{slots} slot{'s' * (slots != 1)}"


def draw(results: Results, budget: int) -> None:
    """The share of seeds that have reached the target, over epochs spent."""
    tables = [name for name in TABLES if any(key[0] == name for key in results)]
    slots = sorted({key[1] for key in results})
    size = (5.5 * len(tables) + 2.5, 3.8 * len(slots))
    figure, grid = pyplot.subplots(len(slots), len(tables), figsize=size, layout="constrained", squeeze=False)
    ticks = [6, 12, 24, 48, 96, 192, 384, 768]
    for (row, column), axes in np.ndenumerate(grid):
        for style, search in enumerate(SEARCHES):
            spent = results.get((tables[column], slots[row], search))
            if spent:
                reached = [*sorted(epochs for epochs in spent if math.isfinite(epochs)), budget]
                shares = [*np.arange(1, len(reached)), len(reached) - 1]
                line = ("--", "-.", ":")[style % 3]
                own = {"color": "black", "linestyle": "-", "linewidth": 2.2} if search == "freeze-thaw" else {}
                axes.step(
                    reached,
                    100 * np.array(shares) / len(spent),
                    where="post",
                    label=search,
                    **{"linestyle": line, **own},
                )
        axes.set(title=f"{tables[column]}, {counted(slots[row])}", xlabel="epochs trained", xscale="log", ylim=(0, 101))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    grid[0, 0].set_ylabel("seeds that reached the target, %")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(Path(__file__).with_name("efficiency.png"), dpi=110)


def main() -> None:
    """Compare, print the tables and draw the plot."""
    recorded = [name for name, table in TABLES.items() if table.path.exists()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=recorded, default=recorded)
    parser.add_argument("--slots", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--budget", type=int, default=720, metavar="EPOCHS")
    parser.add_argument(
        "--hyperband", action="store_true", help="compare settings of hyperband instead, and only print"
    )
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    searches = dict(SETTINGS) if arguments.hyperband else {name: SEARCHES[name] for name in arguments.searches}
    if "NePS" in searches and importlib.util.find_spec("neps") is None:
        print("NePS is skipped, for it is not installed: see Neps in searches.py")
        del searches["NePS"]
    size = {"seeds": arguments.seeds, "budget": arguments.budget}
    for name in arguments.tables:
        for slots in arguments.slots:
            for search in searches:
                spent = spent_by_seed(searches[search], TABLES[name], slots=slots, **size)
                print(name, slots, search, quartiles(spent), flush=True)
                if not arguments.hyperband:
                    # Read again each time: another process may have added to it.
                    write_results(read_results() | {(name, slots, search): spent})
    if not arguments.hyperband:
        results = read_results()
        report(results, arguments.budget)
        draw(results, arguments.budget)


if __name__ == "__main__":
    main()
