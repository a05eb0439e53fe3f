"""The expected gain of a sweep in the database, and the rule that finishes it once going on is not worth it."""

import json
import math
from collections.abc import Sequence

from fer_sweep.config.metrics import EPOCH_METRICS
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.config.trial import SharedConfig
from fer_sweep.errors import InputError
from fer_sweep.records import TrialResult, TrialState
from fer_sweep.search.convergence import Prediction, Searched, is_converged, look, predict
from fer_sweep.search.freeze_thaw.history import Observation
from fer_sweep.selection.intervals import binomial_error
from fer_sweep.store.caches import Histories
from fer_sweep.store.trials import Ledger

ACCURACIES = ("best_val_acc", "val_acc")
"""Metrics whose standard error follows from the number of validation images."""


def is_predictable(sweep: SweepFile) -> bool:
    """Whether gains can be predicted: one objective, reported each epoch, and a space that the file has in full."""
    return len(sweep.objectives) == 1 and sweep.objectives[0].name in EPOCH_METRICS and not sweep.has_own_space


def check_can_converge(sweep: SweepFile) -> None:
    """Raise ``InputError`` for a sweep that cannot be created with ``--until-converged``."""
    if not is_predictable(sweep) or sweep.objectives[0].name not in ACCURACIES:
        raise InputError(
            f"--until-converged needs `metric:` with the name {' or '.join(ACCURACIES)}, and a space in the sweep file",
            hint="limit the sweep by --count or --budget-epochs instead",
        )


class Worth:
    """What training on is worth in one sweep.

    Args:
        sweep: Its file; see ``is_predictable``.
        histories: The values of its objective, up to date.
        seed: Of the search.
        takes_turns: Whether freeze-thaw searches it.
    """

    def __init__(self, sweep: SweepFile, histories: Histories, *, seed: int, takes_turns: bool) -> None:
        self._metric = sweep.objectives[0]
        self._searched: Searched = "random" if sweep.method in ("random", "grid") else "model"
        if takes_turns:
            self._searched = "freeze_thaw"
        self._parameters = Space.from_sweep(sweep).parameters
        self._histories, self._seed = histories, seed
        self._looked = 0
        self.is_over = False
        """Whether going on was not worth it when the rule was last applied."""

    def apply(self, ledger: Ledger) -> None:
        """Apply the rule if it is time to; sets ``is_over``."""
        now = look(ledger.reported_epochs())
        if now != self._looked:
            self._looked = now
            found, error = self.predict(ledger), self.standard_error(ledger)
            self.is_over = found is not None and error is not None and is_converged(found.gain(found.spent), error)

    def predict(self, ledger: Ledger) -> Prediction | None:
        """What further epochs are expected to gain; None while it is unknown."""
        return predict(
            self._parameters,
            self._observations(ledger),
            last_epoch=SharedConfig.model_fields["epochs"].default,
            goal=self._metric.goal,
            searched=self._searched,
            seed=self._seed,
        )

    def standard_error(self, ledger: Ledger) -> float | None:
        """Of the best value, an accuracy; None if the number of validation images is not known yet."""
        if self._metric.name not in ACCURACIES:
            return None
        result = next((TrialResult.model_validate_json(text) for text in ledger.results()), None)
        values = [value for curve in self._histories.all() for value in curve if math.isfinite(value)]
        if result is None or not values:
            return None
        return binomial_error(max(values), sum(map(sum, result.confusion_matrix)))

    def _observations(self, ledger: Ledger) -> Sequence[Observation]:
        found = []
        for row in ledger.states():
            state = TrialState(row["state"])
            found.append(
                Observation(
                    json.loads(row["parameters"]),
                    self._histories.of(row["number"]),
                    is_paused=not state.has_ended,
                    has_failed=state is TrialState.FAILED,
                )
            )
        return found
