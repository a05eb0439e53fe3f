"""``make bench``: the figures of the documentation, measured on this machine, as a table and as JSON.

Everything is run as a user runs it; both sides of a row take turns within every repeat, so that a slow minute hits them
both, and ratios are taken within a repeat. The machine should have nothing else to do.

    python -m tests.benchmarks                       every row, three repeats (about an hour on two cores)
    python -m tests.benchmarks --quick               the quick rows once, in a few minutes
    python -m tests.benchmarks --only help --only vit --repeats 5 --json figures.json
"""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks import overhead, throughput, whole_sweep
from tests.benchmarks.rows import Row, Values, table

MODULES = (overhead, throughput, whole_sweep)
ROWS: Mapping[str, Row] = {name: row for module in MODULES for name, row in module.ROWS.items()}


def measure(chosen: Sequence[str], repeats: int) -> Mapping[str, Values]:
    """Measure rows, all of them once before any a second time."""
    figures: dict[str, dict[str, list[float]]] = {name: {side: [] for side in ROWS[name].sides} for name in chosen}
    for repeat in range(repeats):
        for name in chosen:
            for side, work in ROWS[name].sides.items():
                figures[name][side].append(work(repeat))
                print(f"{repeat + 1}/{repeats} {name}, {side}: {figures[name][side][-1]:.4g}", file=sys.stderr)
    return figures


def main() -> None:
    """Measure the rows asked for and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ROWS, action="append", metavar="ROW", help="this row; repeatable")
    parser.add_argument("--quick", action="store_true", help="leave out the slow rows, and measure once")
    parser.add_argument("--repeats", type=int, help="3, or 1 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every value here")
    arguments = parser.parse_args()
    chosen = arguments.only or [name for name, row in ROWS.items() if not (arguments.quick and row.is_slow)]
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"FERSWEEP_HOME": home, "FERSWEEP_CACHE": f"{home}/cache", "WANDB_DIR": home}
        figures = measure(chosen, arguments.repeats or (1 if arguments.quick else 3))
    processors = Path("/proc/cpuinfo")
    named = re.search("model name.*: (.*)", processors.read_text()) if processors.exists() else None
    print(
        f"\n{os.cpu_count()} cores of {named[1] if named else platform.machine()}, Python {platform.python_version()}\n"
    )
    print(table(ROWS, figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
