"""Finds the trials of a sweep by their configuration."""

from fer_sweep.config.trial import TrialConfig, parse_trial_json
from fer_sweep.errors import ConfigError
from fer_sweep.store.database import Row
from fer_sweep.store.trials import Ledger


class ConfigIndex:
    """The configurations of one sweep's trials, written by any agent and any version of fersweep.

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
        return None  # written by a version with other fields or bounds: this one cannot propose an equal configuration
