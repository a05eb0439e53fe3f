"""Runs that a W&B server takes to be in hand, and of which it hears nothing."""

import logging
from collections.abc import Callable, Iterable, Sequence

from fer_sweep.errors import FersweepError
from fer_sweep.records import TrialState
from fer_sweep.store.leases import Leases
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import IN_HAND, ServerRun, SweepPath
from fer_sweep.wandb_client.slots import RUN_ID

log = logging.getLogger(__name__)


class Unheard:
    """For how long the server has heard nothing of each of some runs."""

    def __init__(self, lease_s: float, clock: Callable[[], float]) -> None:
        """Begin with none.

        Args:
            lease_s: Seconds of silence after which nobody has a run.
            clock: Unix time, seconds.
        """
        self._lease_s = lease_s
        self._clock = clock
        self._since: dict[tuple[str, float | None, int], float] = {}
        """By run and its last sign of life, when it was first seen so."""
        self._looked_at = float("-inf")

    @property
    def ids(self) -> Sequence[str]:
        """The runs that were there at the last look."""
        return [run_id for run_id, _, _ in self._since]

    def is_due(self) -> bool:
        """Whether it is time for another look at the server's runs: a quarter of a lease after the last one."""
        return self._clock() - self._looked_at >= self._lease_s / 4

    def look(self, runs: Iterable[ServerRun]) -> Sequence[ServerRun]:
        """Those of these runs, which nobody here has, that have given no sign of life for a lease's time."""
        now = self._looked_at = self._clock()
        signs = {(run.id, run.heartbeat_at, run.steps): run for run in runs}  # new with every sign of life
        self._since = {sign: self._since.get(sign, now) for sign in signs}
        return [signs[sign] for sign, since in self._since.items() if now - since >= self._lease_s]


def nobodys(server: WandbServer, path: SweepPath, leases: Leases) -> Sequence[ServerRun]:
    """The runs that the server takes to be in hand and nobody of this database has; none if it does not answer.

    Those are offers that nobody here has begun, and trials that were preempted here.
    """
    try:
        runs = server.runs(path, states=IN_HAND, tries=1)
    except FersweepError as error:
        log.debug("%s", error)
        return ()
    with leases.ledger(write=False) as ledger:
        here = {run.id: ledger.find(run.id) for run in runs}

    def is_nobodys(run: ServerRun) -> bool:
        row = here[run.id]
        if row is None:
            return run.state == "pending" and RUN_ID.fullmatch(run.id) is not None
        return bool(row["state"] == TrialState.PREEMPTED)

    return [run for run in runs if is_nobodys(run)]
