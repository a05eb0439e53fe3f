"""history.jsonl: one line of metrics an epoch, in order, without gaps or repeats."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fer_sweep.errors import StorageError, cannot_write
from fer_sweep.files import write_atomically

Row = dict[str, int | float]

_ROW: TypeAdapter[Row] = TypeAdapter(Row, config=ConfigDict(strict=True))


class History:
    """The epochs of one trial, in memory and on disk; StorageError if the file cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch; it is in the file when this returns."""
        self.rows.append(dict(row))
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def restart(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Make ``rows`` the whole history: what a dead attempt wrote after its last checkpoint is trained again."""
        self.rows = [dict(row) for row in rows]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))


def read_history(path: Path) -> list[Row]:
    """Every whole line of a history file, without a last one that a crash cut off; none if there is no file.

    Raises:
        StorageError: The file cannot be read, or a line in it is not the next epoch's metrics.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="make it readable, then run the same command again",
        ) from error
    rows: list[Row] = []
    for epoch, line in enumerate(lines, start=1):
        try:
            row = _ROW.validate_json(line)
            problem = None if row.get("epoch") == epoch else f"its epoch is {row.get('epoch')}"
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
        if problem:
            raise StorageError(
                f"{path}, line {epoch}: not the metrics of epoch {epoch}: {problem}",
                hint="the file was edited or damaged: restore it, or move it away to continue without its epochs",
            )
        rows.append(row)
    return rows
