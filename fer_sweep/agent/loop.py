"""The agent's loop: start trials in free slots, forward their reports to the search, and record how they end."""

import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from fer_sweep.agent.draining import Drains
from fer_sweep.agent.failures import Failures, OnOom
from fer_sweep.agent.interrupts import Interrupts, handling_signals
from fer_sweep.agent.running import AgentSummary, HangLimit, Running, Turnaround
from fer_sweep.agent.view import View
from fer_sweep.errors import LostTrial, StorageError
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState, Wait
from fer_sweep.search import Search
from fer_sweep.store.engine import Interrupted
from fer_sweep.wandb_client.tracking import TrackedRun
from fer_sweep.worker.slots import Admission, Slot
from fer_sweep.worker.starters import Starter
from fer_sweep.worker.trial_process import Beat, EpochReport, TrialJob

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

POLL_S = 1.0
"""Seconds between two questions to the search: shall a running trial stop, and is the sweep still paused."""
LAST_CHECKPOINT_S = 10.0
"""How long trials have to write a checkpoint when an error ends the agent; seconds."""
_NOT_REQUEUED = "trial %s could not be requeued (%s); it can be resumed once its lease expires"


@dataclass
class Agent:
    """Runs the trials of one sweep in ``slots`` until there are no more, or a signal stops it."""

    search: Search
    slots: Sequence[Slot]
    folder_of: Callable[[str], Path]
    """From a trial's id to its folder."""
    track: Callable[[TrialRequest], TrackedRun]
    """Starts the W&B run of a trial."""
    view: View
    starter: Starter
    checkpoints_of: Callable[[str], Path | None] = lambda trial_id: None
    """From a trial's id to the folder of its checkpoints; None for the trial's own."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Of the data sets that the sweep has pinned, by name."""
    count: int | None = None
    """At most this many attempts; None for no limit."""
    admission: Admission = field(default_factory=Admission)
    """Whether one more trial fits beside those that run."""
    on_oom: OnOom = OnOom.FAIL
    """What becomes of a trial that runs out of memory."""
    hang_limit: HangLimit = field(default_factory=HangLimit)
    """How long a trial may make no step."""
    on_end: Callable[[], None] = lambda: None
    """Called when the end of a trial is recorded."""
    on_poll: Callable[[], None] = lambda: None
    """Called every POLL_S."""
    interrupts: Interrupts = field(default_factory=Interrupts)
    """Signals and the deadline; the search reads them too, to stop waiting for a server."""
    drains: Drains = field(default_factory=Drains)
    """Which slots are to take no trial."""
    is_over: Callable[[], bool] = lambda: False
    """Whether the sweep has ended; asked while every slot is drained."""
    _running: dict[str, Running] = field(default_factory=dict, init=False)
    _failures: Failures = field(init=False)
    _ended: dict[TrialState, int] = field(default_factory=dict, init=False)
    _handed_out: int = field(default=0, init=False)
    _turnaround: Turnaround = field(default_factory=Turnaround, init=False)
    _no_more: bool = field(default=False, init=False)
    _waiting: str | None = field(default=None, init=False)
    _without_room: set[str] = field(default_factory=set, init=False)
    """Slots that wait for memory."""
    _patience: float = field(default=POLL_S, init=False)
    """Seconds until the search is asked again for a trial."""

    def __post_init__(self) -> None:
        self._failures = Failures(self.slots, self.on_oom)

    def run(self) -> AgentSummary:
        """Work until the sweep has no more trials and the running ones have ended.

        Raises:
            AgentFailed: FAILURES_IN_A_ROW trials failed one after another, or every one there was.
        """
        with handling_signals(self.interrupts) as wakeup:
            try:
                for slot in self.slots[: self.count]:
                    self.starter.warm_up(slot)
                self._work(wakeup)
            finally:
                self._stop_all()
                self.starter.close()
        interrupts = self.interrupts
        summary = AgentSummary(self._ended, interrupts.by_signal, tuple(self._turnaround.seconds), interrupts.timed_out)
        if self._failures.in_a_row and (not summary.has_value or self._failures.must_stop):
            complete = self._ended.get(TrialState.COMPLETE, 0)
            raise self._failures.error(self.search.records(), complete, logs=self.folder_of("0").parent)
        return summary

    def _work(self, wakeup: socket.socket) -> None:
        asked_at = 0.0
        while True:
            self._act_on_signals()
            if self._may_start():
                self._fill_slots()
            if not self._running and not self._may_start():
                return
            ready = wait([wakeup, *(running.handle.pipe for running in self._running.values())], self._patience)
            if wakeup in ready:
                wakeup.recv(4096)
            for running in list(self._running.values()):
                if running.handle.pipe in ready:
                    self._read(running)
                if running.outcome is not None:
                    self._finish(running)
            if time.monotonic() - asked_at >= POLL_S:
                self._poll_search()
                self._poll_drains()
                self.on_poll()
                asked_at = time.monotonic()

    def _may_start(self) -> bool:
        at_count = self.count is not None and self._handed_out >= self.count
        return not (self._no_more or at_count or self._failures.must_stop or self.interrupts.no_new_trials)

    def _fill_slots(self) -> None:
        self._patience = POLL_S
        taken = self._running.keys() | set(self.drains.slots)
        free = [slot for slot in self.slots if slot.name not in taken and self._failures.is_open(slot)]
        # A search may answer a question later, so no more slots ask than may still start a trial.
        for slot in free if self.count is None else free[: self.count - self._handed_out]:
            if not self._may_start():
                return
            if not self._has_room(slot):
                continue
            try:
                request = self.search.next_trial(slot.name)
                if isinstance(request, TrialRequest) and not self._can_finish(request):
                    return
            except Interrupted:
                return
            if request is None:
                self._no_more = True  # until a trial ends: it may be preempted
                return
            if isinstance(request, Wait):
                self._wait(slot, request)
            else:
                self._waiting = None
                self._start(slot, request)

    def _wait(self, slot: Slot, asked: Wait) -> None:
        self._patience = min(self._patience, asked.again_s)
        if asked.is_brief:
            return
        if self._waiting != asked.reason:
            self.view.note(f"waiting: {asked.reason}")
        self._waiting = asked.reason
        self._turnaround.waits(slot.name)

    def _can_finish(self, request: TrialRequest) -> bool:
        """Whether a trial can finish before the deadline; if not, it is requeued."""
        deadline = self.interrupts.deadline
        if deadline is None or deadline.has_time_for(request, self.search.records):
            return True
        reason = "not started: it could not finish before the agent's deadline"
        self.search.finish(request.trial_id, TrialOutcome(TrialState.PREEMPTED, reason=reason))
        return False

    def _has_room(self, slot: Slot) -> bool:
        others = [r for r in self._running.values() if r.slot.environment == slot.environment]
        refusal = self.admission.refusal(slot, sum(not r.epoch for r in others)) if others else None
        if refusal is None:
            self._without_room.discard(slot.name)
            return True
        if slot.name not in self._without_room:
            self._without_room.add(slot.name)
            self._turnaround.waits(slot.name)
            self.view.note(f"slot {slot.name} waits for another trial to end: {refusal}")
        return False

    def _start(self, slot: Slot, request: TrialRequest) -> None:
        job = TrialJob(
            config=request.config,
            folder=self.folder_of(request.trial_id),
            checkpoints=self.checkpoints_of(request.trial_id),
            fingerprint=self.fingerprints.get(request.config.data),
            device=slot.device,
            threads=slot.threads,
            environment=slot.environment,
            memory_share=self._failures.share(slot),
            micro_batch=self._failures.micro_batch(request.trial_id),
        )
        handle = self.starter.start(job)  # before the W&B run, so that both start at the same time
        self._running[slot.name] = Running(slot, request, handle, self.track(request))
        self._handed_out += 1
        self.view.trial_started(slot.name, request)

    def _read(self, running: Running) -> None:
        try:
            for message in running.handle.messages():
                if isinstance(message, Beat):
                    self._on_beat(running, message)
                elif isinstance(message, EpochReport):
                    if not running.lost:
                        self._on_epoch(running, message)
                else:
                    running.outcome, running.ended_at = message, time.monotonic()
        except EOFError:
            if running.outcome is None:
                running.outcome, running.ended_at = running.outcome_of_death(), time.monotonic()

    def _on_beat(self, running: Running, beat: Beat) -> None:
        if running.has_begun:
            self.hang_limit.longest_s = max(self.hang_limit.longest_s, beat.at - running.last_beat)
        else:
            self._failures.began(running.slot)
            self._disable_unhealthy_slots()  # others may have failed before this one succeeded
            self._turnaround.began(running.slot.name)
            if self._may_start():  # not before, so that it does not slow this start
                self.starter.warm_up(running.slot)
        running.last_beat, running.has_begun = beat.at, True
        self.view.progress(running.slot.name, beat.share)

    def _on_epoch(self, running: Running, report: EpochReport) -> None:
        trial = running.request.trial_id
        running.epoch = report.epoch
        self._report(running, report.metrics)
        if not running.lost:  # otherwise the new owner logs to the run
            running.run.log(report.metrics)
            self.view.epoch(running.slot.name, trial, report.metrics)

    def _poll_search(self) -> None:
        # A lost trial is being killed.
        for running in [running for running in self._running.values() if not running.lost]:
            running.end_if_hung(self.hang_limit.seconds(has_begun=running.has_begun))
            if running.run.stop_asked and running.asked_to_stop is None:
                self.view.note(f"trial {running.request.trial_id}: stopped on its W&B page")
                running.ask_to_stop(StopReason.PRUNED)
            try:
                self._report(running, {})
            except StorageError as error:
                # An unanswered question loses nothing; a report or an end that cannot be written ends the agent.
                log.warning("%s", error)

    def _poll_drains(self) -> None:
        for note in self.drains.read({slot: running.request.trial_id for slot, running in self._running.items()}):
            self.view.note(note)
        self.view.drained = self.drains.slots
        for slot in self.drains.slots:
            self._turnaround.waits(slot)
        is_idle = all(slot.name in self.drains.slots for slot in self.slots if self._failures.is_open(slot))
        if is_idle and not self._running and self.is_over():
            self._no_more = True
        for running in self._running.values():
            if self.drains.at_once(running.slot.name):
                running.preempt()

    def _report(self, running: Running, metrics: Mapping[str, float]) -> None:
        try:
            reason = self._despite_signals(self.search.report, running.request.trial_id, running.epoch, metrics)
        except Interrupted:
            return  # the trial's next attempt reports it again
        except LostTrial as error:
            self.view.note(f"trial {running.request.trial_id}: {error}; stopped here")
            running.lost = True
            running.kill()
            return
        if reason is not None:
            running.ask_to_stop(reason)

    def _finish(self, running: Running) -> None:
        outcome = running.outcome
        assert outcome is not None
        del self._running[running.slot.name]
        self._no_more = False
        trial = running.request.trial_id
        running.handle.close()
        was_asked = running.asked_to_stop is not None
        outcome = self._failures.judge(running.slot, running.request, outcome, epoch=running.epoch, was_asked=was_asked)
        if outcome.result is not None:
            self.admission.learn(running.slot, outcome.result.peak_memory_mb)
            if self.interrupts.deadline is not None:
                self.interrupts.deadline.learn(running.request.config, outcome.result)
        if outcome.state is TrialState.PRUNED and not outcome.reason:
            outcome = replace(outcome, reason="stopped early: worse than the others at this epoch")
        if not running.lost:
            try:
                self._despite_signals(self.search.finish, trial, outcome)
            except Interrupted as error:
                log.warning(_NOT_REQUEUED, trial, error)
            except LostTrial as error:
                self.view.note(f"trial {trial}: {error}")
                running.lost = True
        if running.lost:
            outcome = TrialOutcome(TrialState.PREEMPTED, reason="another agent has reclaimed it")
            running.run.abandon()
        else:
            running.run.finish(outcome)
        self._ended[outcome.state] = self._ended.get(outcome.state, 0) + 1
        self._disable_unhealthy_slots()
        self._turnaround.freed(running.slot.name, running.ended_at)
        self.view.trial_ended(running.slot.name, trial, outcome)
        self.on_end()

    def _disable_unhealthy_slots(self) -> None:
        for note in self._failures.disable_unhealthy():
            self.view.note(note)

    def _despite_signals(self, say: Callable[..., Answer], *arguments: object) -> Answer:
        """Repeat a call to the search that a signal interrupted, unless the signal ends all waiting."""
        while True:
            try:
                return say(*arguments)
            except Interrupted:
                self._act_on_signals()
                if self.interrupts.end_waiting:
                    raise

    def _act_on_signals(self) -> None:
        self.interrupts.read_clock()
        if (level := self.interrupts.level) <= self.interrupts.heeded:
            return
        self.interrupts.heeded = level
        may_pause = any(running.request.until is not None for running in self._running.values())
        self.view.note(self.interrupts.note(len(self._running), may_pause=may_pause))
        for running in self._running.values():
            if level == 2:
                running.preempt()
            elif level > 2:
                running.kill()

    def _stop_all(self) -> None:
        # Trials are left only if an error ended the loop: none may outlive it.
        for running in self._running.values():
            running.ask_to_stop(StopReason.PREEMPTED)
        deadline = time.monotonic() + LAST_CHECKPOINT_S
        for running in list(self._running.values()):
            if not running.handle.has_ended(deadline - time.monotonic()):
                running.handle.kill()
            running.outcome = TrialOutcome(TrialState.PREEMPTED, reason="the agent ended")
            try:
                self._finish(running)
            except Exception as error:  # the error that ended the loop is raised
                log.warning(_NOT_REQUEUED, running.request.trial_id, error)
