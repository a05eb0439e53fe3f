"""Records a table: the learning curve of every configuration of a grid on a subset of FER2013.

    python -m tests.benchmarks.search_efficiency.record simple_cnn_24 --folder /tmp/recording

Made by fersweep itself: a grid sweep without early termination. Needs the FER2013 archive; none of its images is in
the file. Run again after an interruption, it resumes in the same folder.
"""

import argparse
import csv
import os
import subprocess
from pathlib import Path

import yaml

from tests.benchmarks.commands import FERSWEEP
from tests.benchmarks.faces import extract_subset
from tests.benchmarks.search_efficiency.tables import TABLES, Table
from tests.support.searches import find

DATA = "fer2013-subset"


def main() -> None:
    """Train the grid and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--folder", type=Path, required=True, help="where the sweep is, and the images unpacked for it")
    arguments = parser.parse_args()
    table, folder = TABLES[arguments.table], arguments.folder.absolute()
    os.environ |= {"FERSWEEP_HOME": f"{folder}/home", "FERSWEEP_CACHE": f"{folder}/cache"}
    os.environ["WANDB_MODE"] = "disabled"
    if not (folder / "home").exists():
        create(table, folder)
    subprocess.run([*FERSWEEP, "agent", "--gpus=none", f"--slots={os.cpu_count()}"], check=True)
    write(table)


def create(table: Table, folder: Path) -> None:
    """Prepare the images and create the sweep."""
    images = extract_subset(folder / "images", train=table.train, val=table.val, start=table.start)
    subprocess.run([*FERSWEEP, "data", "prepare", images, "--name", DATA], check=True)
    parameters = {name: {"values": list(levels)} for name, levels in table.grid.items()}
    parameters |= {name: {"value": value} for name, value in table.fixed.items()}
    parameters |= {"data": {"value": DATA}, "epochs": {"value": table.epochs}}
    metric = {"name": "best_val_acc", "goal": "maximize"}
    sweep = {"program": "fersweep", "method": "grid", "metric": metric, "parameters": parameters}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    subprocess.run([*FERSWEEP, "create", folder / "sweep.yaml"], check=True)


def write(table: Table) -> None:
    """Write the curves of the sweep that the environment's home holds."""
    table.path.parent.mkdir(exist_ok=True)
    sweep = find(None)
    with table.path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*table.grid, *(f"val_acc@{epoch}" for epoch in range(1, table.epochs + 1))])
        for record in sweep.trials():
            accuracies = [f"{row['val_acc']:.4f}" for row in sweep.reports(record.trial_id)]
            writer.writerow([*(record.parameters[name] for name in table.grid), *accuracies])


if __name__ == "__main__":
    main()
