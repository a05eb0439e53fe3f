"""The command that checks the installation: doctor."""

import typer

from fer_sweep.cli.options import Json
from fer_sweep.cli.printing import print_json, print_table


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)


def doctor(as_json: Json = False) -> None:
    """Check GPUs, processor, data, storage and W&B, and say what to do about what is missing.

    Example: fersweep doctor
    """
    from fer_sweep.agent.checkup import examine

    findings = examine()
    if as_json:
        print_json([{"topic": f.topic, "ok": f.ok, "found": f.found, "advice": f.advice} for f in findings])
        return
    columns = ("", "topic", "found", "what to do")
    print_table("fersweep doctor", columns, [["ok" if f.ok else "--", f.topic, f.found, f.advice] for f in findings])
