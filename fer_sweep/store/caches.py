"""What an agent keeps in memory of a sweep's trials: which configurations there are, and a metric's values by epoch."""

import json
from collections.abc import Sequence

from fer_sweep.config.trial import TrialConfig, parse_trial_json
from fer_sweep.errors import ConfigError
from fer_sweep.store.engine import Row
from fer_sweep.store.trials import Ledger


class ConfigIndex:
    """Finds the trials of one sweep by their configuration, whichever agent and version of fersweep wrote them.

    Parsed models are compared, since the JSON of an earlier version lacks the fields added later.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, list[int]] = {}
        """Trials by the hash of their configuration. A parsed model takes 4 KB, so candidates are read again."""
        self._next = 0
        """Number of the first trial not read yet."""

    def catch_up(self, ledger: Ledger) -> None:
        """Read the trials added since the last call."""
        for row in ledger.configs_from(self._next):
            config = _parsed(row)
            if config is not None:
                self._numbers.setdefault(hash(config), []).append(row["number"])
            self._next = row["number"] + 1

    def find(self, config: TrialConfig, ledger: Ledger) -> list[Row]:
        """Every trial of this configuration, in order.

        Call it before a transaction adds a trial: if that transaction is rolled back, the index would keep the trial.
        """
        self.catch_up(ledger)
        suspects = self._numbers.get(hash(config))
        return [row for row in ledger.numbered(suspects) if _parsed(row) == config] if suspects else []


def _parsed(row: Row) -> TrialConfig | None:
    try:
        return parse_trial_json(row["config"])
    except ConfigError:
        return None  # of a version with other fields or bounds: this one cannot propose an equal configuration


class Histories:
    """The values of one metric of every trial, with what all agents report.

    A trial that starts from another's weights has none: it is ahead of all others at the same epoch, so it is neither
    stopped by comparison with them nor does it stop them.

    Not to be updated in a transaction that reports something: if it is rolled back, its report would stay.
    """

    def __init__(self, metric: str | None) -> None:
        self._metric = metric
        self._latest = 0
        """Id of the last report read."""
        self._by_epoch: dict[int, dict[int, float]] = {}
        self._values: dict[int, list[float]] = {}
        self._ahead: set[int] = set()
        """Trials that start from another's weights."""
        self._next = 0
        """Number of the first trial not read yet."""

    def update(self, ledger: Ledger) -> None:
        """Read what is new."""
        if self._metric is None:
            return
        for row in ledger.configs_from(self._next):
            if json.loads(row["config"]).get("weights_from"):
                self._ahead.add(row["number"])
            self._next = row["number"] + 1
        changed = set()
        for row in ledger.reports_after(self._latest):
            self._latest = row["id"]
            value = json.loads(row["metrics"]).get(self._metric)
            if value is not None and row["number"] not in self._ahead:
                self._by_epoch.setdefault(row["number"], {})[row["epoch"]] = float(value)
                changed.add(row["number"])
        for number in changed:
            self._values[number] = [value for _, value in sorted(self._by_epoch[number].items())]

    def of(self, number: int) -> Sequence[float]:
        """One trial's values, in the order of its epochs; not all of them need be finite."""
        return self._values.get(number, [])

    def all(self) -> Sequence[Sequence[float]]:
        """Every trial's values."""
        return list(self._values.values())
