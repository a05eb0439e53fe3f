"""One agent registered on a W&B server for each slot, with a thread that sends its heartbeats.

A stock agent sends a heartbeat every five seconds, and every trial waits for one. Here an idle slot sends one at once
and then several a second, a busy slot one every two seconds, and the agent's loop never waits for the network longer
than ``Pace`` allows.
"""

import logging
import random
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fer_sweep.errors import FersweepError, LoginError, ServerBusy
from fer_sweep.records import StopReason, Wait
from fer_sweep.store.trials import SweepState
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import Command, SweepPath
from fer_sweep.wandb_client.transport import NotFound

log = logging.getLogger(__name__)

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Accepted run ids; the id names a folder here."""


_MOMENT_S = 0.05
_RUNNING_S_A_SLOT = 0.25
"""All slots of an agent together send at most four heartbeats a second while they train."""
_WANTED_S = 3.0
"""A loop asks at least once a second; after so long without a question it wants no trial any more."""
_LAST_ANSWER_S = 5.0
"""How long the end of an agent waits for the answer to a heartbeat that was sent."""


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
    """How long ``next_trial`` waits for the answer to a heartbeat."""
    freshness_s: float = float("inf")
    """How old the server's last answer may be when it is acted on; 0: each question waits for a new one."""
    longest_retry_s: float = 60.0
    """Between heartbeats to a server that does not answer."""
    give_up_s: float = 1800.0
    """After so long without an answer, and without a running trial, the agent ends."""


class SlotAgent:
    """What the server regards as one agent: it runs at most one trial at a time."""

    def __init__(self, server: WandbServer, path: SweepPath, host: str, pace: Pace) -> None:
        self._server = server
        self._path = path
        self._host = host
        self._pace = pace
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._agent: str | None = None
        """The id that the server assigned to it."""
        self._running: str | None = None
        self._wanted_until = float("-inf")
        """Until when the loop wants a trial, by the monotonic clock. It expires, lest the server hands out a trial to a
        loop that has stopped asking."""
        self._nudged = False
        self._proposals: list[Command] = []
        self._exit = False
        self._stop: StopReason | None = None
        """Why the running trial is to stop."""
        self._reason = "waiting for the server's answer"
        self._trouble: FersweepError | None = None
        """Ends this slot's work: the server refused, and asking again would not help."""
        self._unanswered_since: float | None = None
        self._failures = 0
        self._asked_for_state = float("-inf")
        self._state = SweepState.RUNNING
        self._beats = 0
        """Heartbeats sent so far and answered, or timed out."""
        self._answer_due = 0
        """How many there are once the question for a trial is answered."""
        self._beating = False
        self._answered_at = float("-inf")
        self._delay = pace.idle_s
        """Seconds until the next heartbeat."""
        self._running_s = pace.running_s
        self._not_before = float("-inf")
        """The server's Retry-After."""
        self._closing = False

    @property
    def wait(self) -> Wait:
        """Why there is no trial, and when to ask again."""
        with self._changed:
            if self._beats < self._answer_due:
                return Wait("waiting for the server's answer", again_s=_MOMENT_S, is_brief=True)
            return Wait(self._reason, again_s=min(1.0, self._delay))

    @property
    def is_without_trial(self) -> bool:
        """Whether the server has just answered that its running sweep has no trial for this agent."""
        with self._changed:
            answered = self._unanswered_since is None and self._beats >= self._answer_due
            return answered and self._state is SweepState.RUNNING

    @property
    def last_state(self) -> SweepState:
        """The sweep's state as the server last gave it."""
        return self._state

    def ask(self) -> Command | bool:
        """Ask for a trial to start or resume.

        Returns:
            The server's command; False if it has none for now (``wait`` says why); True if there are no more trials.

        Raises:
            FersweepError: The server refuses this agent, or has not answered for too long.
        """
        with self._changed:
            # After an exit a user may have resumed the sweep, so ask the server again.
            if not self._proposals and (self._exit or not self._is_wanted() or self._is_stale()):
                self._exit, self._delay = False, self._pace.idle_s
                self._answer_due = self._nudge()
                self._start()
            self._wanted_until = time.monotonic() + _WANTED_S + self._pace.patience_s
            self._changed.wait_for(self._has_answer, self._pace.patience_s)
            if self._trouble is not None:
                raise self._trouble
            if self._exit and not self._proposals:
                return True
            if not self._proposals:
                return False
            self._wanted_until = float("-inf")
            return self._proposals.pop(0)

    def begins(self, run_id: str, agents: int = 1) -> None:
        """The slot runs this from now on; the more agents there are, the fewer heartbeats each sends."""
        with self._changed:
            self._running_s = max(self._pace.running_s, _RUNNING_S_A_SLOT * agents)
            self._running, self._stop, self._wanted_until = run_id, None, float("-inf")
            self._delay = self._running_s
            self._start()
            self._changed.notify_all()

    def ends(self) -> None:
        """The slot is idle; it sends no heartbeat until ``ask``."""
        with self._changed:
            self._running, self._stop = None, None

    def stop_reason(self) -> StopReason | None:
        """Why the running trial is to stop, if the server said so."""
        with self._changed:
            if self._is_stale() and self._trouble is None:
                due = self._nudge()
                self._changed.wait_for(lambda: self._beats >= due, self._pace.patience_s)
            return self._stop

    def close(self) -> Sequence[Command]:
        """Send no more heartbeats; gives the trials that the server has proposed and the loop has not started."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._beating, _LAST_ANSWER_S)  # it may propose a trial
            return tuple(self._proposals)

    def _is_wanted(self) -> bool:
        return time.monotonic() < self._wanted_until

    def _is_stale(self) -> bool:
        return time.monotonic() - self._answered_at > self._pace.freshness_s

    def _has_answer(self) -> bool:
        # An empty answer counts too, so that the loop need not wait until the timeout.
        return bool(self._proposals) or self._exit or self._trouble is not None or self._beats >= self._answer_due

    def _nudge(self) -> int:
        """Have the thread send a heartbeat at once; gives how many were answered once this one is."""
        self._nudged = True
        self._changed.notify_all()
        return self._beats + (2 if self._beating else 1)  # the current one was sent before

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_heartbeats, daemon=True, name=f"wandb-{self._path.id}")
            self._thread.start()

    def _has_work(self) -> bool:
        return self._running is not None or (self._is_wanted() and not self._proposals and not self._exit)

    def _send_heartbeats(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or (self._has_work() and self._trouble is None))
                self._changed.wait_for(lambda: self._closing or self._nudged, self._delay)
                ordered = max(0.0, self._not_before - time.monotonic())
                self._changed.wait_for(lambda: self._closing, ordered)
                if self._closing:
                    return
                if not self._has_work():
                    continue
                self._nudged, self._beating = False, True
                running = self._running
            try:
                self._beat(running)
            finally:
                with self._changed:
                    self._beats += 1
                    self._beating, self._answered_at = False, time.monotonic()
                    self._changed.notify_all()

    def _beat(self, running: str | None) -> None:
        try:
            commands = self._heartbeat(running)
            told_to_stop = any(c.type == "exit" or (c.type == "stop" and c.run_id == running) for c in commands)
            if told_to_stop or (not commands and not running):
                self._ask_for_state(at_once=told_to_stop)  # a trial and a sweep have the same stop command
        except (NotFound, LoginError) as error:
            if running is None:
                with self._changed:
                    self._trouble = error
            else:
                self._on_no_answer(error)  # a running trial continues, even if the sweep was deleted
            return
        except FersweepError as error:
            self._on_no_answer(error)
            return
        except Exception as error:  # an unexpected answer must not end the thread silently
            self._on_no_answer(ServerBusy(f"W&B's answer could not be read: {type(error).__name__}: {error}"))
            return
        with self._changed:
            self._failures, self._unanswered_since = 0, None
            slower = min(self._pace.longest_idle_s, 1.5 * self._delay)
            self._delay = self._running_s if running else slower
            for command in commands:
                self._obey(command, running)
            if not running and not commands:
                self._exit = self._exit or self._state in (SweepState.FINISHED, SweepState.CANCELLED)
                paused = self._state is SweepState.PAUSED
                self._reason = "the sweep is paused" if paused else "the server has no trial for this agent yet"

    def _heartbeat(self, running: str | None) -> "list[Command]":
        known = self._agent is not None
        self._agent = self._agent or self._server.register_agent(self._path, self._host)
        try:
            return list(self._server.heartbeat(self._agent, [running] if running else []))
        except NotFound:
            if not known:
                raise
        # Agent or sweep was deleted; registering again tells which.
        self._agent = None
        self._agent = self._server.register_agent(self._path, self._host)
        return list(self._server.heartbeat(self._agent, [running] if running else []))

    def _ask_for_state(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if at_once or now - self._asked_for_state >= self._pace.longest_idle_s:
            self._state = self._server.sweep(self._path).state
            self._asked_for_state = now

    def _obey(self, command: Command, running: str | None) -> None:
        if command.type in ("run", "resume"):
            if running is not None or not RUN_ID.fullmatch(command.run_id):
                log.warning("W&B proposed run %r, which this agent cannot start", command.run_id)
            else:
                self._proposals.append(command)
        elif command.type == "stop":
            if command.run_id == running and running == self._running and self._stop is None:
                cancelled = self._state is SweepState.CANCELLED
                self._stop = StopReason.PREEMPTED if cancelled else StopReason.PRUNED
        elif command.type == "exit":
            self._exit = True
            if running is not None and running == self._running and self._state is SweepState.CANCELLED:
                self._stop = self._stop or StopReason.PREEMPTED
        else:
            log.warning("W&B sent an unknown command: %r", command.type)

    def _on_no_answer(self, error: FersweepError) -> None:
        with self._changed:
            self._failures += 1
            wait = min(self._pace.longest_retry_s, 0.5 * 2 ** min(self._failures - 1, 10))
            # Jitter, or else all agents of a lab would retry in the same second.
            now = time.monotonic()
            self._delay = wait * random.uniform(0.5, 1.0)
            ordered = getattr(error, "retry_after_s", None) or 0.0
            self._not_before = now + min(
                self._pace.longest_retry_s, ordered
            )  # capped, or a running trial would miss a stop
            self._unanswered_since = self._unanswered_since or now
            self._reason = f"{error}; retrying"
            if self._running is None and now - self._unanswered_since > self._pace.give_up_s:
                self._trouble = error
