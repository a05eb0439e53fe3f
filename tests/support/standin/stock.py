"""Runs the stock W&B tools as their users do: separate processes that know the stand-in by two variables only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.support.standin.server import StandIn

BIN = Path(sys.executable).parent
PROGRAMS = Path(__file__).with_name("programs")
"""Scripts that run in processes of their own, with stock wandb."""


class Stock:
    """A working folder with a home of its own, and what is started in it."""

    def __init__(self, server: StandIn, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        self.environment |= server.environment | {"HOME": str(folder), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            self.environment[name] = str(folder)
        self.running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def start(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        """A process whose output goes to a file, so that nobody has to read along."""
        log = (self.folder / f"{len(self.running)}.log").open("wb")
        environment = self.environment | variables
        process = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        self.running.append((process, log))
        return process

    def output(self, process: subprocess.Popen[bytes], timeout_s: float = 300) -> str:
        """What the process wrote until its end."""
        process.wait(timeout_s)
        log = next(log for started, log in self.running if started is process)
        return Path(log.name).read_text(errors="replace")

    def call(self, *command: str, **variables: str) -> str:
        """Run to the end; a failure shows the whole output."""
        process = self.start(*command, **variables)
        output = self.output(process)
        assert process.returncode == 0, output
        return output

    def wandb(self, *arguments: str) -> str:
        return self.call(str(BIN / "wandb"), *arguments)

    def __enter__(self) -> Stock:
        return self

    def __exit__(self, *error: object) -> None:
        for process, log in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()
            log.close()
