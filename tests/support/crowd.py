"""Agents of one sweep, each a process forked from one that has imported everything; there is nothing to train.

    python -m tests.support.crowd STORAGE SWEEP AGENTS

It prints a line "ready" for every agent, lets them start once it reads a line, and prints "TRIAL ATTEMPT" for every
trial that an agent has finished.
"""

import os
import subprocess
import sys
import traceback
from contextlib import closing
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Crowd:
    """So many agents at work on a sweep."""

    def __init__(self, storage: str, sweep: str, agents: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.support.crowd", storage, sweep, str(agents)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        for _ in range(agents):
            assert self._next_line() == "ready\n"
        print("go", file=self._process.stdin, flush=True)
        self._finished: list[tuple[int, int]] = []

    def wait_for(self, trials: int) -> None:
        """Return once so many trials are finished."""
        while len(self._finished) < trials:
            self._take(self._next_line())

    def end(self) -> list[tuple[int, int]]:
        """Wait until all agents have ended without an error; gives the trials they finished, with their attempts."""
        out, err = self._process.communicate(timeout=300)
        assert (self._process.returncode, err) == (0, "")
        for line in out.splitlines():
            self._take(line)
        return self._finished

    def _next_line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise AssertionError(self._process.communicate()[1])
        return line

    def _take(self, line: str) -> None:
        trial, attempt = line.split()
        self._finished.append((int(trial), int(attempt)))


def work(storage: str, sweep: str, go: int) -> None:
    """Be one agent."""
    from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
    from fer_sweep.search.optuna_embedded import OptunaSearch

    with closing(OptunaSearch(sweep, storage=storage)) as search:
        os.write(1, b"ready\n")
        os.read(go, 1)  # ends when the parent closes its side: all start at once
        while isinstance(request := search.next_trial("cpu/0"), TrialRequest):
            for epoch in (1, 2):
                search.report(request.trial_id, epoch, {"val_loss": request.config.lr * epoch})
            search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
            os.write(1, f"{request.trial_id} {request.attempt}\n".encode())  # short enough to be written in one piece


def main() -> None:
    """Fork the agents and wait for them."""
    storage, sweep, agents = sys.argv[1:]
    from fer_sweep.search import optuna_embedded, postgres  # noqa: F401 imported once, for all of them

    go, held = os.pipe()
    for _ in range(int(agents)):
        if os.fork() == 0:
            os.close(held)
            try:
                work(storage, sweep, go)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    sys.stdin.readline()
    os.close(held)
    assert "torch" not in sys.modules
    ends = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(int(agents))]
    sys.exit(any(ends))


if __name__ == "__main__":
    main()
