"""The commands of ``fersweep --help`` by what they are for."""

from typing import Any

import typer

GROUPS = {
    "Start": "init validate create run doctor",
    "Search": "agent pause resume stop cancel retry drain edit enqueue extend",
    "Choose": "best compare confirm test",
    "Look": "list status logs report dashboard sync rename delete",
    "Use": "predict export train restore",
    "Data": "data/prepare data/list data/audit data/share data/delete",
}
"""The commands of each section, in its order; one that is missing here is listed in a section at the end."""


class Groups(typer.core.TyperGroup):
    """A group of commands whose help has sections, and summaries that are not cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections, or one for the commands of a group within another."""
        found = {name: command for name, command in self.commands.items() if not command.hidden}
        sections = {"Commands": list(found)}
        if ctx.parent is None:
            for name, group in self.commands.items():
                if isinstance(group, typer.core.TyperGroup):
                    del found[name]
                    found |= {f"{name}/{command}": inner for command, inner in group.commands.items()}
            sections = {heading: [n for n in names.split() if n in found] for heading, names in GROUPS.items()}
            sections["Other"] = [name for name in found if name not in " ".join(GROUPS.values()).split()]
        width = max(map(len, found))
        for heading, names in sections.items():
            rows = [(name.replace("/", " ").ljust(width), _summary(found[name].help or "")) for name in names]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def _summary(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
