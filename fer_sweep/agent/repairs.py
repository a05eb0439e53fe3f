"""Runs that did not get through to the W&B server, brought up by ``fersweep sync`` as soon as the server answers again.

In a process of its own: wandb holds on to a run that it could not finish for as long as its process lives. wandb also
calls a run finished when the server has refused all of it; hence a look, a moment later, at what the server has.
"""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from fer_sweep.files import sweep_folder
from fer_sweep.host_processes import FERSWEEP

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 5.0
"""After the end of a run; a server may take a moment to work off what it was sent."""
FIRST_TRY_S = 10.0
"""After a run was left behind; each further try waits twice as long."""
LONGEST_PAUSE_S = 300.0
LONGEST_TRY_S = 60.0
"""A sync that takes longer is ended; it goes on where it stopped the next time."""


def sync_in_own_process(sweep_id: str, trials: Sequence[str]) -> bool:
    """Run ``fersweep sync`` for some trials of a sweep; whether all of it got through."""
    words = [word for trial in trials for word in ("--trial", trial)]
    # Its own wandb service: ours still holds the runs.
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
                timeout=LONGEST_TRY_S,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("runs could not be synced: %s", error)
        return False
    return done.returncode == 0


class Repairs:
    """The trials of one sweep whose runs are not whole on the server, and a thread that sees to them."""

    def __init__(
        self,
        sweep_id: str,
        *,
        is_whole: Callable[[str], bool | None] = lambda trial_id: True,
        left_behind: Callable[[], Iterable[str]] = tuple,
        look_behind_s: float = float("inf"),
        sync: Callable[[str, Sequence[str]], bool] = sync_in_own_process,
    ) -> None:
        """Nothing to repair yet.

        Args:
            sweep_id: The sweep.
            is_whole: Asks the server whether a trial's run has ended there; None where it does not answer.
            left_behind: Gives the trials whose runs have not ended there, and that nobody sees to.
            look_behind_s: Seconds between two questions for such; they are asked for once more at the end.
            sync: Uploads the runs of some trials of the sweep; gives whether all of it got through.
        """
        self._sweep_id = sweep_id
        self._is_whole = is_whole
        self._left_behind = left_behind
        self._look_behind_s = look_behind_s
        self._sync = sync
        self._next_look_behind = time.monotonic() + look_behind_s
        self._changed = threading.Condition()
        self._looks: dict[str, float] = {}
        """Trials whose run is to be looked for on the server, and when; by the monotonic clock."""
        self._left: set[str] = set()
        self._pause = FIRST_TRY_S
        self._next_try = float("inf")
        self._closing = False
        self._thread: threading.Thread | None = None

    def heard(self, trial_id: str, whole: bool) -> None:
        """A trial's run has ended: whole as far as wandb knows, or not."""
        with self._changed:
            if whole:
                self._looks[trial_id] = time.monotonic() + LOOK_AGAIN_S
            else:
                self._leave(trial_id)
            self._start()
            self._changed.notify_all()

    def watch(self) -> None:
        """Look for runs that were left behind, from now on: a server that searches waits for their ends."""
        with self._changed:
            self._next_look_behind = time.monotonic()
            self._start()
            self._changed.notify_all()

    def finish(self) -> tuple[str, ...]:
        """See to all that is left, a last time; gives the trials whose runs still are not whole.

        Call it once this process's wandb has been closed: until then its late writes can reopen a finished run.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._look(list(self._looks))
        self._left |= set(self._left_behind())
        if self._left:
            self._try()
        return tuple(sorted(self._left))

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="repairs")
            self._thread.start()

    def _leave(self, trial_id: str) -> None:
        self._left.add(trial_id)
        self._next_try = min(self._next_try, time.monotonic() + self._pause)

    def _work(self) -> None:
        while True:
            with self._changed:
                # Asked before each wait: what was said while this thread was at work has woken nobody.
                while not self._closing and (due := self._due()) > time.monotonic():
                    self._changed.wait(None if due == float("inf") else due - time.monotonic())
                if self._closing:
                    return
                now = time.monotonic()
                looks = [trial for trial, when in self._looks.items() if when <= now]
            self._look(looks)
            if now >= self._next_look_behind:
                self._look_behind()
            if self._left and time.monotonic() >= self._next_try:
                self._try()

    def _due(self) -> float:
        return min([self._next_try, self._next_look_behind, *self._looks.values()])

    def _look_behind(self) -> None:
        trials = set(self._left_behind())
        with self._changed:
            now = time.monotonic()
            if trials - self._left:
                self._left |= trials
                self._next_try = now  # the server answers, as it has just said what is left
            self._next_look_behind = now + self._look_behind_s

    def _look(self, trials: list[str]) -> None:
        for trial in trials:
            whole = self._is_whole(trial)
            with self._changed:
                if whole is None:  # it would not answer for the others either; wandb's word stands until it does
                    later = time.monotonic() + LOOK_AGAIN_S
                    self._looks.update({trial: later for trial in trials if trial in self._looks})
                    return
                del self._looks[trial]
                if not whole:
                    self._leave(trial)

    def _try(self) -> None:
        with self._changed:
            # Taken out now: a trial whose next attempt ends meanwhile, which this sync cannot know of, comes in again.
            trials = sorted(self._left)
            self._left.clear()
        done = self._sync(self._sweep_id, trials)
        with self._changed:
            if done:
                # Our wandb still holds these runs, and what it has yet to send may reopen them: look at the end.
                for trial in trials:
                    self._looks.setdefault(trial, float("inf"))
            else:
                self._left |= set(trials)
            self._pause = FIRST_TRY_S if done else min(LONGEST_PAUSE_S, 2 * self._pause)
            self._next_try = time.monotonic() + self._pause if self._left else float("inf")
