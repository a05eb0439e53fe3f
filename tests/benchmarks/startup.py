"""How long a command takes, from the shell's point of view."""

import contextlib
import time
from collections.abc import Mapping, Sequence

from tests.benchmarks.commands import FERSWEEP, SWEEPS, WANDB, run
from tests.benchmarks.rows import Row
from tests.support.standin.server import StandIn

SWEEP = str(SWEEPS / "simple_cnn.yaml")


def seconds(words: list[str], *, program: Sequence[str] = FERSWEEP, online: bool = False) -> float:
    """Wall time of a command; with a W&B server to log in to if ``online``."""
    with StandIn() if online else contextlib.nullcontext() as server:
        login = {**server.environment, "mode": "online"} if server else {}
        began = time.perf_counter()
        run(words, program=program, **login)
        return time.perf_counter() - began


ROWS: Mapping[str, Row] = {
    "help": Row(
        "`--help`, s",
        {"fersweep": lambda _: seconds(["--help"]), "`wandb`": lambda _: seconds(["--help"], program=WANDB)},
        better="less",
    ),
    "create": Row(
        "`fersweep create sweeps/simple_cnn.yaml` without a server, s",
        {
            "fersweep": lambda _: seconds(["create", SWEEP]),
            "`wandb sweep` on a server": lambda _: seconds(["sweep", SWEEP], program=WANDB, online=True),
        },
        better="less",
    ),
    "create-online": Row(
        "the same on a W&B server (on loopback), s",
        {
            "fersweep": lambda _: seconds(["create", SWEEP], online=True),
            "`wandb sweep`": lambda _: seconds(["sweep", SWEEP], program=WANDB, online=True),
        },
        better="less",
    ),
}
