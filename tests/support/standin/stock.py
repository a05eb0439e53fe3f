"""Stock W&B tools as their users run them: processes that know the stand-in by their environment only."""

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
PROGRAMS = Path(__file__).with_name("programs")
"""Scripts that run in processes of their own, with stock wandb."""


class Stock:
    """A working folder with a home of its own, and what is started in it."""

    def __init__(self, server, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        self.environment |= server.environment | {"HOME": str(folder), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        for kind in ("", "CACHE_", "CONFIG_", "DATA_", "ARTIFACT_"):
            self.environment[f"WANDB_{kind}DIR"] = str(folder)
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> "subprocess.Popen[str]":
        out = subprocess.PIPE
        process = subprocess.Popen(
            command, env=self.environment, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT, text=True
        )
        self.running.append(process)
        return process

    def output(self, process: "subprocess.Popen[str]") -> str:
        """What the process wrote until its end."""
        return process.communicate(timeout=300)[0]

    def wandb(self, *arguments: str) -> None:
        """Run to the end; a failure shows the whole output."""
        process = self.start(str(BIN / "wandb"), *arguments)
        output = self.output(process)
        assert process.returncode == 0, output

    def __enter__(self) -> "Stock":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.running:
            process.kill()
            process.communicate()
