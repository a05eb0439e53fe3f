"""The commands of ``fersweep --help`` by what they are for."""

from typing import Any

import typer

GROUPS = {
    "Start": "init validate create run doctor",
    "Search": "agent pause resume stop cancel retry drain edit enqueue extend",
    "Choose": "best compare confirm test",
    "Look": "list status logs report dashboard sync rename delete",
    "Use": "predict export train restore",
    "Data": "data",
}
"""The commands of each section, in its order."""


class Groups(typer.core.TyperGroup):
    """A group of commands whose help has sections, each command on one line with its whole summary."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections, or one for the commands of a group within another."""
        sections = GROUPS if ctx.parent is None else {"Commands": " ".join(self.commands)}
        width = max(map(len, self.commands))
        formatter.write_paragraph()
        for heading, names in sections.items():
            formatter.write_heading(heading)
            with formatter.indentation():
                formatter.write_dl(
                    [(name.ljust(width), (self.commands[name].help or "").partition("\n")[0]) for name in names.split()]
                )
