"""history.jsonl: one line of metrics an epoch, in order, without gaps or repeats."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_sweep.errors import StorageError, cannot_write
from fer_sweep.files import parse_object, write_atomically

Row = dict[str, float]

_LARGEST = 16 << 20
"""Bytes. An epoch takes some 250, and there are at most 10,000."""
_HINT = "the file was edited or damaged: restore it, or move it away to continue without its epochs"


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
            raise cannot_write(self.path, error) from error

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

    Raises:
        StorageError: The file cannot be read, or a line in it is not the next epoch's metrics.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="make it readable, then run the same command again",
        ) from error
    if len(content) > _LARGEST:
        raise StorageError(f"{path} is larger than {_LARGEST >> 20} MiB, so it is not a history", hint=_HINT)
    rows: list[Row] = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            rows.append(_check_row(parse_object(line), number))
        except ValueError as error:
            raise StorageError(
                f"{path}, line {number}: not the metrics of epoch {number}: {error}", hint=_HINT
            ) from error
    return rows


def _check_row(row: Any, epoch: int) -> Row:
    """The metrics of an epoch, if that is what they are.

    Raises:
        ValueError: They are something else.
    """
    if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
        raise ValueError("not a dictionary of metrics")
    for name, value in row.items():
        if type(value) is not float and not (type(value) is int and abs(value) < 2**53):
            raise ValueError(f"{name[:40]!r} is not a number")
    if row.get("epoch") != epoch:
        raise ValueError(f"its epoch is {row.get('epoch')}")
    return row
