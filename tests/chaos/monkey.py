"""The monkey: picks a fault at random, from a seed, does it, and undoes what has to be undone."""

import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.agents import Seat
from tests.chaos.family import Family, Process
from tests.support.standin.faults import Faults

SIGKILL, SIGSTOP, SIGCONT, SIGTERM = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM
_STARTUP_S = 1.0
"""Into an agent's start; its forkserver imports torch by then."""


@dataclass(frozen=True)
class Strike:
    """One fault that was done."""

    kind: str
    at: float
    """By the monotonic clock."""
    trials: frozenset[str]
    """Those it hit: they trained below the victim."""


Fault = Callable[["Monkey"], frozenset[str] | None]
"""Does its worst and gives the trials it hit, or None if there was no victim for it just now."""


class Monkey:
    """Strikes at agents and what is below them, and at the server if there is one."""

    def __init__(
        self,
        family: Family,
        seats: Sequence[Seat],
        *,
        rng: random.Random,
        lease_s: float,
        server: Faults | None = None,
    ) -> None:
        self.family = family
        self.seats = seats
        self.rng = rng
        self.lease_s = lease_s
        self.server = server
        self.strikes: list[Strike] = []
        self._faults: Mapping[str, Fault] = {**FAULTS, **(SERVER_FAULTS if server else {})}
        self._bag: list[str] = []
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._paused: set[Process] = set()

    def strike(self) -> Strike | None:
        """Do the next fault that finds a victim; every kind comes once before one comes again."""
        if not self._bag:
            self._bag = self.rng.sample(sorted(self._faults), len(self._faults))
        for kind in list(self._bag):
            at = time.monotonic()
            trials = self._faults[kind](self)
            if trials is not None:
                self._bag.remove(kind)
                self.strikes.append(Strike(kind, at, trials))
                return self.strikes[-1]
        return None

    def undo(self, *, everything: bool = False) -> None:
        """Let go on what has been paused for long enough, and the server."""
        now = time.monotonic()
        due = [item for item in self._later if everything or item[0] <= now]
        self._later = [item for item in self._later if item not in due]
        for _, undo in due:
            undo()
        if everything and self.server is not None:
            self.server.clear()

    def seat_at_work(self) -> Seat | None:
        """An agent, not paused, with at least one trial under way."""
        found = [s for s in self.seats if s.agent is not None and s.agent not in self._paused and s.trials()]
        return self.rng.choice(found) if found else None

    def victim(self, seat: Seat, kind: str) -> Process | None:
        """A living process of this kind below an agent."""
        assert seat.agent is not None
        found = [process for process in self.family.below(seat.agent, kind) if process not in self._paused]
        return self.rng.choice(sorted(found, key=lambda process: process.pid)) if found else None

    def pause(self, processes: Sequence[Process]) -> None:
        """Stop them for longer than their leases hold."""
        for process in processes:
            process.send(SIGSTOP)
        self._paused |= set(processes)
        self.after(self.lease_s + self.rng.uniform(1.0, 3.0), lambda: self._let_go_on(processes))

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Have something done by ``undo``, so many seconds from now."""
        self._later.append((time.monotonic() + seconds, act))

    def _let_go_on(self, processes: Sequence[Process]) -> None:
        for process in processes:
            process.send(SIGCONT)
        self._paused -= set(processes)


def kill_below(kind: str) -> Fault:
    def fault(monkey: Monkey) -> frozenset[str] | None:
        seat = monkey.seat_at_work()
        victim = seat and monkey.victim(seat, kind)
        if seat is None or victim is None:
            return None
        hit = seat.trials() if kind != "trial" else frozenset({victim.trial or ""}) - {""}
        victim.send(SIGKILL)
        return hit

    return fault


def end_agent(number: signal.Signals, *, group: bool = False, at_once: bool = False) -> Fault:
    def fault(monkey: Monkey) -> frozenset[str] | None:
        seat = monkey.seat_at_work()
        if seat is None:
            return None
        hit = seat.trials()
        send = seat.send_to_group if group else seat.send
        send(number, restart_after_s=0.0 if at_once else monkey.rng.uniform(0.5, 2.0))
        if at_once:
            seat.start_next()
        return hit

    return fault


def kill_everything(monkey: Monkey) -> frozenset[str] | None:
    """Kill all agents with all that is below them, and run the same commands again."""
    hit = everybody(monkey)
    if not hit:
        return None
    for seat in monkey.seats:
        seat.send_to_group(SIGKILL, restart_after_s=0.0)
    for seat in monkey.seats:
        seat.start_next()
    return hit


def kill_while_starting(monkey: Monkey) -> frozenset[str] | None:
    """Kill an agent with its group, and its successor within a second of its start."""
    seat = monkey.seat_at_work()
    if seat is None:
        return None
    hit = seat.trials()
    seat.send_to_group(SIGKILL, restart_after_s=0.0)
    seat.start_next()
    time.sleep(monkey.rng.uniform(0.0, _STARTUP_S))
    seat.send_to_group(SIGKILL, restart_after_s=0.5)
    return hit


def pause_trial(monkey: Monkey) -> frozenset[str] | None:
    seat = monkey.seat_at_work()
    victim = seat and monkey.victim(seat, "trial")
    if victim is None or victim.trial is None:
        return None
    hit = frozenset({victim.trial})
    monkey.pause([victim])
    return hit


def pause_agent(monkey: Monkey) -> frozenset[str] | None:
    seat = monkey.seat_at_work()
    if seat is None or seat.agent is None:
        return None
    hit = seat.trials()
    monkey.pause([seat.agent])
    return hit


def pause_group(monkey: Monkey) -> frozenset[str] | None:
    seat = monkey.seat_at_work()
    if seat is None or seat.agent is None:
        return None
    hit = seat.trials()
    monkey.pause([seat.agent, *monkey.family.below(seat.agent)])
    return hit


def pause_service(monkey: Monkey) -> frozenset[str] | None:
    seat = monkey.seat_at_work()
    victim = seat and monkey.victim(seat, "service")
    if seat is None or victim is None:
        return None
    monkey.pause([victim])
    return seat.trials()


def everybody(monkey: Monkey) -> frozenset[str]:
    return frozenset().union(*(seat.trials() for seat in monkey.seats))


def offline(monkey: Monkey) -> frozenset[str] | None:
    assert monkey.server is not None
    if monkey.server.is_offline:
        return None
    monkey.server.offline()
    monkey.after(monkey.rng.uniform(2.0, 6.0), monkey.server.online)
    return everybody(monkey)


def broken(act: Callable[[Faults], None]) -> Fault:
    def fault(monkey: Monkey) -> frozenset[str] | None:
        assert monkey.server is not None
        act(monkey.server)
        return everybody(monkey)

    return fault


FAULTS: Mapping[str, Fault] = {
    "kill -9 trial": kill_below("trial"),
    "kill -9 forkserver": kill_below("forkserver"),
    "kill -9 agent": end_agent(SIGKILL),
    "kill -9 agent, restarted at once": end_agent(SIGKILL, at_once=True),
    "kill -9 everything, the same commands again": kill_everything,
    "kill -9 process group": end_agent(SIGKILL, group=True),
    "kill -9 in the first second of a start": kill_while_starting,
    "SIGTERM agent": end_agent(SIGTERM),
    "pause trial": pause_trial,
    "pause agent": pause_agent,
    "pause agent with all below it": pause_group,
}
SERVER_FAULTS: Mapping[str, Fault] = {
    "kill -9 wandb's service": kill_below("service"),
    "pause wandb's service": pause_service,
    "server offline": offline,
    "server drops connections": broken(lambda faults: faults.drop("*", times=5)),
    "server loses answers": broken(lambda faults: faults.drop("*", times=3, after=True)),
    "server answers 500": broken(lambda faults: faults.fail("*", status=500, times=5)),
    "server answers late": broken(lambda faults: faults.hang("*", 2.0, times=5)),
}
