"""One agent on one sweep: opens its search, slots, tracking and view, and runs the loop."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from fer_sweep.agent.deadline import Deadline
from fer_sweep.agent.draining import Drains
from fer_sweep.agent.failures import OnOom
from fer_sweep.agent.interrupts import Interrupts
from fer_sweep.agent.loop import Agent
from fer_sweep.agent.probe import Load, best, measure, remembered, typical
from fer_sweep.agent.running import AgentSummary, HangLimit
from fer_sweep.agent.uploads import Uploads
from fer_sweep.agent.view import View
from fer_sweep.config.trial import ARCHITECTURES
from fer_sweep.errors import FersweepError, NothingToDo
from fer_sweep.files import checkpoint_folder
from fer_sweep.formatting import counted
from fer_sweep.mirror.copying import Mirror
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.store.leases import lease_seconds
from fer_sweep.sweeps import OPEN_STATES, Sweep
from fer_sweep.sweeps.next_steps import next_command, outlook
from fer_sweep.sweeps.paused import limit_disk, settle_pruned
from fer_sweep.sync import check
from fer_sweep.wandb_client.account import tracking_mode
from fer_sweep.wandb_client.package import close_wandb
from fer_sweep.worker.slots import Gpu, Slot, free_mb, gpus_here, make_slots, usable_cores
from fer_sweep.worker.starters import starter_for

log = logging.getLogger(__name__)

MOST_PER_GPU = 16
"""Slots that ``--per-gpu auto`` tries at most on one GPU."""


def slots_here(
    sweep: Sweep,
    gpus: str,
    *,
    per_gpu: int | None,
    slots: int | None,
    measure_cpu: bool,
    say: Callable[[str], None],
) -> tuple[Slot, ...]:
    """The slots that ``--gpus``, ``--per-gpu`` and ``--slots`` ask for on this host.

    Args:
        sweep: Its typical trial is measured where that is asked for.
        gpus: ``auto``, ``none``, ``mps``, or numbers and UUIDs; ``auto`` means the CPU where there is no GPU.
        per_gpu: Slots on each GPU; None to measure how many.
        slots: CPU slots; a number with ``auto`` means the CPU. None for the rule of ``make_slots``.
        measure_cpu: Measure how many CPU slots instead.
        say: Gets a line about each measurement.

    Raises:
        AgentFailed: The typical trial cannot be trained.
    """
    if gpus == "auto" and slots is not None:
        gpus = "none"
    chosen = gpus_here(gpus)
    if chosen and per_gpu is None:
        names = ", ".join(sorted({gpu.name for gpu in chosen}))
        per_gpu = _measured(sweep, names, chosen[:1], MOST_PER_GPU, say)
    elif not chosen and measure_cpu:
        cores = usable_cores()
        slots = _measured(sweep, f"CPU, {cores} cores", (), cores, say)
    return make_slots(chosen, per_gpu=1 if per_gpu is None else per_gpu, cpu_slots=slots)


def check_slots(gpus: str, *, per_gpu: int | None, slots: int | None) -> None:
    """Raise ``InputError`` if this host cannot be divided as the options of ``slots_here`` ask."""
    chosen = gpus_here("none" if gpus == "auto" and slots is not None else gpus, note=lambda text: None)
    make_slots(chosen, per_gpu=1 if per_gpu is None else per_gpu, cpu_slots=slots)


def _measured(sweep: Sweep, device: str, gpus: Sequence[Gpu], most: int, say: Callable[[str], None]) -> int:
    """The best number of slots on one GPU, or on the CPU."""
    sweep.data.provide(say)
    config = typical(sweep.space)

    def divide(count: int) -> Sequence[Slot]:
        return make_slots(gpus, per_gpu=count) if gpus else make_slots((), cpu_slots=count)

    def find() -> Sequence[Load]:
        say(f"measuring the best number of slots on {device}")
        with contextlib.closing(starter_for(divide(1), architectures(sweep))) as starter:
            starter.warm_up(divide(1)[0])
            return measure(config, divide, most, starter)

    curve = remembered(sweep.folder / "slots.json", device, find)
    count = best(curve, free_mb(divide(1)[0]))
    rates = ", ".join(f"{load.slots}: {load.images_per_second:,.0f}" for load in curve)
    say(f"slots on {device}: {count} (images/s by number of slots: {rates})")
    return count


def work_on(
    sweep: Sweep,
    slots: Sequence[Slot],
    *,
    console: Console,
    count: int | None = None,
    keep_models: bool = False,
    on_oom: OnOom = OnOom.FAIL,
    hang_after_s: float | None = None,
    mirror: Path | None = None,
    end: datetime | None = None,
) -> AgentSummary:
    """Run an agent on a sweep until there is nothing left to do, showing its progress on ``console``.

    Args:
        sweep: The sweep.
        slots: Where trials train.
        console: Where progress is shown.
        count: End after so many attempts.
        keep_models: Upload the best weights of each complete trial to W&B.
        on_oom: What happens to a trial that runs out of memory.
        hang_after_s: A trial that makes no step for so many seconds is killed; None to learn what is usual.
        mirror: A folder on a drive that outlives this machine, where a copy of the home is kept.
        end: When to have ended, with checkpoints; None to work until there is nothing left to do.

    Raises:
        AgentFailed: Trials failed one after another.
        NothingToDo: The sweep has ended already, or that time has passed.
    """
    deadline = None if end is None else Deadline(end)
    notes: list[str] = []
    fingerprints = sweep.data.provide(notes.append)
    online = tracking_mode() == "online"
    complete: set[tuple[str, float]] = set()
    uploads = Uploads(sweep.id, check=lambda own: check(sweep, own, complete), pause_s=lease_seconds())
    track = sweep.tracker(keep_models=keep_models, note=notes.append, on_end=uploads.ended)
    interrupts = Interrupts(deadline=deadline)
    sweep.end_waiting = lambda: interrupts.end_waiting
    sweep.may_pause = count is None  # else it would give all of its trials a turn and finish none
    if deadline is not None:
        sweep.time_left_s = lambda: deadline.training_s
    search = sweep.search()
    with contextlib.ExitStack() as ending:
        if online:
            ending.callback(_finish_uploads, sweep, uploads, console)
        ending.callback(close_wandb)
        # Closed after the leases were given up, and before anything that waits for a server.
        copying = ending.enter_context(contextlib.ExitStack())
        ending.callback(_settle_pruned, sweep, uploads)
        ending.callback(search.close)
        records = search.records()
        if (state := sweep.state) not in OPEN_STATES:
            raise _nothing_to_do(sweep, state, records)  # before a forkserver is started
        view = _view(sweep, slots, records, console)
        view.deadline = "" if deadline is None else str(deadline)
        end_note = () if deadline is None else (f"this agent ends by {deadline}",)
        for note in (_opening(sweep, slots, records), *end_note, *notes):
            view.note(note)
        keeper = None
        if mirror is not None:
            keeper = copying.enter_context(Mirror(mirror, sweep.entry.storage, tell=view.note))
        drains = Drains(sweep.folder, [slot.name for slot in slots])
        agent = Agent(
            search=search,
            slots=slots,
            folder_of=sweep.trial_folder,
            checkpoints_of=lambda trial_id: checkpoint_folder(sweep.id, trial_id),
            track=track,
            view=view,
            fingerprints=fingerprints,
            count=count,
            starter=starter_for(slots, architectures(sweep)),
            on_oom=on_oom,
            hang_limit=HangLimit(hang_after_s),
            on_end=lambda: _after_a_trial(sweep, view, keeper),
            on_poll=lambda: _follow(sweep, view),
            interrupts=interrupts,
            drains=drains,
            is_over=lambda: _is_over(sweep),
        )
        if online:
            uploads.start()
        with drains, view:
            summary = agent.run()
            _count_ended(view, search.records)
        if not summary.ended and not summary.interrupted and not summary.timed_out:
            raise _nothing_to_do(sweep, sweep.state, search.records())
        return summary


def _finish_uploads(sweep: Sweep, uploads: Uploads, console: Console) -> None:
    if left := uploads.finish():
        with contextlib.suppress(OSError):
            names = ", ".join(left)
            console.print(f"not uploaded to W&B: trial {names}; upload: fersweep sync {sweep.id}", markup=False)
    sweep.close_page()


def _after_a_trial(sweep: Sweep, view: View, keeper: Mirror | None) -> None:
    if view.paused:  # else a trial that ends need not wait for a transaction
        with contextlib.suppress(FersweepError):  # looked at again when the next trial pauses
            if lost := limit_disk(sweep):
                names = ", ".join(lost)
                note = f"paused trials take too much of the disk: trial {names} lost its checkpoint and stays paused"
                view.note(note)
    if keeper is not None:
        keeper.nudge()


def _settle_pruned(sweep: Sweep, uploads: Uploads) -> None:
    try:
        for trial in settle_pruned(sweep):
            uploads.ended(trial, is_sent=True)  # its run still shows it as paused
    except (FersweepError, OSError) as error:
        log.warning("checkpoints of paused trials are left: %s", error)


def _count_ended(view: View, records: Callable[[], Sequence[TrialRecord]]) -> None:
    """Count also the trials that the end of the sweep has pruned."""
    if view.paused:
        with contextlib.suppress(FersweepError):
            found = records()
            view.ended = sum(record.state.has_ended for record in found)
            view.paused = {record.trial_id for record in found if record.state is TrialState.PAUSED}


def _follow(sweep: Sweep, view: View) -> None:
    with contextlib.suppress(FersweepError):  # asked again in a second
        view.planned = sweep.planned  # another one once the sweep has been edited


def _is_over(sweep: Sweep) -> bool:
    try:
        return sweep.state not in OPEN_STATES
    except FersweepError:  # asked again in a second
        return False


def _nothing_to_do(sweep: Sweep, state: str, records: Sequence[TrialRecord]) -> NothingToDo:
    elsewhere = [record.trial_id for record in records if record.state is TrialState.RUNNING]
    if state == "stopped":
        return NothingToDo(f"sweep {sweep.id} is stopped", hint=f"hand out trials again: fersweep resume {sweep.id}")
    if elsewhere and state == "running":
        return NothingToDo(
            f"sweep {sweep.id} has no trials left; trial {', '.join(elsewhere)} is running on another agent",
            hint="if that agent is dead, its trials can be resumed once their leases expire: after a minute",
        )
    ended = sum(record.state.has_ended for record in records)
    return NothingToDo(
        "; ".join([f"sweep {sweep.id} is {state} and has no trials left: {ended} have ended", *outlook(sweep)]),
        hint=f"fersweep {next_command(sweep, 'finished' if state == 'running' else state, records)}",
    )


def architectures(sweep: Sweep) -> tuple[str, ...]:
    """The architectures a sweep can ask for: all of them where it names none, or a user's own code may."""
    given = sweep.space.parameters.get("model")
    if given is None or sweep.file.has_own_space:
        return tuple(ARCHITECTURES)
    return tuple(model for model in ARCHITECTURES if model in (given.possible or ()))


def _view(sweep: Sweep, slots: Sequence[Slot], records: Sequence[TrialRecord], console: Console) -> View:
    ended = [record for record in records if record.state.has_ended]
    fixed = frozenset(name for name, distribution in sweep.space.parameters.items() if distribution.size == 1)
    view = View(console, sweep.id, len(slots), planned=sweep.planned, fixed=fixed, ended=len(ended))
    view.paused = {record.trial_id for record in records if record.state is TrialState.PAUSED}
    for record in records:
        if record.state.has_value and record.result is not None:
            view.compare(record.trial_id, record.result)
    return view


def _opening(sweep: Sweep, slots: Sequence[Slot], records: Sequence[TrialRecord]) -> str:
    places = ", ".join(f"{slot.name} ({counted(slot.threads, 'thread')})" for slot in slots)
    preempted = sum(record.state is TrialState.PREEMPTED for record in records)
    again = f"; {counted(preempted, 'trial')} to resume from checkpoints" if preempted else ""
    return f"agent on sweep {sweep.id}: slots {places}; tracking {tracking_mode()}{again}"
