"""Every error fersweep raises on purpose, each with a hint and the exit code of the command it ends.

FersweepError             1  something went wrong that trying again or a repair may mend
|-- InputError            2  what the user wrote or handed over is not usable
|   |-- WrittenFileError  2  a file a person wrote; carries every problem found, each with its line and key
|   |   |-- SweepFileError  2  a sweep file
|   |   `-- PoolFileError   2  a pool file: where agents run
|   |-- ConfigError       2  values that the training function refuses
|   |-- DataError         2  a data set: missing, wrong layout, truncated, hostile
|   |   `-- OtherData     2  its name means other content than the sweep began with
|   `-- LoginError        2  W&B knows no such key, or the key may not do this
|-- NothingToDo           3  the command has nothing to act on
|-- StorageError          1  the database or a file under FERSWEEP_HOME
|-- WeightsUnavailable    1  pretrained weights that are neither on disk nor downloadable
|-- CheckpointError       1  a checkpoint that cannot be read or belongs to another trial
|-- LostTrial             1  another agent took this trial over; what is written now is refused
|-- PoolError             1  what starts agents elsewhere (Slurm, Ray) is missing, refuses or does not answer
|-- ServerError           1  a W&B server that is out of reach, or answers with an error of its own
|   `-- ServerBusy        1  such an error that goes by itself: asking again may help
`-- AgentFailed           1  the agent stopped itself: trials failed one after another
"""

from collections.abc import Sequence
from dataclasses import dataclass


class FersweepError(Exception):
    """The root: ``str(error)`` says what was wrong and where, ``hint`` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(FersweepError):
    """What the user wrote or handed over is not usable."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file a person wrote."""

    message: str
    key: str = ""
    """Dotted path of the key, such as ``parameters.lr.min``; empty for the file as a whole."""
    line: int | None = None
    """Line in the file, counted from 1."""
    hint: str | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        key = f"{self.key}: " if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{key}{self.message}{hint}"


class WrittenFileError(InputError):
    """A file that cannot be used; ``problems`` holds every one found, in the order of the file."""

    def __init__(self, source: str, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        lines = "\n".join(f"  {source}, {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count}\n{lines}", hint=hint)


class SweepFileError(WrittenFileError):
    """A sweep file that cannot be used."""


class PoolFileError(WrittenFileError):
    """A pool file that cannot be used."""


class ConfigError(InputError):
    """Values that the training function refuses; ``problems`` holds every one found."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems), hint=hint)


class DataError(InputError):
    """A data set that is missing, of no known layout, truncated or hostile."""


class OtherData(DataError):
    """A data set's name means other content here than what a sweep began with."""


class LoginError(InputError):
    """W&B knows no such key, or the key may not do what was asked."""


class NothingToDo(FersweepError):
    """The command has nothing to act on, such as no sweep yet or no trial finished."""

    exit_code = 3


class StorageError(FersweepError):
    """The database or a file under ``FERSWEEP_HOME`` cannot be read or written."""


class WeightsUnavailable(FersweepError):
    """Pretrained weights are neither on disk nor downloadable from here."""


class CheckpointError(FersweepError):
    """A checkpoint cannot be read, or belongs to another configuration."""


class LostTrial(FersweepError):
    """Another agent has taken this trial over, so what this one reports is refused."""


class PoolError(FersweepError):
    """What starts agents elsewhere, such as Slurm or Ray, is missing, refuses or does not answer."""


class ServerError(FersweepError):
    """A W&B server answered with an error that is neither the login's nor the input's."""


class ServerBusy(ServerError):
    """A W&B server is out of reach, overloaded or broken for now."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after_s: float | None = None,
        may_be_done: bool = True,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
        """The server's own word on when to ask again."""
        self.may_be_done = may_be_done
        """Whether what was asked may have been done, and only its answer lost."""


class AgentFailed(FersweepError):
    """The agent stopped itself because trials failed one after another."""


def cannot_write(target: object, error: OSError) -> StorageError:
    """The error for a file or folder that could not be written."""
    return StorageError(
        f"cannot write {target}: {error.strerror or error}",
        hint="make room or make the folder writable, then run the same command again",
    )


def printable(text: str) -> str:
    r"""Text from outside made safe for a terminal: control characters, such as those that begin escapes, are shown.

    >>> printable("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
