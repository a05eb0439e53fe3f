"""The commands that repeat what a report shows: complete, to be pasted into a shell in an empty folder. Pure."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from fer_sweep.reports.sources import Report


@dataclass(frozen=True)
class Step:
    """What to do, and how."""

    what: str
    command: str
    file_name: str = ""
    """Of a file that the command needs, which it writes first."""
    file: str = ""

    @property
    def script(self) -> str:
        """The command, after one that writes its file."""
        if not self.file:
            return self.command
        end = "END"
        while end in self.file.splitlines():
            end += "_"
        name = shlex.quote(self.file_name)
        return f"cat > {name} <<'{end}'\n{self.file.rstrip(chr(10))}\n{end}\n{self.command}"


def steps(report: Report, sources: Mapping[str, str]) -> list[Step]:
    """The steps, in their order.

    Args:
        report: What to repeat.
        sources: What each data set was prepared from, by its name; empty where that is unknown.
    """
    found = [
        Step(
            f"Prepare the data set {name}; its fingerprint must match the one under Environment.",
            f"fersweep data prepare {shlex.quote(source or 'auto')} --name {shlex.quote(name)}",
        )
        for name, source in sources.items()
    ]
    several = len(report.sweeps) > 1
    variables = [f"sweep{place}" if several else "sweep" for place in range(1, len(report.sweeps) + 1)]
    for sweep, variable in zip(report.sweeps, variables, strict=True):
        what = f"Create the sweep {report.names[sweep.id]} and train it."
        command = f"{variable}=$({sweep.create})\nfersweep agent $" + variable
        found.append(Step(what, command, sweep.file_name, sweep.file))
    ids = " ".join(f"${variable}" for variable in variables)
    found.append(Step("Show the winner, and make this report again.", f"fersweep best {ids}\nfersweep report {ids}"))
    if report.selection.winner is not None:
        config = json.dumps(dict(report.selection.winner.record.config), indent=2)
        what = "Or train only the winner, from its configuration and seed."
        found.append(Step(what, "fersweep train --config winner.json", "winner.json", config))
    return found
