"""How many slots a GPU or the CPU carries, measured: a typical trial of the sweep trains in 1, 2, 4, ... at once.

The result is kept in the sweep's folder for the next agent of this host.
"""

import contextlib
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from fer_sweep.config.space import Space
from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.errors import AgentFailed, ConfigError
from fer_sweep.files import read_object, write_atomically
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.worker.slots import Slot, free_mb
from fer_sweep.worker.starters import Starter, TrialHandle
from fer_sweep.worker.trial_process import ProbeReady, ProbeResult, TrialJob

_Answer = TypeVar("_Answer", ProbeReady, ProbeResult)

WORTH_IT = 1.05
"""More slots are used only for so many times the throughput: fewer leave more memory and finish trials sooner."""
MEMORY_SHARE = 0.8
"""Share of the free memory for all slots together: other trials of the sweep are larger than the typical one."""
_TIMEOUT_S = 300.0
"""For the few steps of a typical trial; seconds."""
_DRAWS = 1000


@dataclass(frozen=True)
class Load:
    """The load of so many slots that train at once."""

    slots: Annotated[int, Field(ge=1, le=1024)]
    images_per_second: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    """Of all slots together."""
    memory_mb: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    """Of each slot."""


_LOADS = TypeAdapter(list[Load])


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
        starter: Forks the trials.

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
    """The configuration in the middle of a space, or one drawn from it where that cannot be trained.

    Raises:
        ConfigError: The space has no configuration that can be trained.
    """
    rng = np.random.default_rng(0)
    middle = {name: distribution.quantile(0.5) for name, distribution in space.parameters.items()}
    refusal: ConfigError | None = None
    for values in (middle, *(space.sample(rng) for _ in range(_DRAWS))):
        try:
            return parse_trial(values)
        except ConfigError as error:
            refusal = error
    assert refusal is not None
    raise refusal


def remembered(memory: Path, key: str, find: Callable[[], Sequence[Load]]) -> list[Load]:
    """The result of ``find``, from a file if this host has measured it before."""
    key = f"{platform.node()}: {key}"
    known = read_object(memory)
    with contextlib.suppress(KeyError, ValidationError):  # missing or damaged: measured again
        if loads := _LOADS.validate_python(known[key]):
            return loads
    found = list(find())
    known[key] = [asdict(load) for load in found]
    write_atomically(memory, json.dumps(known, indent=2) + "\n")
    return found


def _load(config: TrialConfig, slots: Sequence[Slot], starter: Starter) -> Load:
    endless = config.model_copy(update={"epochs": 10_000})
    with tempfile.TemporaryDirectory(prefix="fersweep-probe-") as folder, contextlib.ExitStack() as stack:
        handles: list[TrialHandle] = []
        before = None
        for slot in slots:
            place = Path(folder) / slot.name.replace("/", "-")
            job = TrialJob(endless, place, slot.device, slot.threads, slot.environment)
            handle = starter.start(job, is_probe=True)
            stack.callback(handle.close)
            stack.callback(handle.kill)
            handles.append(handle)
            if len(handles) == 1:
                before = free_mb(slot)  # the forkserver has imported what the trials share by now
        for handle in handles:
            _answer(handle, ProbeReady)
        for handle in handles:
            handle.pipe.send(None)  # go, all at once
        speeds = [_answer(handle, ProbeResult).images_per_second for handle in handles]
        after = free_mb(slots[0])  # while they hold what they took
    taken = 0.0 if before is None or after is None else max(0.0, before - after)
    return Load(len(slots), sum(speeds), taken / len(slots))


def _answer(handle: TrialHandle, kind: type[_Answer]) -> _Answer:
    try:
        answer = handle.pipe.recv() if handle.pipe.poll(_TIMEOUT_S) else None
    except (EOFError, OSError):
        answer = TrialOutcome(TrialState.FAILED, reason=handle.why_it_died()[0])
    if isinstance(answer, kind):
        return answer
    reason: str | None = f"no step within {_TIMEOUT_S:.0f} s"
    if isinstance(answer, TrialOutcome):
        reason = answer.reason or "it ended before it could be measured"
    raise AgentFailed(
        f"a typical trial of the sweep could not be measured: {reason}",
        hint="give the number of slots instead of auto, or train one trial by hand: fersweep train",
    )
