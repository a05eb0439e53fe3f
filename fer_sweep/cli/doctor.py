"""``fersweep doctor``: what is here, and what to do about what is not."""

from typing import Annotated

import typer

from fer_sweep.cli.printing import print_json, print_table


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False) -> None:
    """Show what is here (GPUs, processor, data, storage, W&B) and what to do about what is not.

    Example: fersweep doctor
    """
    from fer_sweep.agent.checkup import examine

    findings = examine()
    if as_json:
        print_json([{"topic": f.topic, "ok": f.ok, "found": f.found, "advice": f.advice} for f in findings])
        return
    columns = {"": "left", "topic": "left", "found": "left", "what to do": "left"}
    print_table("fersweep doctor", columns, [["ok" if f.ok else "--", f.topic, f.found, f.advice] for f in findings])
