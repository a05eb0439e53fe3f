"""Every error fersweep raises on purpose, each with a hint and the exit code of the command it ends.

FersweepError             1  a failure that a retry or a repair may fix
|-- InputError            2  unusable input of the user
|   |-- WrittenFileError  2  a written file; has every problem found, with line and key
|   |   |-- SweepFileError  2  a sweep file
|   |   `-- PoolFileError   2  a pool file: where agents run
|   |-- ConfigError       2  values that the training function rejects
|   |-- DataError         2  a data set: missing, wrong layout, truncated, hostile
|   |   `-- OtherData     2  its content differs from what the sweep pinned
|   `-- LoginError        2  the W&B API key is missing, invalid or lacks permission
|-- NothingToDo           3  there is nothing for the command to do
|-- StorageError          1  the database or a file under FERSWEEP_HOME
|-- WeightsUnavailable    1  pretrained weights that are neither on disk nor downloadable
|-- CheckpointError       1  a checkpoint that cannot be read or belongs to another trial
|-- DeviceMissing         1  torch does not have the GPU that a trial is to use
|-- LostTrial             1  another agent has reclaimed the lease of this trial
|-- PoolError             1  Slurm or Ray is not installed, refuses or does not answer
|-- ServerError           1  a W&B server is unreachable or answers with an error
|   `-- ServerBusy        1  a temporary one: a retry may help
`-- AgentFailed           1  the agent stopped itself: trials failed one after another
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_SHOWN = 20
"""Problems of a file that its error prints."""
MOST_CHARACTERS = 400
"""Of a problem's message, and of its hint, as printed."""


class FersweepError(Exception):
    """The root: ``str(error)`` says what was wrong and where, ``hint`` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # for tracebacks: in a notebook nothing else would show it


class InputError(FersweepError):
    """The user's input is not usable."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One problem in a written file."""

    message: str
    key: str = ""
    """Dotted path of the key, such as ``parameters.lr.min``; empty for the file as a whole."""
    line: int | None = None
    """Line in the file, counted from 1."""
    hint: str | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        key = f"{_cut(self.key)}: " if self.key else ""
        hint = f" ({_cut(self.hint)})" if self.hint else ""
        return f"{where}{key}{_cut(self.message)}{hint}"


def _cut(text: str) -> str:
    # A message may quote a value of the file, which may be the whole of it.
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


class WrittenFileError(InputError):
    """A file that cannot be used.

    ``problems`` holds every one found, in the order of the file; the message has the first MOST_SHOWN.
    """

    def __init__(self, source: str, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        lines = [f"  {source}, {problem}" for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"  and {len(self.problems) - MOST_SHOWN:,} more")
        super().__init__("\n".join((f"{source}: {count}", *lines)), hint=hint)


class SweepFileError(WrittenFileError):
    """A sweep file that cannot be used."""


class PoolFileError(WrittenFileError):
    """A pool file that cannot be used."""


class ConfigError(InputError):
    """Values that the training function rejects; ``problems`` holds every one found."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems), hint=hint)


class DataError(InputError):
    """A data set that is missing, in an unknown layout, truncated or hostile."""


class OtherData(DataError):
    """The content of a data set differs from what a sweep pinned."""


class LoginError(InputError):
    """The W&B API key is missing, invalid or lacks permission."""


class NothingToDo(FersweepError):
    """There is nothing for the command to do, such as without a sweep or a finished trial."""

    exit_code = 3


class StorageError(FersweepError):
    """The database or a file under ``FERSWEEP_HOME`` cannot be read or written."""


class WeightsUnavailable(FersweepError):
    """Pretrained weights are neither on disk nor downloadable."""


class CheckpointError(FersweepError):
    """A checkpoint cannot be read, or belongs to another configuration."""


class DeviceMissing(FersweepError):
    """torch does not have the GPU that a trial is to use."""


class LostTrial(FersweepError):
    """Another agent has reclaimed the lease of this trial, so reports of this one are refused."""


class PoolError(FersweepError):
    """Slurm or Ray is not installed, refuses or does not answer."""


class ServerError(FersweepError):
    """A W&B server is unreachable, or answered with an error of its own."""


class ServerBusy(ServerError):
    """A W&B server is temporarily unreachable, overloaded or failing."""

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after_s: float | None = None, may_be_done: bool = True
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
        """Seconds after which the server asks to retry."""
        self.may_be_done = may_be_done
        """Whether the request may have been executed and only its response lost."""


class AgentFailed(FersweepError):
    """The agent stopped itself because trials failed one after another."""


def cannot_write(target: object, error: OSError) -> StorageError:
    """The error for a file or folder that could not be written."""
    return StorageError(
        f"cannot write {target}: {error.strerror or error}",
        hint="make room or make the folder writable, then run the same command again",
    )


@contextlib.contextmanager
def writing(target: object) -> Iterator[None]:
    """Turn errors of the file system into StorageError."""
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error


def printable(text: str) -> str:
    r"""Untrusted text made safe for a terminal: control characters are shown as escapes.

    >>> printable("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
