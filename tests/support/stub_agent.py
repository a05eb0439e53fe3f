"""A stub agent: its last word is a plan of steps, separated by commas; each start in a folder takes the next step.

``0``, ``1``, ``3``: end with that code. ``waits``: until SIGTERM or SIGUSR2, then write a checkpoint and end with 130,
or with another code as in ``waits:3``. ``hangs``: ignores signals. Further starts repeat the last step.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
from pathlib import Path

SHOWN = ("FERSWEEP_HOME", "FERSWEEP_CORES", "PGPASSWORD", "CUDA_VISIBLE_DEVICES", "EDITOR")


def main() -> None:
    signal.alarm(600)  # bounds a failing test only
    told = {signal.SIGTERM, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, told)
    words = sys.argv[1:]
    print("the agent's own words", flush=True)
    plan = words[-1].split(",")
    given = {"pid": os.getpid(), "words": words, "folder": str(Path.cwd())}
    before = _record(given | {name: os.environ.get(name) for name in SHOWN})
    what, _, code = plan[min(before, len(plan) - 1)].partition(":")
    if what == "hangs":
        signal.sigwait({signal.SIGUSR1})
    if what == "waits":
        signal.sigwait(told)
        Path("checkpoint").touch()
        sys.exit(int(code or 130))
    sys.exit(int(what))


def _record(given: dict[str, object]) -> int:
    """Record the input of a start; returns the number of earlier starts."""
    new = Path(f"call-{os.getpid()}")
    new.write_text(json.dumps(given))
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            Path(f"call.{number}").hardlink_to(new)
            break
    return number


def calls() -> list[dict[str, object]]:
    """The input of every start in the working directory."""
    return [json.loads(path.read_text()) for path in sorted(Path().glob("call.*"))]


if __name__ == "__main__":
    main()
