"""The monkey: picks a fault at random, from a seed, does it, and undoes what has to be undone."""

import functools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

import psutil

from tests.chaos.agents import Seat, below, send
from tests.support.standin.faults import Faults


class Monkey:
    """Strikes at agents and what is below them, and at the server if there is one."""

    def __init__(self, seats: Sequence[Seat], rng: random.Random, lease_s: float, server: Faults | None) -> None:
        self.seats = seats
        self.rng = rng
        self.server = server
        self.strikes: Counter[str] = Counter()
        """How often each kind of fault was done."""
        self._lease_s = lease_s
        self._faults: Mapping[str, Fault] = FAULTS | (SERVER_FAULTS if server else {})
        self._bag: list[str] = []
        self._later: list[tuple[float, Callable[[], object]]] = []

    def working(self) -> list[Seat]:
        """Those whose agent trains."""
        return [seat for seat in self.seats if seat.agent and below(seat.agent, "trial")]

    def strike(self) -> str | None:
        """Do the next fault that finds a victim, and give its kind; each comes once before one comes again."""
        if not self._bag:
            self._bag = self.rng.sample(sorted(self._faults), len(self._faults))
        if working := self.working():
            seat = self.rng.choice(working)
            for kind in self._bag:
                if self._faults[kind](self, seat) is not False:
                    self._bag.remove(kind)
                    self.strikes[kind] += 1
                    return kind
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

    def pause(self, processes: Sequence[psutil.Process]) -> None:
        """Stop them for longer than their leases hold."""
        pause_s = self._lease_s + self.rng.uniform(1.0, 3.0)
        for process in processes:
            send(process, SIGSTOP)
            self.after(pause_s, functools.partial(send, process, SIGCONT))

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Have something done by ``undo``, so many seconds from now."""
        self._later.append((time.monotonic() + seconds, act))


Fault = Callable[[Monkey, Seat], bool | None]
"""Gets a seat whose agent trains, and does its worst; gives False if it finds no victim."""


def to_process(kind: str, act: Callable[[Monkey, psutil.Process], None]) -> Fault:
    """Something done to a process of this kind below the agent."""

    def fault(monkey: Monkey, seat: Seat) -> bool | None:
        found = below(seat.agent, kind) if seat.agent else []
        return act(monkey, monkey.rng.choice(found)) if found else False

    return fault


def kill(monkey: Monkey, victim: psutil.Process) -> None:
    send(victim, SIGKILL)


def pause(monkey: Monkey, victim: psutil.Process) -> None:
    monkey.pause([victim])


def end_agent(
    monkey: Monkey, seat: Seat, number: Signals = SIGKILL, *, group: bool = False, at_once: bool = False
) -> None:
    """Signal the agent, alone or with its process group; another follows at once or some time later."""
    seat.signal(number, group=group, restart_after_s=0.0 if at_once else monkey.rng.uniform(0.5, 2.0))


def kill_while_starting(monkey: Monkey, seat: Seat) -> None:
    """Kill an agent with its group, and its successor within a second of its start."""
    end_agent(monkey, seat, group=True, at_once=True)
    monkey.after(monkey.rng.uniform(0.1, 1.1), lambda: end_agent(monkey, seat, group=True))


def kill_everything(monkey: Monkey, _: Seat) -> None:
    """Kill all agents with all that is below them, and run the same commands again."""
    for seat in monkey.seats:
        end_agent(monkey, seat, group=True, at_once=True)


def to_server(act: Callable[[Monkey, Faults], None]) -> Fault:
    """Something done to the server, unless it is offline."""

    def fault(monkey: Monkey, _: Seat) -> bool | None:
        return False if monkey.server is None or monkey.server.is_offline else act(monkey, monkey.server)

    return fault


def offline(monkey: Monkey, server: Faults) -> None:
    server.offline()
    monkey.after(monkey.rng.uniform(2.0, 6.0), server.online)


FAULTS: Mapping[str, Fault] = {
    "kill -9 trial": to_process("trial", kill),
    "kill -9 forkserver": to_process("forkserver", kill),
    "kill -9 agent": end_agent,
    "kill -9 agent, restarted at once": functools.partial(end_agent, at_once=True),
    "kill -9 everything, the same commands again": kill_everything,
    "kill -9 process group": functools.partial(end_agent, group=True),
    "kill -9 in the first second of a start": kill_while_starting,
    "SIGTERM agent": functools.partial(end_agent, number=SIGTERM),
    "pause trial": to_process("trial", pause),
}
SERVER_FAULTS: Mapping[str, Fault] = {
    "kill -9 wandb's service": to_process("service", kill),
    "pause wandb's service": to_process("service", pause),
    "server offline": to_server(offline),
    "server drops connections": to_server(lambda _, faults: faults.drop("*", times=5)),
    "server loses answers": to_server(lambda _, faults: faults.drop("*", times=3, after=True)),
    "server answers 500": to_server(lambda _, faults: faults.fail("*", status=500, times=5)),
    "server answers late": to_server(lambda _, faults: faults.hang("*", 2.0, times=5)),
}
