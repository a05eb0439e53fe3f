"""Running commands as a user does."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SCRIPTS = Path(sys.executable).parent
FERSWEEP = [str(SCRIPTS / "fersweep")]
WANDB = [str(SCRIPTS / "wandb")]
REPOSITORY = Path(__file__).resolve().parents[2]
SWEEPS = REPOSITORY / "sweeps"


def run(words: Sequence[str], *, mode: str = "disabled", program: Sequence[str] = FERSWEEP, **more: str) -> str:
    """Run a command with W&B in ``mode``; what it prints, less its standard error with ``--json``."""
    environment = {**os.environ, "WANDB_MODE": mode, "WANDB_SILENT": "true", "PYTHONPATH": str(REPOSITORY), **more}
    done = subprocess.run(
        [*program, *words], capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout if "--json" in words else done.stdout + done.stderr


def agent_environment(login: Mapping[str, str], folder: str) -> dict[str, str]:
    """What an agent runs in that is tracked online and keeps all of its files in ``folder``."""
    places = ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "FERSWEEP_HOME")
    return {
        **os.environ,
        **login,
        "WANDB_MODE": "online",
        "WANDB_SILENT": "true",
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        **dict.fromkeys(places, folder),
    }
