"""The command line: parse, call, print. Heavy modules are imported inside the commands that need them."""

import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import typer

from fer_sweep.cli import agent, confirming, data, host, inference, report, results, sweeps
from fer_sweep.cli.groups import Groups
from fer_sweep.cli.options import expanded
from fer_sweep.cli.printing import print_error
from fer_sweep.errors import FersweepError

app = typer.Typer(
    name="fersweep",
    cls=Groups,
    help="Sweep the hyperparameters of facial expression recognition models: one W&B sweep file, online or offline.",
    epilog="Start here:\n\nfersweep run simple_cnn --data synthetic --set epochs=4 --count 6",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs 0.1 s of import a call
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),  # --per_gpu is --per-gpu
    },
)


def _add(*commands: Callable[..., None]) -> None:
    for command in commands:
        app.command()(expanded(command))


# `fersweep --help` shows them by groups.GROUPS; this is the order of their completion.
_add(sweeps.init, sweeps.validate, sweeps.create, agent.agent, agent.run, sweeps.status, sweeps.retry)
for name, state, effect in sweeps.STATE_COMMANDS:
    app.command(name, help=f"{effect}\n\nExample: fersweep {name}")(sweeps.state_command(state))
_add(results.best, results.sync, confirming.confirm, inference.test, inference.predict, inference.export)
_add(report.report, report.dashboard, host.restore)
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
    except _CtrlC:
        sys.exit(130)


def _raise_ctrl_c(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _CtrlC
