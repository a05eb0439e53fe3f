"""How well the expected gain is predicted, and what the rule for stopping costs: replays on the recorded tables.

    python -m tests.benchmarks.search_efficiency.stopping

A search runs on a table (``tables.py``) with one slot. Each time that the rule is applied, the gain predicted for the
next epochs is compared with the one that follows. The rule's regret is the table's best less the best value when it
stops the search, or at the end of the budget if it never does.
"""

import argparse
import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from fer_sweep.search.convergence import Prediction, Searched, is_converged, look, predict
from fer_sweep.search.freeze_thaw import Observation
from tests.benchmarks.search_efficiency.searches import SEARCHES, Player, parameters_of
from tests.benchmarks.search_efficiency.tables import TABLES, Table

BUDGETS = {"freeze-thaw": 360, "TPE + hyperband": 480, "random": 720}
"""Epochs by search: several times what it takes to the target."""

BY: Mapping[str, Searched] = {"freeze-thaw": "freeze_thaw", "TPE + hyperband": "model", "random": "random"}


@dataclass(frozen=True)
class Replay:
    """One run of a search, epoch by epoch."""

    values: Sequence[Mapping[str, Any]]
    """Configurations of the trials."""
    steps: Sequence[tuple[int, float]]
    """Of each epoch: the trial and its accuracy."""

    @classmethod
    def of(cls, player: Player, table: Table, budget: int) -> "Replay":
        """Run a search until its budget is spent."""
        trials: list[Any] = []
        steps: list[tuple[int, float]] = []
        while len(steps) < budget and (trial := player.next()):
            place = next((k for k, other in enumerate(trials) if other is trial), len(trials))
            trials += [trial] if place == len(trials) else []
            curve, stops = table.curve(trial.values), False
            while len(steps) < budget and not stops:
                trial.accuracies.append(curve[len(trial.accuracies)])
                steps.append((place, trial.accuracies[-1]))
                stops = len(trial.accuracies) == len(curve) or player.stops(trial)
            if stops:
                player.ended(trial)
        return cls([trial.values for trial in trials], steps)

    def after(self, epochs: int, *, whole: int, pauses: bool) -> list[Observation]:
        """Its trials after so many epochs, each ended at epoch ``whole``; without pauses, all end but the last one."""
        curves: dict[int, list[float]] = {}
        for trial, accuracy in self.steps[:epochs]:
            curves.setdefault(trial, []).append(accuracy)
        last = self.steps[epochs - 1][0]
        open_ = {k for k, curve in curves.items() if (pauses or k == last) and len(curve) < whole}
        return [Observation(self.values[k], curve, is_paused=k in open_) for k, curve in curves.items()]

    def best(self, epochs: int) -> float:
        """The best accuracy in so many epochs."""
        return max(accuracy for _, accuracy in self.steps[:epochs])


@dataclass
class Score:
    """What the replays of a search on a table add up to."""

    inside: list[bool]
    """Whether the gain that followed was in the interval, for each prediction."""
    predicted: list[float]
    gained: list[float]
    regrets: list[float]
    """In standard errors of the table's best, by seed."""
    stopped: list[int]
    """Epochs trained at the end, by seed."""
    by_rule: int = 0
    """Seeds that the rule stopped before the end of the budget."""


def score(search: str, table: Table, *, seeds: int, budget: int, more: int) -> Score:
    """Replay a search with seeds 0, 1, ...

    Args:
        search: Of ``SEARCHES``.
        table: What it runs on.
        seeds: How many.
        budget: Epochs of each run.
        more: Epochs that gains are predicted for.
    """
    space, error = parameters_of(table).parameters, table.best - table.target
    total = Score([], [], [], [], [])
    for seed in range(seeds):
        with contextlib.closing(SEARCHES[search](table, seed)) as player:
            replay = Replay.of(player, table, budget)
        end = None

        def prediction(spent: int, replay: Replay = replay, seed: int = seed) -> Prediction | None:
            trials = replay.after(spent, whole=table.epochs, pauses=search == "freeze-thaw")
            return predict(space, trials, last_epoch=table.epochs, goal="maximize", searched=BY[search], seed=seed)

        looks = [n for n in range(2, len(replay.steps)) if look(n) > look(n - 1)]
        for spent in looks:
            if (found := prediction(spent)) is None:
                continue
            if spent + more <= len(replay.steps):
                gain = found.gain(more)
                low, high = gain.interval
                total.predicted.append(gain.mean)
                total.gained.append(replay.best(spent + more) - replay.best(spent))
                total.inside.append(low - 1e-9 <= total.gained[-1] <= high + 1e-9)
            if end is None and is_converged(found.gain(spent), error):
                end = spent
        total.by_rule += end is not None
        total.stopped.append(end or len(replay.steps))
        total.regrets.append((table.best - replay.best(total.stopped[-1])) / error)
    return total


def main() -> None:
    """Replay and print the table."""
    recorded = [name for name, table in TABLES.items() if table.path.exists()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=recorded, default=recorded)
    parser.add_argument("--searches", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--more", type=int, default=24, metavar="EPOCHS", help="epochs that gains are predicted for")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    print("| table | search | gains in their 90 % interval | mean gain: predicted, real | stopped by the rule", end=" ")
    print("| epochs then: median | regret within one standard error |\n|---|---|---|---|---|---|---|")
    for name in arguments.tables:
        for search in arguments.searches:
            found = score(search, TABLES[name], seeds=arguments.seeds, budget=BUDGETS[search], more=arguments.more)
            good = np.mean(np.array(found.regrets) <= 1 + 1e-9)
            print(
                f"| {name} | {search} | {np.mean(found.inside):.1%} of {len(found.inside)} "
                f"| {np.mean(found.predicted):.2%}, {np.mean(found.gained):.2%} "
                f"| {found.by_rule} of {len(found.stopped)} | {np.median(found.stopped):g} | {good:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
