"""history.jsonl: one line of metrics an epoch, in order, without gaps or repeats."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_sweep.errors import StorageError
from fer_sweep.files import write_atomically

Row = dict[str, float]


class History:
    """The epochs of one trial, in memory and on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch; it is in the file when this returns.

        Raises:
            StorageError: The file cannot be written.
        """
        self.rows.append(dict(row))
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path}: {error.strerror or error}",
                hint="make room or make the folder writable, then run the same command again",
            ) from error

    def restart(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Make ``rows`` the whole history: what a dead attempt wrote after its last checkpoint is trained again.

        Raises:
            StorageError: The file cannot be written.
        """
        self.rows = [dict(row) for row in rows]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))


def read_history(path: Path) -> list[Row]:
    """Every whole line of a history file; none if there is no file.

    A last line cut off by a crash is left out.
    """
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]
