"""How many slots a GPU or the CPU carries, measured: a typical trial of the sweep trains in 1, 2, 4, ... at once.

The result is kept in the sweep's folder for the next agent of this host.
"""

import contextlib
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from fer_sweep.config.space import Space
from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.errors import AgentFailed, ConfigError
from fer_sweep.files import read_object, write_atomically
from fer_sweep.records import TrialOutcome
from fer_sweep.worker.slots import Slot, free_mb
from fer_sweep.worker.starters import Starter, TrialHandle
from fer_sweep.worker.trial_process import Beat, TrialJob

WORTH_IT = 1.05
"""More slots are used only for so many times the throughput: fewer leave more memory and finish trials sooner."""
MEMORY_SHARE = 0.8
"""Share of the free memory for all slots together: other trials of the sweep are larger than the typical one."""
FIRST_STEPS = 4
"""Not measured: they choose kernels and fill caches, and on a GPU the fourth is captured as a graph."""
MEASURED_S = 1.5
"""A trial is measured for so many seconds, and so many steps as FIRST_STEPS, at least."""
_TIMEOUT_S = 300.0
"""For the few steps of a typical trial; seconds."""
_DRAWS = 1000


@dataclass(frozen=True)
class Load:
    """The load of so many slots that train at once."""

    slots: int
    images_per_second: float
    """Of all slots together."""
    memory_mb: float
    """Of each slot."""


def best(curve: Sequence[Load], room_mb: float | None) -> int:
    """The number of slots to use: of those that fit in ``room_mb`` the fewest that are about as fast as the fastest.

    >>> best([Load(1, 1000, 500), Load(2, 1900, 500), Load(4, 1950, 500)], room_mb=8000)
    2
    >>> best([Load(1, 1000, 500), Load(2, 1900, 500), Load(4, 1950, 500)], room_mb=1000)
    1
    """
    fitting = [load for load in curve if room_mb is None or load.slots * load.memory_mb <= MEMORY_SHARE * room_mb]
    fitting = fitting or [curve[0]]
    fastest = max(load.images_per_second for load in fitting)
    return min(load.slots for load in fitting if load.images_per_second * WORTH_IT >= fastest)


def measure(config: TrialConfig, divide: Callable[[int], Sequence[Slot]], most: int, starter: Starter) -> list[Load]:
    """The throughput of 1, 2, 4, ... slots, as long as doubling them gains something and fits in memory.

    Args:
        config: What trains in each.
        divide: Makes so many slots of one device.
        most: Slots at most.
        starter: Starts the trials.

    Raises:
        AgentFailed: The trial fails even alone.
    """
    curve: list[Load] = []
    for count in sorted({min(2**power, most) for power in range(most.bit_length() + 1)}):
        try:
            load = _load(config, divide(count), starter)
        except AgentFailed:
            if curve:
                break  # so many do not fit
            raise
        curve.append(load)
        if len(curve) > 1 and load.images_per_second < WORTH_IT * curve[-2].images_per_second:
            break
    return curve


def typical(space: Space) -> TrialConfig:
    """The configuration in the middle of a space, or one drawn from it where that cannot be trained."""
    rng = np.random.default_rng(0)
    middle = {name: distribution.quantile(0.5) for name, distribution in space.parameters.items()}
    for values in (middle, *(space.sample(rng) for _ in range(_DRAWS))):
        with contextlib.suppress(ConfigError):
            return parse_trial(values)
    return parse_trial(middle)  # raises what is wrong with it


def remembered(memory: Path, key: str, find: Callable[[], Sequence[Load]]) -> Sequence[Load]:
    """The result of ``find``, from a file if this host has measured it before."""
    key = f"{platform.node()}: {key}"
    known = read_object(memory)
    if key not in known:
        known[key] = [asdict(load) for load in find()]
        write_atomically(memory, json.dumps(known, indent=2) + "\n")
    return [Load(**load) for load in known[key]]


def _load(config: TrialConfig, slots: Sequence[Slot], starter: Starter) -> Load:
    endless = config.model_copy(update={"epochs": 10_000})
    with tempfile.TemporaryDirectory(prefix="fersweep-probe-") as folder, contextlib.ExitStack() as stack:
        handles: list[TrialHandle] = []
        before = None
        for slot in slots:
            place = Path(folder) / slot.name.replace("/", "-")
            handle = starter.start(TrialJob(endless, place, slot.device, slot.threads, slot.environment))
            stack.callback(handle.close)
            stack.callback(handle.kill)
            handles.append(handle)
            if len(handles) == 1:
                before = free_mb(slot)  # the forkserver has imported what the trials share by now
        steps_per_s = _throughput(handles)
        after = free_mb(slots[0])  # while they hold what they took
    taken = 0.0 if before is None or after is None else max(0.0, before - after)
    return Load(len(slots), steps_per_s * config.batch_size, taken / len(slots))


def _throughput(handles: Sequence[TrialHandle]) -> float:
    """Steps per second of all trials together, measured between heartbeats while all of them train."""
    deadline = time.monotonic() + _TIMEOUT_S
    latest: dict[TrialHandle, Beat] = {}
    began: dict[TrialHandle, Beat] = {}
    all_train = False
    while True:
        for handle, beat in _next_beats(handles, deadline):
            latest[handle] = beat
            if all_train:
                began.setdefault(handle, beat)
        all_train = len(latest) == len(handles) and all(beat.steps >= FIRST_STEPS for beat in latest.values())
        spans = [(latest[handle].steps - beat.steps, latest[handle].at - beat.at) for handle, beat in began.items()]
        if len(spans) == len(handles) and all(s >= FIRST_STEPS and seconds >= MEASURED_S for s, seconds in spans):
            return sum(steps / seconds for steps, seconds in spans)


def _next_beats(handles: Sequence[TrialHandle], deadline: float) -> list[tuple[TrialHandle, Beat]]:
    """Wait for messages; the heartbeats among them, by trial."""
    problem = None
    if not wait([handle.pipe for handle in handles], max(0.0, deadline - time.monotonic())):
        problem = f"it has not made its first steps within {_TIMEOUT_S:.0f} s"
    beats = []
    for handle in handles:
        try:
            for message in handle.messages():
                if isinstance(message, Beat):
                    beats.append((handle, message))
                elif isinstance(message, TrialOutcome):
                    problem = message.reason or "it ended before it could be measured"
        except EOFError:
            problem = problem or handle.why_it_died()[0]
    if problem:
        raise AgentFailed(
            f"a typical trial of the sweep could not be measured: {problem}",
            hint="give the number of slots instead of auto, or train one trial by hand: fersweep train",
        )
    return beats
