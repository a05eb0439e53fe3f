"""The command that shows sweeps to people: report."""

from typing import Annotated

import typer

from fer_sweep.cli.printing import log_warnings, print_json, print_text, say
from fer_sweep.errors import InputError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(report)


def report(
    sweep: Annotated[list[str] | None, typer.Argument(help="Sweeps to show; the last one if left out.")] = None,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Save a report and a workspace on the W&B server you are logged in to.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Make new ones; else those saved before are brought up to date.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show sweeps, side by side if there are several: parameters, accuracy, train-val gap.

    With --wandb as a report and a workspace in the project of the first sweep. The same command brings both up to
    date; what was changed on them by hand is then replaced.

    Example: fersweep report --wandb
    """
    if not wandb:
        raise InputError("the HTML report is not here yet", hint="give --wandb")
    from fer_sweep.reports.wandb_views import load_library, save_views
    from fer_sweep.search.registry import find

    log_warnings()
    load_library()  # before anything is asked of a server
    found = [find(name) for name in sweep] if sweep else [find(None)]
    entries = list({entry.id: entry for entry in found}.values())
    views = save_views(entries, new=new, say=say)
    if as_json:
        sweeps = [{"sweep": entry.id, "url": shown.url} for entry, shown in zip(entries, views.sweeps, strict=True)]
        print_json({"report": views.report, "workspace": views.workspace, "sweeps": sweeps})
    else:
        print_text(f"report: {views.report}")
        print_text(f"workspace: {views.workspace}")
    say("next: open them; after more trials the same command brings them up to date")
