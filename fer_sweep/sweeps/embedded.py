"""A sweep with the embedded search, whose state is in a database: it needs no server or account."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fer_sweep.errors import FersweepError
from fer_sweep.files import has_checkpoint
from fer_sweep.records import SweepState, TrialRecord
from fer_sweep.search.method import in_words, sampler_of
from fer_sweep.store.engine import Row
from fer_sweep.store.leases import Leases, lease_seconds
from fer_sweep.store.sweeps import numbered_trials, set_sweep_state
from fer_sweep.store.trials import Ledger
from fer_sweep.sweeps.opened import OPEN_STATES, OpenSearch, Remaining, Sweep

if TYPE_CHECKING:
    from fer_sweep.wandb_client.messages import SweepPath
    from fer_sweep.wandb_client.sweeps import Made

log = logging.getLogger(__name__)


class EmbeddedSweep(Sweep):
    """Its W&B runs have the ids SWEEP-TRIAL; its page on the server is created with the first run."""

    searched_by_server = False

    @property
    def sampler(self) -> str:
        """See ``Sweep.sampler``."""
        settings = self.settings()  # first: the file follows it
        return sampler_of(self.file, settings)

    @property
    def searched_by(self) -> str:
        """See ``Sweep.searched_by``: such as "TPE with hyperband"."""
        settings = self.settings()
        return in_words(self.file, settings)

    @property
    def state(self) -> str:
        """See ``Sweep.state``."""
        with self.ledger() as ledger:
            return str(ledger.state())

    def set_state(self, state: str) -> None:
        """See ``Sweep.set_state``."""
        set_sweep_state(self.database, self.id, state)

    def trials(self) -> Sequence[TrialRecord]:
        """See ``Sweep.trials``; does not need Optuna."""
        return numbered_trials(self.database, self.id)

    def remaining(self) -> Remaining:
        """See ``Sweep.remaining``."""
        leases = Leases(self.database, self.id, owner="nobody", lease_s=lease_seconds(), clock=None)
        with leases.ledger(write=False) as ledger:
            settings, started = ledger.settings(), ledger.count()
            unended = len(ledger.unended())
            unleased = len(ledger.paused()) + sum(1 for _ in leases.free(ledger))
            is_spent = settings.budget_epochs is not None and ledger.reported_epochs() >= settings.budget_epochs
        if settings.state not in OPEN_STATES:
            return Remaining(0, unended - unleased)
        if is_spent:
            return Remaining(unleased, unended - unleased)
        free = None if self.planned is None else max(0, self.planned - started) + unleased
        return Remaining(free, unended - unleased)

    def trial_of(self, row: Row) -> str:
        """See ``Sweep.trial_of``: its number."""
        return str(row["number"])

    def _number(self, ledger: Ledger, trial_id: str) -> int | None:
        return int(trial_id) if trial_id.isdecimal() else None

    def search(self) -> OpenSearch:
        """See ``Sweep.search``."""
        from fer_sweep.search.embedded import EmbeddedSearch  # only here: reading a sweep needs no search

        return EmbeddedSearch(
            self.id,
            self.database,
            lease_s=lease_seconds(),
            can_be_resumed=self._can_be_resumed,
            has_checkpoint=lambda trial_id: has_checkpoint(self.id, trial_id),
            may_pause=self.may_pause,
            time_left_s=lambda: self.time_left_s(),
        )

    def run_id(self, trial_id: str) -> str:
        """See ``Sweep.run_id``."""
        return f"{self.id}-{trial_id}"

    def page(self) -> "Made":
        """See ``Sweep.page``."""
        from fer_sweep.wandb_client import sweeps as wandb_sweeps

        return wandb_sweeps.stand_in_for(self.server, self.id, self.file, is_open=self.state in OPEN_STATES)

    def known_page(self, server: str) -> "SweepPath | None":
        """See ``Sweep.known_page``."""
        from fer_sweep.wandb_client import sweeps as wandb_sweeps

        return wandb_sweeps.known_page(self.id, server)

    def close_page(self) -> None:
        """See ``Sweep.close_page``."""
        if not (self.folder / "wandb.json").exists():
            return
        try:
            if self.state in OPEN_STATES:
                return
            path = self.known_page(self.server.account.server)
            if path is not None and self.server.sweep(path).state is SweepState.RUNNING:
                self.server.set_state(path, SweepState.FINISHED)
        except FersweepError as error:
            log.warning("the sweep's page still shows it as running: %s", error)
