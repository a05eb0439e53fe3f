"""What the trials of a sweep get done, read off their folders while they run."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path

LOOK_EVERY_S = 0.02


class Progress:
    """When each trial had a new epoch: its history has grown, or its result is there."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials
        self._sizes: dict[str, tuple[int, int]] = {}
        """Inode and size of each history: a resumed trial begins with a new file, which is no epoch yet."""
        self._over: set[str] = set()
        self._epochs: list[tuple[float, str]] = []
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
        return bool(self._epochs) and self._epochs[-1][0] >= moment

    def back_after(self, moment: float, trials: Iterable[str]) -> float | None:
        """Seconds from a moment until each of these trials had another epoch; None if one of them never had."""
        firsts = [next((at for at, name in self._epochs if at > moment and name == trial), None) for trial in trials]
        known = [at for at in firsts if at is not None]
        return max(known) - moment if known and len(known) == len(firsts) else None

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
                self._epochs.append((time.monotonic(), folder.name))
                continue
            try:
                status = (folder / "history.jsonl").stat()
            except FileNotFoundError:
                continue
            now = (status.st_ino, status.st_size)
            before = self._sizes.get(folder.name, (now[0], 0))
            if now[0] == before[0] and now[1] > before[1]:
                self._epochs.append((time.monotonic(), folder.name))
            self._sizes[folder.name] = now
