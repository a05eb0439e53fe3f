"""Records ``curves.csv``: the learning curve of every SimpleCNN of a grid on a subset of FER2013.

    python -m tests.benchmarks.search_efficiency.record

About 25 minutes on two cores. Made by fersweep itself: a grid sweep without early termination. Needs the FER2013
archive; none of its images is in the file.
"""

import csv
import os
import subprocess
import tempfile
from pathlib import Path

import yaml

from tests.benchmarks.commands import FERSWEEP
from tests.benchmarks.faces import extract_subset
from tests.support.searches import find

CURVES = Path(__file__).with_name("curves.csv")
EPOCHS, TRAIN, VAL = 12, 2560, 1024
GRID = {
    "lr": [0.0003, 0.0006, 0.0012, 0.0025, 0.005, 0.01],
    "dropout": [0.0, 0.25, 0.5],
    "channels": [16, 32],
    "hidden": [64, 128, 512],
    "batch_size": [64, 128, 256],
}
"""Values of the shipped simple_cnn.yaml's ranges, spaced as its distributions are."""
FIXED = {"model": "simple_cnn", "data": "fer2013-subset", "epochs": EPOCHS, "weight_decay": 0.0001, "kernel_size": 3}
FIXED |= {"augment.shift": 0.05, "augment.rotation": 5.0}


def main() -> None:
    """Train the grid and write the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"FERSWEEP_HOME": f"{folder}/home", "FERSWEEP_CACHE": f"{folder}/cache"}
        os.environ["WANDB_MODE"] = "disabled"
        parameters = {name: {"values": values} for name, values in GRID.items()}
        parameters |= {name: {"value": value} for name, value in FIXED.items()}
        metric = {"name": "best_val_acc", "goal": "maximize"}
        sweep = {"program": "fersweep", "method": "grid", "metric": metric, "parameters": parameters}
        (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        images = extract_subset(folder / "images", train=TRAIN, val=VAL)
        subprocess.run([*FERSWEEP, "data", "prepare", images, "--name", FIXED["data"]], check=True)
        subprocess.run([*FERSWEEP, "create", folder / "sweep.yaml"], check=True)
        subprocess.run([*FERSWEEP, "agent", "--gpus=none", f"--slots={os.cpu_count()}"], check=True)
        with CURVES.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow([*GRID, *(f"val_acc@{epoch}" for epoch in range(1, EPOCHS + 1))])
            entry = find(None)  # by the variables set above
            for record in entry.trials():
                accuracies = [f"{row['val_acc']:.4f}" for row in entry.reports(record.trial_id)]
                writer.writerow([*(record.parameters[name] for name in GRID), *accuracies])


if __name__ == "__main__":
    main()
