"""One agent registered on a W&B server for each slot, and its heartbeats.

A stock agent sends a heartbeat every five seconds, and every trial waits for one. Here an idle slot sends one at once
and then several a second, a busy slot one every two seconds. Each is sent from a thread of its own when the agent's
loop asks for a trial or reports, so the loop never waits for the network longer than ``Pace`` allows, and a loop that
has stopped asking is proposed nothing.
"""

import functools
import logging
import random
import re
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

from fer_sweep.errors import FersweepError, LoginError, ServerBusy
from fer_sweep.records import StopReason, SweepState, Wait
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import Command, SweepPath
from fer_sweep.wandb_client.package import in_thread
from fer_sweep.wandb_client.transport import NotFound

log = logging.getLogger(__name__)

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Accepted run ids; the id names a folder here."""

_MOMENT_S = 0.05
_FULL_PACE_SLOTS = 8
"""Up to so many slots of an agent send heartbeats at full pace while they train; more slots share that rate."""
_LAST_ANSWER_S = 5.0
"""How long the end of an agent waits for the answer to a heartbeat."""


@dataclass(frozen=True)
class Pace:
    """How often a server is asked, and how long an agent's loop waits for it; seconds."""

    idle_s: float = 0.2
    """Between heartbeats of an idle slot, at first."""
    longest_idle_s: float = 2.0
    """Between heartbeats of an idle slot, after some that brought no trial."""
    running_s: float = 2.0
    """Between heartbeats while a trial runs; it delays an early stop by as much."""
    patience_s: float = 0.1
    """How long a question for a trial waits for the answer to its heartbeat."""
    report_patience_s: float = 0.0
    """How long a report waits for the answer to its heartbeat."""
    longest_retry_s: float = 60.0
    """Between heartbeats to a server that does not answer."""
    give_up_s: float = 1800.0
    """After so long without an answer, and without a running trial, the agent ends."""


class SlotAgent:
    """What the server regards as one agent: it runs at most one trial at a time. For one thread."""

    def __init__(self, server: WandbServer, path: SweepPath, host: str, pace: Pace) -> None:
        self._server = server
        self._path = path
        self._host = host
        self._pace = pace
        self._agent: str | None = None
        """The id that the server assigned to it."""
        self._running: str | None = None
        self._running_s = pace.running_s
        self._idle_s = pace.idle_s
        self._heartbeat: Future[Sequence[Command]] | None = None
        """One that was sent and whose answer has not been read."""
        self._sent_for: str | None = None
        """The run that it was sent for."""
        self._due_at = float("-inf")
        """When the next one is due, by the monotonic clock."""
        self._failures = 0
        self._unanswered_since: float | None = None
        self._error: FersweepError | None = None
        """Of the last heartbeat."""
        self._offers: list[Command] = []
        """Trials that the server has proposed and the loop has not started."""
        self._exit = False
        self._stop: StopReason | None = None
        """Why the running trial is to stop."""
        self.state = SweepState.RUNNING
        """The sweep's state as the server last gave it."""

    def ask(self) -> Command | Wait | None:
        """Ask for a trial to start or resume.

        Returns:
            The server's command; Wait if it has none for now; None if there are no more trials.

        Raises:
            FersweepError: The server refuses this agent, or has not answered for too long.
        """
        if self._exit:  # a user may have resumed the sweep since, so ask the server again
            self._exit, self._due_at = False, float("-inf")
        if not self._offers:
            self._communicate(self._pace.patience_s)
        if self._offers:
            return self._offers.pop(0)
        if self._exit:
            return None
        if self._heartbeat is not None:
            return Wait("waiting for the server's answer", again_s=_MOMENT_S, is_brief=True)
        now = time.monotonic()
        again_s = min(1.0, max(0.0, self._due_at - now))
        if self._error is not None:
            silent_s = now - (self._unanswered_since or now)
            if isinstance(self._error, NotFound | LoginError) or silent_s > self._pace.give_up_s:
                raise self._error
            return Wait(f"{self._error}; retrying", again_s)
        paused = self.state is SweepState.PAUSED
        return Wait("the sweep is paused" if paused else "the server has no trial for this agent yet", again_s)

    @property
    def has_no_trial(self) -> bool:
        """Whether the server has just answered that its running sweep has no trial for this agent."""
        return self._heartbeat is None and self._error is None and self.state is SweepState.RUNNING

    def begins(self, run_id: str, agents: int = 1) -> None:
        """The slot runs this from now on; the more agents there are, the fewer heartbeats each sends."""
        self._running, self._stop, self._idle_s = run_id, None, self._pace.idle_s
        self._running_s = self._pace.running_s * max(1.0, agents / _FULL_PACE_SLOTS)
        self._due_at = time.monotonic() + self._running_s

    def ends(self) -> None:
        """The slot is idle; it sends no heartbeat until ``ask``."""
        self._running, self._stop = None, None
        if not isinstance(self._error, ServerBusy):
            self._error, self._due_at = None, float("-inf")

    def stop_reason(self) -> StopReason | None:
        """Why the running trial is to stop, if the server said so."""
        self._communicate(self._pace.report_patience_s)
        return self._stop

    def close(self) -> Sequence[Command]:
        """Send no more heartbeats; gives the trials that the server has proposed and the loop has not started."""
        if self._heartbeat is not None and wait([self._heartbeat], _LAST_ANSWER_S).done:
            self._read(self._heartbeat)  # it may propose a trial
        return self._offers

    def _communicate(self, patience_s: float) -> None:
        """Send a heartbeat if one is due, and act on its answer if that comes in time."""
        until = time.monotonic() + patience_s
        while self._heartbeat is not None or time.monotonic() >= self._due_at:
            if self._heartbeat is None:
                self._sent_for = self._running
                self._due_at = time.monotonic() + self._running_s
                self._heartbeat = in_thread(functools.partial(self._beat, self._running), f"wandb-{self._path.id}")
            if not wait([self._heartbeat], max(0.0, until - time.monotonic())).done:
                return
            answer, self._heartbeat = self._heartbeat, None
            self._read(answer)
            if self._sent_for == self._running:
                return  # else it was sent before a trial started or ended, and does not answer this question

    def _beat(self, running: str | None) -> Sequence[Command]:
        """Send a heartbeat; called in a thread."""
        is_known = self._agent is not None
        self._agent = self._agent or self._server.register_agent(self._path, self._host)
        try:
            commands = self._server.heartbeat(self._agent, running)
        except NotFound:
            if not is_known:
                raise
            self._agent = None  # it or the sweep was deleted; registering again tells which
            return self._beat(running)
        told_to_stop = any(c.type == "exit" or (c.type == "stop" and c.run_id == running) for c in commands)
        if told_to_stop or not (commands or running):
            self.state = self._server.sweep(self._path).state  # a trial and a sweep have the same stop command
        return commands

    def _read(self, answer: "Future[Sequence[Command]]") -> None:
        try:
            commands = answer.result()
        except FersweepError as error:  # a running trial continues, even if the sweep was deleted
            self._retry_later(error)
            return
        self._failures, self._unanswered_since, self._error = 0, None, None
        is_over = self.state in (SweepState.FINISHED, SweepState.CANCELLED)
        self._exit = not commands and self._sent_for is None and is_over
        for command in commands:
            self._obey(command)
        if self._sent_for != self._running:
            self._due_at = float("-inf")
        elif self._running is None:
            self._due_at = time.monotonic() + self._idle_s
            self._idle_s = min(self._pace.longest_idle_s, 1.5 * self._idle_s)

    def _obey(self, command: Command) -> None:
        is_running = self._running is not None and self._running == self._sent_for
        is_cancelled = self.state is SweepState.CANCELLED
        if command.type in ("run", "resume") and self._sent_for is None and RUN_ID.fullmatch(command.run_id):
            self._offers.append(command)
        elif command.type == "stop":
            if is_running and command.run_id == self._running:
                self._stop = self._stop or (StopReason.PREEMPTED if is_cancelled else StopReason.PRUNED)
        elif command.type == "exit":
            self._exit = True
            if is_running and is_cancelled:
                self._stop = self._stop or StopReason.PREEMPTED
        else:
            log.warning("W&B sent a command that this agent cannot obey: %r", command)

    def _retry_later(self, error: FersweepError) -> None:
        self._error = error
        self._failures += 1
        now = time.monotonic()
        self._unanswered_since = self._unanswered_since or now
        # Jitter, or else all agents of a lab would retry in the same second.
        backoff_s = 0.5 * 2 ** min(self._failures - 1, 10) * random.uniform(0.5, 1.0)
        ordered_s = getattr(error, "retry_after_s", None) or 0.0
        # Capped, or a running trial would miss a stop.
        self._due_at = now + min(self._pace.longest_retry_s, max(backoff_s, ordered_s))
