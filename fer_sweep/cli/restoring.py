"""The command that takes a mirror up: restore."""

from pathlib import Path
from typing import Annotated

import typer

from fer_sweep.cli.printing import print_json, print_text, say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(restore)


def restore(
    folder: Annotated[Path, typer.Argument(help="What `--mirror` was given on the last machine.", metavar="FOLDER")],
    force: Annotated[
        bool, typer.Option("--force", help="Also over other or newer sweeps here; they are set aside, not deleted.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Take up the sweeps that an agent mirrored to a drive, on the machine that follows the one it ran on.

    Trials that were running go on from their last mirrored checkpoint as soon as an agent is started.

    Example: fersweep restore /content/drive/MyDrive/fersweep
    """
    import time

    from fer_sweep.files import home
    from fer_sweep.mirror.restoring import restore as take_up

    done = take_up(folder, force=force)
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
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(done.copied)) if done.copied else "never whole"
        print_text(
            f"{home()}: sweep {', '.join(done.sweeps)}; {done.trials} trials, {done.going_on} of them go on "
            f"(mirrored {when})"
        )
        if done.set_aside:
            print_text(f"what was here before is in {done.set_aside}")
    say(f"next: fersweep agent --mirror {folder}")
