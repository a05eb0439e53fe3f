"""The command line: parse, call, print. Heavy modules are imported inside the commands that need them."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, NoReturn

import typer

from fer_sweep.cli import agent, confirming, data, host, inference, managing, report, results, steering, sweeps
from fer_sweep.cli.groups import Groups
from fer_sweep.cli.options import expanded
from fer_sweep.cli.printing import print_error, print_text
from fer_sweep.errors import FersweepError, StorageError
from fer_sweep.files import drop_unwritten
from fer_sweep.version import __version__

app = typer.Typer(
    name="fersweep",
    cls=Groups,
    help="Sweep the hyperparameters of facial expression recognition models.",
    epilog="Try: fersweep run simple_cnn --data synthetic --set epochs=4 --count 6",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs 0.1 s of import a call
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),  # --per_gpu is --per-gpu
    },
)


def _version(wanted: bool) -> None:
    if wanted:
        print_text(f"fersweep {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Handle the options that need no command."""


def _add(*commands: Callable[..., None]) -> None:
    for command in commands:
        app.command()(expanded(command))


# `fersweep --help` shows them by groups.GROUPS; this is the order of their completion.
_add(sweeps.init, sweeps.validate, sweeps.create, agent.agent, agent.run, agent.drain)
app.command("list")(managing.list_sweeps)
_add(sweeps.status, managing.logs, sweeps.retry)
for name, state, effect in sweeps.STATE_COMMANDS:
    app.command(name, help=f"{effect}\n\nExample: fersweep {name}")(sweeps.state_command(state))
_add(steering.resume, steering.edit, steering.enqueue, steering.extend, managing.rename, managing.delete)
_add(results.best, results.sync, confirming.confirm, inference.test, inference.predict, inference.export)
_add(report.report, report.compare, report.dashboard, host.restore)
app.command(cls=host.TrainCommand, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    host.train
)
_add(host.doctor)
app.add_typer(data.app, name="data")


class _CtrlC(BaseException):
    """Ctrl-C in a command that does not handle it; typer would turn KeyboardInterrupt into exit code 1."""


def main() -> None:
    """Run a command, and turn its errors into a message and an exit code: the console script."""
    signal.signal(signal.SIGINT, _raise_ctrl_c)
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that a C locale cannot encode
    # Checkpoints, the database and code of a search space are read again, so other users must not be able to write
    # them; the user's group may, if the umask allows it.
    os.umask(os.umask(0o077) | 0o002)
    try:
        app()
    except FersweepError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        print_error(StorageError(f"cannot write to stdout: {error.strerror}"))
        sys.exit(1)
    except _CtrlC:
        sys.exit(130)
    finally:
        _drop_unwritten()


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of a full disk, a hung-up terminal and a closed stdout."""


def _open_closed_streams() -> None:
    # Otherwise the next file that is opened, such as the database, would be stdin, stdout or stderr, also of every
    # child process. Reading from stdin gives nothing, and writing to stdout is an error.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)  # the lowest that is free
            os.set_inheritable(descriptor, True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)  # print() would write its lines to stdout


def _drop_unwritten() -> None:
    # Python would complain at exit about what it cannot write, and change the exit code.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            drop_unwritten(stream)


def _raise_ctrl_c(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _CtrlC
