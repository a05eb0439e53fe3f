"""What the search adds to a trial: the time of ``next_trial`` in a sweep that already has many trials.

The other side is Optuna as one uses it by itself: ``study.ask`` with its TPE on its own SQLite tables, over the same
trials and the same space, fifteen parameters of simple_cnn.yaml.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_sweep_file, with_run_cap
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search import study
from fer_sweep.search.axes import axes_of
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.sweeps import create_sweep
from tests.benchmarks.commands import SWEEPS
from tests.benchmarks.rows import Row

ASKED = 7
"""Trials asked for; the median counts, after a first one that reads what is there."""


def ours(trials: int) -> float:
    """Milliseconds of ``next_trial`` with so many trials ended."""
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/sweeps.db"
        sweep = with_run_cap(load_sweep_file(SWEEPS / "simple_cnn.yaml"), 2 * trials)
        create_sweep(sweep, sweep_id="cost", storage=storage, seed=0)

        def opened(asks: int) -> float:
            search = OptunaSearch("cost", storage=storage)
            try:
                return _median(asks, lambda: search.next_trial("cpu0"), lambda request: _end(search, request))
            finally:
                search.close()

        draws, study.SAMPLER_DRAWS = study.SAMPLER_DRAWS, 0  # filled from the prior, in a hundredth of the time
        try:
            opened(trials)
        finally:
            study.SAMPLER_DRAWS = draws
        return opened(ASKED + 1)


def optunas(trials: int) -> float:
    """Milliseconds of Optuna's own ask with so many trials ended."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = axes_of(Space.from_sweep(load_sweep_file(SWEEPS / "simple_cnn.yaml")).parameters)
    natives = {name: axis.native for name, axis in axes.items()}
    filler = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(trials):
        filler.tell(filler.ask(natives), _worth(number))
    with tempfile.TemporaryDirectory() as folder:
        sampler = optuna.samplers.TPESampler(seed=0)
        stored = optuna.create_study(storage=f"sqlite:///{folder}/o.db", direction="maximize", sampler=sampler)
        stored.add_trials(filler.get_trials(deepcopy=False))
        return _median(
            ASKED + 1, lambda: stored.ask(natives), lambda trial: stored.tell(trial, _worth(trial.number - trials))
        )


def _median(asks: int, ask: Callable[[], Any], end: Callable[[Any], object]) -> float:
    times = []
    for _ in range(asks):
        began = time.perf_counter()
        asked = ask()
        times.append(time.perf_counter() - began)
        end(asked)
    return 1000 * statistics.median(times[1:])


def _end(search: OptunaSearch, request: TrialRequest) -> None:
    worth = _worth(int(request.trial_id))
    search.report(request.trial_id, 1, {"epoch": 1, "best_val_acc": worth, "val_acc": worth})
    search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))


def _worth(number: int) -> float:
    return (number * 7919 % 1000) / 1000


def _row(trials: int, *, is_slow: bool) -> Row:
    return Row(
        f"the next trial in a sweep of {trials:,} (bayes), ms",
        {"fersweep": lambda _: ours(trials), "Optuna's `ask` on SQLite": lambda _: optunas(trials)},
        better="less",
        is_slow=is_slow,
    )


ROWS: Mapping[str, Row] = {"search-1000": _row(1_000, is_slow=False), "search-10000": _row(10_000, is_slow=True)}
