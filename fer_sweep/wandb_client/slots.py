"""One agent registered on a W&B server for each slot, kept in touch by a thread of its own.

The stock agents beat every five seconds, which every trial waits for. Here an idle slot asks at once and then every
fraction of a second, a busy one every two seconds, and whatever the network does, the agent's loop never waits for it
longer than ``Pace`` allows.
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
"""What a server may call a run: the id names a folder here."""


_MOMENT_S = 0.05
_RUNNING_S_A_SLOT = 0.25
"""All the slots of an agent together ask at most four times a second while they train."""
_WANTED_S = 3.0
"""A loop asks at least once a second; one that has not for so long wants no trial any more."""
_LAST_ANSWER_S = 5.0
"""How long the end of an agent waits for an answer that is under way."""


@dataclass(frozen=True)
class Pace:
    """How often a server is asked, and how long an agent's loop waits for it; seconds."""

    idle_s: float = 0.2
    """Between questions for a trial, at first."""
    longest_idle_s: float = 2.0
    """Between questions for a trial, after some that brought none."""
    running_s: float = 2.0
    """Between questions while a trial runs: a stop gets through that late."""
    patience_s: float = 0.1
    """How long ``next_trial`` waits for an answer that is under way."""
    freshness_s: float = float("inf")
    """How old the server's last word may be when it is acted on; 0: each question waits for a new one."""
    longest_retry_s: float = 60.0
    """Between questions to a server that does not answer."""
    give_up_s: float = 1800.0
    """After so long without an answer, and with nothing running, the agent ends."""


class SlotAgent:
    """What the server sees as one agent: it runs at most one trial at a time."""

    def __init__(self, server: WandbServer, path: SweepPath, host: str, pace: Pace) -> None:
        self._server = server
        self._path = path
        self._host = host
        self._pace = pace
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._agent: str | None = None
        """The id the server gave it."""
        self._running: str | None = None
        self._wanted_until = float("-inf")
        """The loop has asked for a trial, and has not had one; by the monotonic clock. It runs out, lest the server
        hands out a trial to a loop that has stopped asking."""
        self._nudged = False
        self._offers: list[Command] = []
        self._exit = False
        self._stop: StopReason | None = None
        """What the running trial has been told."""
        self._reason = "waiting for the server's answer"
        self._trouble: FersweepError | None = None
        """Ends this slot's work: the server said no, and asking again would not help."""
        self._unanswered_since: float | None = None
        self._failures = 0
        self._asked_for_state = float("-inf")
        self._state = SweepState.RUNNING
        self._beats = 0
        """Answers so far, silence included."""
        self._answer_due = 0
        """So many there are once the question for a trial is answered."""
        self._beating = False
        self._answered_at = float("-inf")
        self._delay = pace.idle_s
        """Seconds until the thread asks again by itself."""
        self._running_s = pace.running_s
        self._not_before = float("-inf")
        """The server has asked not to be asked until then."""
        self._closing = False

    @property
    def wait(self) -> Wait:
        """Why there is no trial, and when to ask again."""
        with self._changed:
            if self._beats < self._answer_due:
                return Wait("the server's answer is under way", again_s=_MOMENT_S, is_brief=True)
            return Wait(self._reason, again_s=min(1.0, self._delay))

    @property
    def is_without_trial(self) -> bool:
        """Whether the server has just said that it has none, of a sweep that runs."""
        with self._changed:
            answered = self._unanswered_since is None and self._beats >= self._answer_due
            return answered and self._state is SweepState.RUNNING

    @property
    def last_state(self) -> SweepState:
        """The sweep's state when the server was last asked for it."""
        return self._state

    def ask(self) -> Command | bool:
        """A trial to begin, or to go on with.

        Returns:
            The server's command, False if it has none for now (``wait`` says why), True if it never will again.

        Raises:
            FersweepError: The server refuses this agent, or has not answered for too long.
        """
        with self._changed:
            # After an exit a person may have resumed the sweep, so a new question is a new question.
            if not self._offers and (self._exit or not self._is_wanted() or self._is_stale()):
                self._exit, self._delay = False, self._pace.idle_s
                self._answer_due = self._nudge()
                self._start()
            self._wanted_until = time.monotonic() + _WANTED_S + self._pace.patience_s
            self._changed.wait_for(self._has_answer, self._pace.patience_s)
            if self._trouble is not None:
                raise self._trouble
            if self._exit and not self._offers:
                return True
            if not self._offers:
                return False
            self._wanted_until = float("-inf")
            return self._offers.pop(0)

    def begins(self, run_id: str, agents: int = 1) -> None:
        """The slot runs this from now on; the more agents there are beside it, the less each asks."""
        with self._changed:
            self._running_s = max(self._pace.running_s, _RUNNING_S_A_SLOT * agents)
            self._running, self._stop, self._wanted_until = run_id, None, float("-inf")
            self._delay = self._running_s
            self._start()
            self._changed.notify_all()

    def ends(self) -> None:
        """The slot runs nothing any more; nothing is asked until ``ask``."""
        with self._changed:
            self._running, self._stop = None, None

    def stop_reason(self) -> StopReason | None:
        """What the server has said of the running trial by now."""
        with self._changed:
            if self._is_stale() and self._trouble is None:
                due = self._nudge()
                self._changed.wait_for(lambda: self._beats >= due, self._pace.patience_s)
            return self._stop

    def close(self) -> Sequence[Command]:
        """Say nothing more to the server; gives the trials that it has offered and nobody has begun."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._beating, _LAST_ANSWER_S)  # an answer under way may be an offer
            return tuple(self._offers)

    def _is_wanted(self) -> bool:
        return time.monotonic() < self._wanted_until

    def _is_stale(self) -> bool:
        return time.monotonic() - self._answered_at > self._pace.freshness_s

    def _has_answer(self) -> bool:
        # Nothing is an answer too: the loop need not wait out its patience for it.
        return bool(self._offers) or self._exit or self._trouble is not None or self._beats >= self._answer_due

    def _nudge(self) -> int:
        """Have the thread ask at once; gives how many answers there will be once it has."""
        self._nudged = True
        self._changed.notify_all()
        return self._beats + (2 if self._beating else 1)  # one under way was sent before

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_in_touch, daemon=True, name=f"wandb-{self._path.id}")
            self._thread.start()

    def _has_work(self) -> bool:
        return self._running is not None or (self._is_wanted() and not self._offers and not self._exit)

    def _keep_in_touch(self) -> None:
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
                self._ask_for_state(at_once=told_to_stop)  # stop is said of a trial and of a sweep alike
        except (NotFound, LoginError) as error:
            if running is None:
                with self._changed:
                    self._trouble = error
            else:
                self._on_silence(error)  # a trial that runs is not given up for it, not even if the sweep was deleted
            return
        except FersweepError as error:
            self._on_silence(error)
            return
        except Exception as error:  # an answer of a shape nobody foresaw must not end the thread without a word
            self._on_silence(ServerBusy(f"W&B's answer could not be read: {type(error).__name__}: {error}"))
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
        # The server has forgotten the agent, or the sweep is gone; registering again tells which.
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
                log.warning("W&B offered run %r, which cannot be taken up here", command.run_id)
            else:
                self._offers.append(command)
        elif command.type == "stop":
            if command.run_id == running and running == self._running and self._stop is None:
                cancelled = self._state is SweepState.CANCELLED
                self._stop = StopReason.PREEMPTED if cancelled else StopReason.PRUNED
        elif command.type == "exit":
            self._exit = True
            if running is not None and running == self._running and self._state is SweepState.CANCELLED:
                self._stop = self._stop or StopReason.PREEMPTED
        else:
            log.warning("W&B sent the agent a command that is not known here: %r", command.type)

    def _on_silence(self, error: FersweepError) -> None:
        with self._changed:
            self._failures += 1
            wait = min(self._pace.longest_retry_s, 0.5 * 2 ** min(self._failures - 1, 10))
            # Spread out: all the agents of a lab would otherwise come back in the same second.
            now = time.monotonic()
            self._delay = wait * random.uniform(0.5, 1.0)
            ordered = getattr(error, "retry_after_s", None) or 0.0
            self._not_before = now + min(self._pace.longest_retry_s, ordered)  # a trial that runs must hear of a stop
            self._unanswered_since = self._unanswered_since or now
            self._reason = f"{error}; asking again"
            if self._running is None and now - self._unanswered_since > self._pace.give_up_s:
                self._trouble = error
