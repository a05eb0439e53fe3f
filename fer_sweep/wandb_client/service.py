"""wandb's service, a process of this one's: asked in time, and ended where it does not answer.

wandb itself waits for it for ever, when it starts a run and at the end of the process.
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from fer_sweep import host_processes

Result = TypeVar("Result")


class TakesTooLong(TimeoutError):
    """wandb is still at what it was asked for."""


def in_time(act: Callable[[], Result], limit_s: float) -> Result:
    """Have wandb do something, and wait for it so long: it has no regard for whoever else its process works for.

    Raises:
        TakesTooLong: It is still at it; what becomes of it is not heard of.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True, name="wandb-finish")
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise TakesTooLong("it has not come to an end yet")
    if errors:
        raise errors[0]
    return results[0]


def is_paused() -> bool:
    """Whether somebody has stopped the service, to go on later; false where the system does not tell."""
    service = process()
    return service is not None and host_processes.is_paused(service.pid)


def kill(service: "subprocess.Popen[bytes] | None") -> bool:
    """End a service at once, with all it has not sent yet; whether there was one."""
    if service is None or service.poll() is not None:
        return False
    service.kill()
    return True


def process() -> "subprocess.Popen[bytes] | None":
    """The service that this process has started, if it has."""
    # wandb has no public name for it; where the private ones have changed, nothing is known of it.
    setup = sys.modules.get("wandb.sdk.wandb_setup")
    with contextlib.suppress(AttributeError):
        found: subprocess.Popen[bytes] = setup._singleton._connection._proc._process  # type: ignore[union-attr]
        return found
    return None
