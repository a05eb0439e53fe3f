"""A sweep that a W&B server searches: the server proposes its trials and stores its state."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fer_sweep.errors import InputError, NothingToDo, ServerError
from fer_sweep.records import SweepState, TrialRecord
from fer_sweep.store.engine import Row
from fer_sweep.store.leases import lease_seconds
from fer_sweep.store.sweeps import record_of
from fer_sweep.store.trials import Ledger
from fer_sweep.sweeps.opened import OPEN_STATES, OpenSearch, Remaining, Sweep

if TYPE_CHECKING:
    from fer_sweep.wandb_client.messages import SweepPath
    from fer_sweep.wandb_client.sweeps import Made


NOT_FOUND = "not found on W&B"
"""The state of a sweep that was deleted on its page, or that the account in use does not see."""


class ServedSweep(Sweep):
    """Its trials have the ids of their W&B runs; our database has their leases and reports."""

    searched_by_server = True

    @property
    def sampler(self) -> None:
        """See ``Sweep.sampler``: the server decides."""

    @property
    def searched_by(self) -> str:
        """See ``Sweep.searched_by``."""
        return f"the W&B server's {self.file.method}"

    @property
    def path(self) -> "SweepPath":
        """Where it is on the server."""
        from fer_sweep.wandb_client.messages import SweepPath

        return SweepPath.read(self.entry.path or "")

    @property
    def state(self) -> str:
        """See ``Sweep.state``."""
        return self._state()

    def _state(self, **tries: int) -> str:
        from fer_sweep.wandb_client.transport import NotFound

        try:
            return str(self.server.sweep(self.path, **tries).state)
        except NotFound:  # deleted on its page, or another account or server is in use
            return NOT_FOUND

    def set_state(self, state: str) -> None:
        """See ``Sweep.set_state``."""
        current = self.state
        # A server does not distinguish a stopped sweep from a finished one.
        if current == state or (current, state) == (SweepState.FINISHED, SweepState.STOPPED):
            return
        if current == NOT_FOUND or (current not in OPEN_STATES and state != SweepState.RUNNING):
            raise InputError(f"sweep {self.id} is {current} and cannot become {state}", hint=self.successor)
        self.server.set_state(self.path, SweepState(state))

    def check_not_cancelled(self) -> None:
        """See ``Sweep.check_not_cancelled``."""
        if self.state == NOT_FOUND:
            raise NothingToDo(f"sweep {self.path} is {NOT_FOUND}", hint=self.successor)
        super().check_not_cancelled()

    def _requeue(self, numbers: Mapping[str, int]) -> None:
        for trial_id in numbers:
            self.server.requeue(self.path, trial_id)
        super()._requeue(numbers)
        if self.state == SweepState.FINISHED:
            self.set_state(SweepState.RUNNING)

    def trials(self) -> Sequence[TrialRecord]:
        """See ``Sweep.trials``: those of this database, and those of other hosts from the server."""
        with contextlib.closing(self.search()) as search:
            return search.records()

    def glance(self, *, ask_server: bool = True) -> tuple[str | None, Sequence[TrialRecord]]:
        """See ``Sweep.glance``."""
        with self.ledger() as ledger:
            here = [record_of(row, row["identity"]) for row in ledger.all()]
        if ask_server:
            from fer_sweep.wandb_client.reconcile import merged

            with contextlib.suppress(ServerError, InputError):
                return self._state(tries=1), merged(here, self.server.runs(self.path, tries=1))
        return None, here

    def remaining(self) -> Remaining:
        """See ``Sweep.remaining``: the server tells its agents only when no trials are left."""
        return Remaining(None)

    def trial_of(self, row: Row) -> str:
        """See ``Sweep.trial_of``: the id of its run."""
        return str(row["identity"])

    def _number(self, ledger: Ledger, trial_id: str) -> int | None:
        row = ledger.find(trial_id)
        return None if row is None else row["number"]

    def search(self) -> OpenSearch:
        """See ``Sweep.search``."""
        from fer_sweep.wandb_client.server_search import WandbSearch

        return WandbSearch(
            self.path,
            self.database,
            connect=lambda: self.server,
            lease_s=lease_seconds(),
            can_be_resumed=self._can_be_resumed,
        )

    def run_id(self, trial_id: str) -> str:
        """See ``Sweep.run_id``."""
        return trial_id

    def page(self) -> "Made":
        """See ``Sweep.page``."""
        from fer_sweep.wandb_client.sweeps import Made

        return Made(self.path, self.entry.url or "", ())

    def known_page(self, server: str) -> "SweepPath":
        """See ``Sweep.known_page``."""
        return self.path

    def close_page(self) -> None:
        """See ``Sweep.close_page``: the server does it."""

    def uploads(self, record: TrialRecord) -> bool:
        """See ``Sweep.uploads``: trials that ended on this host; the server requeues the others."""
        return record.state.has_ended and (
            self.trial_folder(record.trial_id).is_dir() or bool(self.reports(record.trial_id))
        )
