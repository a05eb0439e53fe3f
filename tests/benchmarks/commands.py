"""Running commands as a user does, and agents on a sweep of a stand-in W&B server."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.standin.server import StandIn
from tests.support.standin.state import Sweep

SCRIPTS = Path(sys.executable).parent
FERSWEEP, WANDB = [str(SCRIPTS / "fersweep")], [str(SCRIPTS / "wandb")]
REPOSITORY = Path(__file__).resolve().parents[2]
SIMPLE_CNN = REPOSITORY / "sweeps" / "simple_cnn.yaml"


def run(words: Sequence[str], program: Sequence[str] = FERSWEEP, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with W&B disabled unless ``more`` variables say otherwise."""
    environment = {"WANDB_MODE": "disabled", "WANDB_SILENT": "true", "PYTHONPATH": str(REPOSITORY), **more}
    done = subprocess.run(
        [*program, *words], capture_output=True, text=True, env=os.environ | environment, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


@contextmanager
def agent_at_work(
    agent: Sequence[str], program: Sequence[str], parameters: Mapping[str, Any], **settings: Any
) -> Iterator[tuple[StandIn, Sweep, "subprocess.Popen[str]"]]:
    """An agent, tracked online, on a new sweep of ``program``; SWEEP among the agent's words becomes its path."""
    spec = {"program": "plain.py", "command": ["${env}", *program], "parameters": parameters, **settings}
    spec["metric"] = {"name": "best_val_acc", "goal": "maximize"}
    with StandIn() as server, tempfile.TemporaryDirectory() as folder:
        sweep = server.create_sweep(spec, project="bench")
        places = ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "FERSWEEP_HOME")
        environment = os.environ | server.environment | dict.fromkeys(places, folder)
        environment |= {"WANDB_MODE": "online", "WANDB_SILENT": "true", "PYTHONPATH": str(REPOSITORY)}
        environment["PATH"] = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
        words = [word.replace("SWEEP", f"{server.entity}/bench/{sweep.id}") for word in agent]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(words, env=environment, cwd=folder, **output) as working:
            yield server, sweep, working
