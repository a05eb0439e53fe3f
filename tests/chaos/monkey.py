"""The monkey: picks a fault at random, from a seed, does it, and undoes what has to be undone."""

import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from tests.chaos.agents import Seat
from tests.chaos.family import below, send, trial_of
from tests.support.standin.faults import Faults

SIGKILL, SIGSTOP, SIGCONT, SIGTERM = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM
_STARTUP_S = 1.0
"""Into an agent's start; its forkserver imports torch by then."""


@dataclass(frozen=True)
class Strike:
    """One fault that was done."""

    kind: str
    trials: frozenset[str]
    """Those it hit: they trained below the victim."""


class Monkey:
    """Strikes at agents and what is below them, and at the server if there is one."""

    def __init__(self, seats: Sequence[Seat], rng: random.Random, lease_s: float, server: Faults | None) -> None:
        self.seats = seats
        self.rng = rng
        self.server = server
        self.strikes: list[Strike] = []
        self._lease_s = lease_s
        self._faults: Mapping[str, Fault] = FAULTS | (SERVER_FAULTS if server else {})
        self._bag: list[str] = []
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._paused: set[psutil.Process] = set()

    def strike(self) -> Strike | None:
        """Do the next fault that finds a victim; every kind comes once before one comes again."""
        if not self._bag:
            self._bag = self.rng.sample(sorted(self._faults), len(self._faults))
        working = [s for s in self.seats if s.agent is not None and s.agent not in self._paused and s.trials()]
        seat = self.rng.choice(working) if working else None
        for kind in list(self._bag):
            trials = self._faults[kind](self, seat)
            if trials is not None:
                self._bag.remove(kind)
                self.strikes.append(Strike(kind, trials))
                return self.strikes[-1]
        return None

    def undo(self, *, everything: bool = False) -> None:
        """Resume what has been paused for long enough, and restore the server."""
        now = time.monotonic()
        due = [item for item in self._later if everything or item[0] <= now]
        self._later = [item for item in self._later if item not in due]
        for _, undo in due:
            undo()
        if everything and self.server is not None:
            self.server.clear()

    def victim(self, seat: Seat, kind: str) -> psutil.Process | None:
        """A living process of this kind below an agent."""
        found = [process for process in below(seat.agent, kind) if process not in self._paused] if seat.agent else []
        return self.rng.choice(found) if found else None

    def pause(self, processes: Sequence[psutil.Process]) -> None:
        """Stop them for longer than their leases hold."""
        for process in processes:
            send(process, SIGSTOP)
        self._paused |= set(processes)
        self.after(self._lease_s + self.rng.uniform(1.0, 3.0), lambda: self._resume(processes))

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Have something done by ``undo``, so many seconds from now."""
        self._later.append((time.monotonic() + seconds, act))

    def trials(self) -> frozenset[str]:
        """All that are under way."""
        return frozenset().union(*(seat.trials() for seat in self.seats))

    def _resume(self, processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            send(process, SIGCONT)
        self._paused -= set(processes)


Fault = Callable[[Monkey, Seat | None], frozenset[str] | None]
"""Gets an agent at work; does its worst and gives the trials it hit, or None if there was no victim for it just now."""


def below_agent(kind: str, act: Callable[[Monkey, psutil.Process], object]) -> Fault:
    """Something done to a process below an agent."""

    def fault(monkey: Monkey, seat: Seat | None) -> frozenset[str] | None:
        victim = monkey.victim(seat, kind) if seat else None
        if seat is None or victim is None:
            return None
        hit = seat.trials() if kind != "trial" else frozenset({trial_of(victim) or ""}) - {""}
        act(monkey, victim)
        return hit

    return fault


def to_agent(act: Callable[[Monkey, Seat], object]) -> Fault:
    """Something done to an agent."""

    def fault(monkey: Monkey, seat: Seat | None) -> frozenset[str] | None:
        if seat is None:
            return None
        hit = seat.trials()
        act(monkey, seat)
        return hit

    return fault


def to_server(act: Callable[[Monkey, Faults], object]) -> Fault:
    """Something done to the server."""

    def fault(monkey: Monkey, _: Seat | None) -> frozenset[str] | None:
        if monkey.server is None or monkey.server.is_offline:
            return None
        act(monkey, monkey.server)
        return monkey.trials()

    return fault


def kill(monkey: Monkey, victim: psutil.Process) -> None:
    send(victim, SIGKILL)


def pause(monkey: Monkey, victim: psutil.Process) -> None:
    monkey.pause([victim])


def pause_agent(monkey: Monkey, seat: Seat, *, group: bool = False) -> None:
    if seat.agent is not None:
        monkey.pause([seat.agent, *(below(seat.agent) if group else ())])


def end_agent(monkey: Monkey, seat: Seat, number: signal.Signals, *, group: bool = False) -> None:
    seat.signal(number, group=group, restart_after_s=monkey.rng.uniform(0.5, 2.0))


def kill_and_restart(monkey: Monkey, seat: Seat) -> None:
    seat.signal(SIGKILL)
    seat.start_next()


def kill_while_starting(monkey: Monkey, seat: Seat) -> None:
    """Kill an agent with its group, and its successor within a second of its start."""
    seat.signal(SIGKILL, group=True)
    seat.start_next()
    time.sleep(monkey.rng.uniform(0.0, _STARTUP_S))
    seat.signal(SIGKILL, group=True, restart_after_s=0.5)


def kill_everything(monkey: Monkey, _: Seat | None) -> frozenset[str] | None:
    """Kill all agents with all that is below them, and run the same commands again."""
    hit = monkey.trials()
    if not hit:
        return None
    for seat in monkey.seats:
        seat.signal(SIGKILL, group=True)
    for seat in monkey.seats:
        seat.start_next()
    return hit


def offline(monkey: Monkey, server: Faults) -> None:
    server.offline()
    monkey.after(monkey.rng.uniform(2.0, 6.0), server.online)


FAULTS: Mapping[str, Fault] = {
    "kill -9 trial": below_agent("trial", kill),
    "kill -9 forkserver": below_agent("forkserver", kill),
    "kill -9 agent": to_agent(lambda monkey, seat: end_agent(monkey, seat, SIGKILL)),
    "kill -9 agent, restarted at once": to_agent(kill_and_restart),
    "kill -9 everything, the same commands again": kill_everything,
    "kill -9 process group": to_agent(lambda monkey, seat: end_agent(monkey, seat, SIGKILL, group=True)),
    "kill -9 in the first second of a start": to_agent(kill_while_starting),
    "SIGTERM agent": to_agent(lambda monkey, seat: end_agent(monkey, seat, SIGTERM)),
    "pause trial": below_agent("trial", pause),
    "pause agent": to_agent(pause_agent),
    "pause agent with all below it": to_agent(lambda monkey, seat: pause_agent(monkey, seat, group=True)),
}
SERVER_FAULTS: Mapping[str, Fault] = {
    "kill -9 wandb's service": below_agent("service", kill),
    "pause wandb's service": below_agent("service", pause),
    "server offline": to_server(offline),
    "server drops connections": to_server(lambda _, faults: faults.drop("*", times=5)),
    "server loses answers": to_server(lambda _, faults: faults.drop("*", times=3, after=True)),
    "server answers 500": to_server(lambda _, faults: faults.fail("*", status=500, times=5)),
    "server answers late": to_server(lambda _, faults: faults.hang("*", 2.0, times=5)),
}
