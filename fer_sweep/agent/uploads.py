"""An agent's upload of runs that are not complete on the W&B server: while it works, and once more at its end.

The upload is a process of its own, because wandb keeps a run that it could not finish for as long as its process lives.
wandb reports a run as finished even when the server refused all of it, so the server is asked what it has.
"""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from fer_sweep.files import sweep_folder
from fer_sweep.host_processes import FERSWEEP
from fer_sweep.wandb_client.reconcile import UPLOADS, Action

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""After the end of a run, before the server is asked for it: the server may still process what it was sent."""
LONGEST_PAUSE_S = 300.0
LONGEST_UPLOAD_S = 60.0
"""An upload that takes longer is terminated; the next one continues where it stopped."""


def upload_in_own_process(sweep_id: str, trials: Sequence[str]) -> bool:
    """Run ``fersweep sync`` for some trials of a sweep; gives whether it succeeded."""
    words = [word for trial in trials for word in ("--trial", trial)]
    # With a wandb service of its own: ours still has the runs open.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    try:
        with (sweep_folder(sweep_id) / "sync.log").open("ab") as output:
            done = subprocess.run(
                [*FERSWEEP, "sync", sweep_id, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the agent
                timeout=LONGEST_UPLOAD_S,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("runs could not be synced: %s", error)
        return False
    return done.returncode == 0


class Uploads:
    """The runs of one sweep that an agent is to upload, and a thread that does."""

    def __init__(
        self,
        sweep_id: str,
        *,
        check: Callable[[Collection[str]], Mapping[str, Action] | None],
        pause_s: float,
        upload: Callable[[str, Sequence[str]], bool] = upload_in_own_process,
    ) -> None:
        """Start nothing yet.

        Args:
            sweep_id: The sweep.
            check: ``sync.check``: what to do about each of these trials; None if the server does not answer.
            pause_s: Seconds between two checks; each failure in a row doubles them.
            upload: Uploads the runs of some trials; gives whether all of them succeeded.
        """
        self._sweep_id = sweep_id
        self._check = check
        self._pause_s = pause_s
        self._upload = upload
        self._lock = threading.Lock()
        """Guards what follows."""
        self._ended: dict[str, float] = {}
        """Trials whose runs this process has ended, and when; by the monotonic clock. They are checked until they are
        complete on the server, and those that were uploaded again at the end: late writes may reopen their runs."""
        self._uploaded: set[str] = set()
        self._unsent: set[str] = set()
        """Trials whose upload failed, by wandb's word or ours."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="uploads")

    def start(self) -> None:
        """Check from now on, as the runs of agents that were killed may be incomplete."""
        self._thread.start()

    def ended(self, trial_id: str, is_sent: bool) -> None:
        """Note that wandb has ended a trial's run, and whether it has sent all of it."""
        with self._lock:
            self._ended[trial_id] = time.monotonic()
            if not is_sent:
                self._unsent.add(trial_id)

    def finish(self) -> tuple[str, ...]:
        """Upload what is left; gives the trials whose runs are still not complete.

        Call it once this process's wandb has been closed: until then its late writes can reopen a finished run.
        """
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reconcile(settle_s=0.0)
        return tuple(sorted(self._unsent))

    def _work(self) -> None:
        pause = self._pause_s
        while True:
            succeeded = self._reconcile(settle_s=SETTLE_S)
            pause = self._pause_s if succeeded else min(LONGEST_PAUSE_S, 2 * pause)
            if self._closing.wait(pause):
                return

    def _reconcile(self, *, settle_s: float) -> bool:
        """Check the trials that ended at least so long ago, and upload; False if the server or the upload failed."""
        with self._lock:
            before = time.monotonic() - settle_s
            own = {trial: when for trial, when in self._ended.items() if when <= before}
        if (actions := self._check(own)) is None:
            return False
        trials = sorted(trial for trial, action in actions.items() if action in UPLOADS)
        with self._lock:
            for trial, action in actions.items():
                if self._ended.get(trial) == own.get(trial):  # else its next attempt has ended since
                    self._unsent.discard(trial)
                    if action not in UPLOADS and trial not in self._uploaded:
                        self._ended.pop(trial, None)
        succeeded = not trials or self._upload(self._sweep_id, trials)
        with self._lock:
            (self._uploaded if succeeded else self._unsent).update(trials)
        return succeeded
