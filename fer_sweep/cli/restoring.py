"""The command ``fersweep restore``."""

from pathlib import Path
from typing import Annotated

import typer

from fer_sweep.cli.printing import print_json, print_text, say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(restore)


def restore(
    folder: Annotated[Path, typer.Argument(help="The folder of `--mirror` on the former machine.", metavar="FOLDER")],
    force: Annotated[
        bool,
        typer.Option("--force", help="Also if this home has other or newer sweeps; they are set aside, not deleted."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Restore the sweeps that an agent on a former machine has mirrored to a drive.

    Trials that were running resume from their last mirrored checkpoint once an agent is started.

    Example: fersweep restore /content/drive/MyDrive/fersweep
    """
    import time

    from fer_sweep.files import home
    from fer_sweep.mirror.restoring import restore as restore_from

    done = restore_from(folder, force=force)
    if as_json:
        print_json(
            {
                "sweeps": list(done.sweeps),
                "trials": done.trials,
                "going_on": done.going_on,
                "copied": done.copied,
                "set_aside": str(done.set_aside) if done.set_aside else None,
            }
        )
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(done.copied)) if done.copied else "never completely"
        print_text(
            f"{home()}: sweep {', '.join(done.sweeps)}; {done.trials} trials, of which {done.going_on} resume "
            f"(mirrored {when})"
        )
        if done.set_aside:
            print_text(f"the former home is in {done.set_aside}")
    say(f"next: fersweep agent --mirror {folder}")
