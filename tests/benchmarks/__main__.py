"""``make bench``: the figures of the README, measured on this machine, as a table and as JSON.

Every figure is made by the command line as a user runs it, on drawn faces; medians over ``--repeats`` runs. The
machine should have nothing else to do. One row alone: ``python -m tests.benchmarks --only help``.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks import agents
from tests.standin.server import StandIn

FERSWEEP = [str(Path(sys.executable).with_name("fersweep"))]
WANDB = [str(Path(sys.executable).with_name("wandb"))]
SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"

THROUGHPUT: Mapping[str, list[str]] = {
    "simple_cnn": ["--train-samples=4096"],
    "deeper_cnn": ["--train-samples=2048"],
    "resnet18": ["--train-samples=768"],
    "vit": ["--train-samples=2048"],
}
"""Training images an epoch: enough steps to be steady, few enough to be quick."""


def images_per_second(model: str) -> float:
    """Training images a second of the architecture's default sizes at batch 128, all cores, as `precision: auto`."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", f"--model={model}", "--data=synthetic", "--epochs=3", f"--folder={folder}/trial", "--json"]
        return float(json.loads(_run([*words, *THROUGHPUT[model]]))["images_per_second"])


def seconds_between_trials(mode: str) -> float:
    """From one trial's end to the first step of the next one in its slot, with W&B tracking in ``mode``."""
    tiny = ["epochs=1", "train_samples=64", "channels=4", "hidden=8"]
    fixed = [word for value in tiny for word in ("--set", value)]
    words = ["run", str(SWEEPS / "simple_cnn.yaml"), "--data=synthetic", "--count=8", "--slots=1", *fixed]
    if mode == "online":
        with StandIn() as server:
            text = _run([*words, "--search=optuna"], mode=mode, **server.environment)
    else:
        text = _run(words, mode=mode)
    found = re.search(r"first step: ([0-9.]+) s", text)
    assert found, text
    return float(found[1])


def seconds_of(words: list[str], *, program: Sequence[str] = FERSWEEP, online: bool = False) -> float:
    """Wall time of a command, from the shell's point of view; with a W&B server to log in to if ``online``."""
    with StandIn() if online else contextlib.nullcontext() as server:
        login = {**server.environment, "mode": "online"} if server else {}
        began = time.perf_counter()
        _run(words, program=program, **login)
        return time.perf_counter() - began


ROWS: Mapping[str, tuple[str, Callable[[], float]]] = {
    "help": ("`fersweep --help`, s", lambda: seconds_of(["--help"])),
    "create": (
        "`fersweep create sweeps/simple_cnn.yaml`, s",
        lambda: seconds_of(["create", str(SWEEPS / "simple_cnn.yaml")]),
    ),
    "create-online": (
        "the same on a W&B server (on loopback), s",
        lambda: seconds_of(["create", str(SWEEPS / "simple_cnn.yaml")], online=True),
    ),
    "wandb-sweep": (
        "`wandb sweep sweeps/simple_cnn.yaml` on that server, s",
        lambda: seconds_of(["sweep", str(SWEEPS / "simple_cnn.yaml")], program=WANDB, online=True),
    ),
    "between": (
        "end of a trial to the next one's first step, not tracked, s",
        lambda: seconds_between_trials("disabled"),
    ),
    "between-offline": ("the same, tracked by wandb offline, s", lambda: seconds_between_trials("offline")),
    "between-online": (
        "the same, tracked by wandb online (a server on loopback), s",
        lambda: seconds_between_trials("online"),
    ),
    **agents.ROWS,
    **{
        model: (f"{model}, training images/s", lambda model=model: images_per_second(model))  # type: ignore[misc]
        for model in THROUGHPUT
    },
}


def _run(words: list[str], mode: str = "disabled", program: Sequence[str] = FERSWEEP, **more: str) -> str:
    environment = {**os.environ, "WANDB_MODE": mode, "WANDB_SILENT": "true", **more}
    done = subprocess.run(
        [*program, *words], capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout if "--json" in words else done.stdout + done.stderr


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    """Measure the rows asked for and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ROWS, action="append", help="this row; repeatable")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, list[float]] = {}
    chosen = arguments.only or list(ROWS)
    with tempfile.TemporaryDirectory() as home:
        os.environ["FERSWEEP_HOME"] = home
        os.environ["WANDB_DIR"] = home
        _run(["train", "--model=simple_cnn", "--data=synthetic", "--epochs=1", "--train-samples=64"])  # draws the faces
        for repeat in range(arguments.repeats):  # row by row within a repeat, so that a slow minute hits them all
            for name in chosen:
                figures.setdefault(name, []).append(ROWS[name][1]())
                print(f"{repeat + 1}/{arguments.repeats} {name}: {figures[name][-1]:.3g}", file=sys.stderr)
    print(f"\n{os.cpu_count()} cores of {_processor()}, Python {platform.python_version()}\n")
    print("| figure | median | least | most |\n|---|---|---|---|")
    for name, values in figures.items():
        low, high = min(values), max(values)
        print(f"| {ROWS[name][0]} | {_short(statistics.median(values))} | {_short(low)} | {_short(high)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    main()
