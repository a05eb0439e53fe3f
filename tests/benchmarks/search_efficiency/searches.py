"""Every search of the comparison behind one seam: what to train next, and whether to stop after an epoch."""

import contextlib
import random
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import optuna

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search.axes import axes_of
from fer_sweep.search.embedded import create_sweep
from fer_sweep.search.freeze_thaw import FreezeThaw, Observation
from tests.benchmarks.search_efficiency.tables import Table
from tests.support.searches import embedded_search

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is written for an older pydantic
    import sweeps

METRIC = {"name": "best_val_acc", "goal": "maximize"}


@dataclass
class Trial:
    """A trial that a search started: it keeps its curve when it is paused."""

    values: Mapping[str, Any]
    handle: Any = None
    """The search's own."""
    accuracies: list[float] = field(default_factory=list)
    """Of the epochs it was trained for."""


class Player(Protocol):
    """A search on a table; ``close`` removes what it left on disk."""

    def next(self) -> Trial | None:
        """A new trial or one that it stopped before; None if there is nothing to train until another one stops."""
        ...

    def stops(self, trial: Trial) -> bool:
        """After each epoch but the last: whether the trial leaves its slot."""
        ...

    def ended(self, trial: Trial) -> None:
        """The trial left its slot."""
        ...

    def close(self) -> None: ...


class Embedded:
    """fersweep's embedded search, random or TPE (bayes), with hyperband if settings are given."""

    def __init__(self, table: Table, seed: int, *, method: str, hyperband: Mapping[str, int] | None = None) -> None:
        self._epochs = table.epochs
        spec: dict[str, Any] = {"program": "fersweep", "method": method, "metric": METRIC}
        spec["parameters"] = {**table.parameters, **{name: {"value": value} for name, value in table.fixed.items()}}
        if hyperband is not None:
            spec["early_terminate"] = {"type": "hyperband", **hyperband}
        self._open = contextlib.ExitStack()
        storage = f"sqlite:///{self._open.enter_context(tempfile.TemporaryDirectory())}/sweeps.db"
        # Without early_terminate, bayes would be freeze-thaw, whose turns this player does not take.
        sampler = "tpe" if method == "bayes" else None
        create_sweep(parse_sweep(spec), sweep_id="compare", storage=storage, seed=seed, sampler=sampler)
        self._search = self._open.enter_context(contextlib.closing(embedded_search("compare", storage)))

    def next(self) -> Trial | None:
        request = self._search.next_trial("cpu0")
        return Trial(request.parameters, request.trial_id) if isinstance(request, TrialRequest) else None

    def stops(self, trial: Trial) -> bool:
        epoch, latest = len(trial.accuracies), trial.accuracies[-1]
        metrics = {"epoch": epoch, "val_acc": latest, "best_val_acc": max(trial.accuracies)}
        return self._search.report(trial.handle, epoch, metrics) is not None

    def ended(self, trial: Trial) -> None:
        is_whole = len(trial.accuracies) == self._epochs
        if is_whole:
            self.stops(trial)
        self._search.finish(trial.handle, TrialOutcome(TrialState.COMPLETE if is_whole else TrialState.PRUNED))

    def close(self) -> None:
        self._open.close()


class WholeTrials:
    """What the searches without early stopping share."""

    def stops(self, trial: Trial) -> bool:
        return False

    def close(self) -> None:
        pass


class Optuna(WholeTrials):
    """One of Optuna's own samplers."""

    def __init__(self, table: Table, seed: int, *, sampler: Callable[..., optuna.samplers.BaseSampler]) -> None:
        self._axes = axes_of(parameters_of(table).parameters)
        self._study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))

    def next(self) -> Trial:
        asked = self._study.ask({name: axis.native for name, axis in self._axes.items()})
        return Trial({name: axis.value(asked.params[name]) for name, axis in self._axes.items()}, asked)

    def ended(self, trial: Trial) -> None:
        self._study.tell(trial.handle, max(trial.accuracies))


class WandbBayes(WholeTrials):
    """W&B's bayes, as its server runs it: the ``sweeps`` package."""

    def __init__(self, table: Table, seed: int) -> None:
        np.random.seed(seed)
        self._config = {
            "method": "bayes",
            "metric": METRIC,
            "parameters": {k: {**v} for k, v in table.parameters.items()},
        }
        self._runs: list[Any] = []

    def next(self) -> Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = sweeps.next_run(self._config, self._runs)
        run.state = sweeps.RunState.running
        self._runs.append(run)
        return Trial({name: given["value"] for name, given in run.config.items()}, run)

    def ended(self, trial: Trial) -> None:
        trial.handle.state = sweeps.RunState.finished
        trial.handle.summary_metrics = {METRIC["name"]: max(trial.accuracies)}


class Asha:
    """Random search with asynchronous successive halving (Li et al. 2020): the best third of a rung is promoted."""

    def __init__(self, table: Table, seed: int, *, first: int = 1, eta: int = 3) -> None:
        self._space, self._rng, self._eta = parameters_of(table), np.random.default_rng(seed), eta
        self._rungs = [first]
        while self._rungs[-1] * eta < table.epochs:
            self._rungs.append(self._rungs[-1] * eta)
        self._rungs.append(table.epochs)
        self._at: list[list[Trial]] = [[] for _ in self._rungs]

    def next(self) -> Trial:
        for rung in reversed(range(len(self._rungs) - 1)):
            ranked = sorted(self._at[rung], key=lambda trial: -max(trial.accuracies[: self._rungs[rung]]))
            for trial in ranked[: len(ranked) // self._eta]:
                if trial.handle == rung:
                    trial.handle = rung + 1
                    return trial
        return Trial(self._space.sample(self._rng), 0)

    def stops(self, trial: Trial) -> bool:
        return len(trial.accuracies) == self._rungs[trial.handle]

    def ended(self, trial: Trial) -> None:
        self._at[trial.handle].append(trial)

    def close(self) -> None:
        pass


class Thawing:
    """fersweep's freeze-thaw search."""

    def __init__(self, table: Table, seed: int, *, turn: int = 2) -> None:
        self._seed, self._epochs = seed, table.epochs
        parameters = parameters_of(table).parameters
        self._search = FreezeThaw(parameters, epochs=table.epochs, goal="maximize", turn=turn)
        self._trials: list[Trial] = []
        self._running: dict[int, int] = {}
        """The epoch to pause after, by place of the trial."""
        self._turns, self._fitted = 0, None

    def next(self) -> Trial | None:
        observations = [
            Observation(
                trial.values,
                trial.accuracies,
                running_until=self._running.get(place),
                is_paused=place not in self._running and len(trial.accuracies) < self._epochs,
            )
            for place, trial in enumerate(self._trials)
        ]
        rng = np.random.default_rng([self._seed, self._turns])
        turn = self._search.propose(observations, rng, fitted=self._fitted)
        if turn is None:
            return None
        self._turns, self._fitted = self._turns + 1, turn.fitted
        place = len(self._trials) if turn.trial is None else turn.trial
        if turn.trial is None:
            self._trials.append(Trial(turn.values, place))
        self._running[place] = turn.until
        return self._trials[place]

    def stops(self, trial: Trial) -> bool:
        return len(trial.accuracies) >= self._running[trial.handle]

    def ended(self, trial: Trial) -> None:
        del self._running[trial.handle]

    def close(self) -> None:
        pass


class Neps:
    """NePS's PriorBand (Mallik et al. 2023) without priors: hyperband over random trials and mutations of the best one.

    NePS itself chooses plain hyperband where there are no priors, but PriorBand is ahead of it on the first table. The
    brackets are its default ones, which keep every slot busy: NePS 0.17's asynchronous ones promote running trials.
    ifBO, NePS's freeze-thaw search, has to download its weights.

    NePS is not in the lock. To run it, install it beside fersweep and its ``dev`` extra in an environment of its own:
    ``uv pip install neural-pipeline-search``.

    Raises:
        ModuleNotFoundError: NePS is not installed.
    """

    def __init__(self, table: Table, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its botorch calls what torch has deprecated
            import neps  # optional
            import torch
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        axes: dict[str, Any] = {"epochs": neps.HPOInteger(1, table.epochs, is_fidelity=True)}
        for name, given in table.parameters.items():
            if "values" in given:
                axes[name] = neps.HPOCategorical(given["values"])
            else:
                axes[name] = neps.HPOFloat(given["min"], given["max"], log="distribution" in given)
        self._search = neps.AskAndTell(neps.algorithms.priorband(neps.SearchSpace(axes)))
        self._trials: dict[str, Trial] = {}
        """By the id that NePS gives each promotion."""

    def next(self) -> Trial:
        asked = self._search.ask()
        promoted = asked.metadata.previous_trial_id
        trial = Trial(asked.config) if promoted is None else self._trials[promoted]
        trial.handle = asked
        self._trials[asked.id] = trial
        return trial

    def stops(self, trial: Trial) -> bool:
        return len(trial.accuracies) == trial.handle.config["epochs"]

    def ended(self, trial: Trial) -> None:
        self._search.tell(trial.handle, 1 - max(trial.accuracies))

    def close(self) -> None:
        pass


def parameters_of(table: Table) -> Space:
    """The space that a search draws from."""
    return Space.from_sweep(parse_sweep({"method": "random", "parameters": table.parameters}))


HYPERBAND = {"min_iter": 3, "eta": 3}
SEARCHES: Mapping[str, Callable[[Table, int], Player]] = {
    "random": partial(Embedded, method="random"),
    "random + hyperband": partial(Embedded, method="random", hyperband=HYPERBAND),
    "ASHA with promotion": Asha,
    "TPE": partial(Embedded, method="bayes"),
    "TPE + hyperband": partial(Embedded, method="bayes", hyperband=HYPERBAND),
    "Optuna's GP": partial(Optuna, sampler=optuna.samplers.GPSampler),
    "W&B's bayes (GP)": WandbBayes,
    "NePS": Neps,
    "freeze-thaw": Thawing,
}
SETTINGS: Mapping[str, Callable[[Table, int], Player]] = {
    f"TPE + hyperband, {settings}": partial(Embedded, method="bayes", hyperband=settings)
    for settings in ({"min_iter": first, "eta": eta} for first in (1, 2, 3, 4, 6) for eta in (2, 3, 4))
}
