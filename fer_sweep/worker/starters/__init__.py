"""How the process of a trial begins: forked from a server that has torch imported, or spawned, with a warm spare."""

import os
import sys
from collections.abc import Iterable
from typing import Protocol

from fer_sweep.config.trial import ARCHITECTURES
from fer_sweep.errors import InputError
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.starters.handle import TrialHandle as TrialHandle
from fer_sweep.worker.starters.spawn import SpawnStarter
from fer_sweep.worker.trial_process import TrialJob


class Starter(Protocol):
    """How the process of a trial begins."""

    def warm_up(self, slot: Slot) -> None:
        """Prepare in the background for a trial in this slot; never raises."""

    def start(self, job: TrialJob) -> TrialHandle:
        """Start a trial.

        Raises:
            AgentFailed: No process can be started.
        """

    def close(self) -> None:
        """Stop, after every trial has ended."""


def starter_for(slots: Iterable[Slot], models: Iterable[str] = tuple(ARCHITECTURES)) -> Starter:
    """The starter for these slots: the forkserver, and where a fork is impossible or unsafe the spawn starter.

    Args:
        slots: Where trials are to train. MPS does not survive a fork.
        models: The architectures that are imported beforehand.

    Raises:
        InputError: FERSWEEP_START names none, or one that this platform lacks.
    """
    is_windows = sys.platform == "win32"
    usual = "spawn" if is_windows or any(slot.device == "mps" for slot in slots) else "forkserver"
    chosen = os.environ.get("FERSWEEP_START") or usual
    if chosen not in ("spawn", "forkserver"):
        hint = "unset it, or choose one of the two: spawn, forkserver"
        raise InputError(f"FERSWEEP_START={chosen}: no such way to start trials", hint=hint)
    if chosen == "spawn":
        return SpawnStarter(models)
    if is_windows:
        raise InputError("FERSWEEP_START=forkserver: Windows has no fork", hint="unset it, or set it to spawn")
    from fer_sweep.worker.starters.forkserver import ForkserverStarter  # only here: Windows lacks what it imports

    return ForkserverStarter(models)
