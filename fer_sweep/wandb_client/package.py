"""The wandb package in this process: imported on first use, and called with a timeout.

wandb works through a service, a process of its own, and waits for it without a timeout.
"""

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

from fer_sweep.errors import InputError
from fer_sweep.files import home

log = logging.getLogger(__name__)

OLDEST_WANDB = (0, 31)
HANGS_S = 60.0
"""Timeout for any call into wandb; longer than all of its own."""
ENDS_S = 5.0
"""How long a killed service may take to end."""

hangs = threading.Event()
"""Set once wandb did not answer in this process, which then starts no more runs; version 0.31 may be deadlocked."""

Result = TypeVar("Result")


def load_wandb() -> Any:
    """The wandb package; raises ``InputError`` if it is missing, broken or too old."""
    needed = ".".join(map(str, OLDEST_WANDB))
    hint = f"pip install 'wandb>={needed}', or train without it: WANDB_MODE=disabled"
    try:
        import wandb  # only here: it takes half a second, and most commands do not need it
    except ImportError as error:
        raise InputError(f"wandb cannot be imported: {error}", hint=hint) from error
    version = str(getattr(wandb, "__version__", "0"))  # a folder of runs named wandb is a package without a version
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_WANDB:
        raise InputError(f"wandb {version} is too old", hint=hint)
    return wandb


def quiet_wandb() -> Any:
    """The same, set up to print nothing in this process; starts wandb's service."""
    wandb = load_wandb()
    _give_folders()
    wandb.setup(wandb.Settings(silent=True))  # runs have a setting of their own, the login has not
    usual = threading.excepthook
    if not isinstance(usual, _QuietHook):
        threading.excepthook = _QuietHook(usual)
    return wandb


def _give_folders() -> None:
    """Give wandb folders in fersweep's home where the user has no home, or none that this process may use."""
    own = home() / "wandb"
    folders = {f"WANDB_{name}_DIR": own for name in ("CACHE", "DATA")}
    try:
        user = Path.home()
        if os.access(user, os.W_OK | os.X_OK):
            return
        is_readable = os.access(user, os.R_OK | os.X_OK)
    except RuntimeError:
        is_readable = False
    if not is_readable:
        folders |= {"WANDB_CONFIG_DIR": own, "XDG_DATA_HOME": own, "NETRC": own / "netrc"}
    for name, folder in folders.items():
        os.environ.setdefault(name, str(folder))


class _QuietHook:
    """Prints no traceback of wandb's own thread, which fails if its service ends before its run."""

    def __init__(self, usual: Callable[[threading.ExceptHookArgs], Any]) -> None:
        self._usual = usual

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        if args.thread is None or args.thread.name != "NetStatThr":
            self._usual(args)


def close_wandb() -> None:
    """End wandb's service, if this process has one, and with it all open runs."""
    if (wandb := sys.modules.get("wandb")) and not hangs.is_set():
        service = service_process()
        try:
            in_time(wandb.teardown, HANGS_S)
        except (Exception, SystemExit) as error:  # its service was killed; wandb would print a traceback at exit
            log.debug("wandb's service could not be ended: %s", error)
            if isinstance(error, WandbTimeout):
                _kill(service)
            elif service is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    service.wait(ENDS_S)  # wandb reaps it only if it ends in order


class WandbTimeout(TimeoutError):
    """A call into wandb has not returned in time."""


def start_in_time(start: Callable[[], Result]) -> Result:
    """Start a run, and with it wandb's service where there is none; if it does not answer, the last one here."""
    try:
        return in_time(start, HANGS_S)
    except WandbTimeout:
        hangs.set()
        _kill(service_process())  # wandb waits for it at the end of this process
        raise


def in_time(act: Callable[[], Result], limit_s: float) -> Result:
    """Call into wandb; raises ``WandbTimeout`` if that has not returned in time: it continues in a thread."""
    call = in_thread(act, "wandb-finish")
    if not wait([call], limit_s).done:
        raise WandbTimeout("timeout")
    return call.result()


def in_thread(act: Callable[[], Result], name: str) -> "Future[Result]":
    """Call a function in a thread of its own, which does not keep the process from ending."""
    call: Future[Result] = Future()

    def work() -> None:
        try:
            call.set_result(act())
        except BaseException as error:
            call.set_exception(error)

    threading.Thread(target=work, daemon=True, name=name).start()
    return call


def service_process() -> "subprocess.Popen[bytes] | None":
    """The process of wandb's service, if this process has started one."""
    # wandb has no public name for it, and mypy knows no private one; if a later version renames them, none is killed.
    setup = sys.modules.get("wandb.sdk.wandb_setup")
    with contextlib.suppress(AttributeError):
        found: subprocess.Popen[bytes] = setup._singleton._connection._proc._process  # type: ignore[union-attr]
        return found
    return None


def _kill(service: "subprocess.Popen[bytes] | None") -> None:
    """Kill the service, if there is one, with all that it has not sent."""
    if service is not None:
        service.kill()
