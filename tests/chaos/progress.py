"""What the trials of a sweep get done, read off their folders while they run."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Epoch:
    """One epoch seen."""

    at: float
    """By the monotonic clock."""
    trial: str
    file: int
    """Inode of the history it is in: each attempt begins with a new file. 0 for the trial's result."""


class Progress:
    """When each trial had a new epoch: its history has grown, or its result is there."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials
        self._sizes: dict[str, tuple[int, int]] = {}
        """Inode and size of each history: a resumed trial begins with a new file, which is no epoch yet."""
        self._over: set[str] = set()
        self._epochs: list[Epoch] = []
        self._begun: list[tuple[float, str, int]] = []
        """When which trial began which file of history."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def is_over(self, trial: str) -> bool:
        """Whether the trial's result has been seen."""
        return trial in self._over

    def since(self, moment: float) -> bool:
        """Whether any trial has had an epoch since then (monotonic clock)."""
        return bool(self._epochs) and self._epochs[-1].at >= moment

    def back_after(self, moment: float, trials: Iterable[str], *, anew: bool) -> float | None:
        """Seconds from a moment until each of these trials had another epoch; None if one of them never had.

        Args:
            moment: By the monotonic clock.
            trials: Which ones.
            anew: Only epochs of another process than before count: that one was killed.
        """
        firsts = [self._first(moment, trial, anew) for trial in trials]
        known = [at for at in firsts if at is not None]
        return max(known) - moment if known and len(known) == len(firsts) else None

    def _first(self, moment: float, trial: str, anew: bool) -> float | None:
        of_trial = [epoch for epoch in self._epochs if epoch.trial == trial]
        files = [file for at, name, file in self._begun if name == trial and at <= moment]
        file = files[-1] if files and anew else None
        return next((epoch.at for epoch in of_trial if epoch.at > moment and epoch.file != file), None)

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        folders = list(self._trials.iterdir()) if self._trials.is_dir() else []
        for folder in folders:
            if folder.name in self._over:
                continue
            if (folder / "result.json").exists():
                self._over.add(folder.name)
                self._epochs.append(Epoch(time.monotonic(), folder.name, 0))
                continue
            try:
                status = (folder / "history.jsonl").stat()
            except FileNotFoundError:
                continue
            now = (status.st_ino, status.st_size)
            before = self._sizes.get(folder.name, (0, 0))
            if now[0] != before[0]:
                self._begun.append((time.monotonic(), folder.name, now[0]))
            if now[0] == before[0] and now[1] > before[1]:
                self._epochs.append(Epoch(time.monotonic(), folder.name, now[0]))
            self._sizes[folder.name] = now
