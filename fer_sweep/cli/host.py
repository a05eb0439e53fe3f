"""Commands about this host: restore, train one configuration, doctor."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli.options import Device, Json, Threads
from fer_sweep.cli.printing import print_json, print_prose, print_table, print_text, say
from fer_sweep.errors import FersweepError, InputError
from fer_sweep.formatting import percent, points

if TYPE_CHECKING:
    from fer_sweep.config.trial import TrialConfig


def restore(
    folder: Annotated[Path, typer.Argument(help="The folder of `--mirror` on the former machine.", metavar="FOLDER")],
    force: Annotated[
        bool,
        typer.Option("--force", help="Also if this home has other or newer sweeps; they are set aside, not deleted."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Restore the sweeps that a former machine has mirrored.

    Trials that were running resume from their last mirrored checkpoint once an agent is started.

    Example: fersweep restore /content/drive/MyDrive/fersweep
    """
    from fer_sweep.files import home
    from fer_sweep.mirror.restoring import restore as restore_from

    done = restore_from(folder, force=force)
    if as_json:
        print_json(done)
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(done.copied)) if done.copied else "never completely"
        print_prose(
            f"{home()}: sweep {', '.join(done.sweeps)}; {done.trials} trials, of which {done.unfinished} resume "
            f"(mirrored {when})"
        )
        if done.set_aside:
            print_text(f"the former home is in {done.set_aside}")
    say(f"next: fersweep agent --mirror {folder}")


class TrainCommand(typer.core.TyperCommand):
    """Adds the fields of TrialConfig to ``--help`` and to the completions of ``train``."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write a section with the fields of each architecture."""
        from fer_sweep.config.arguments import option_groups
        from fer_sweep.config.trial import ARCHITECTURES

        groups = list(option_groups())
        width = max(len(option) for *_, rows in groups for option, _ in rows)
        with formatter.section("Trial options, by the names of sweep files (_ and - are the same)"):
            formatter.write_dl([(f"--model {'|'.join(ARCHITECTURES)}", "the architecture")])
        for heading, about, rows in groups:
            with formatter.section(heading):
                if about:
                    formatter.write_text(about)
                formatter.write_dl([(option.ljust(width), meaning) for option, meaning in rows])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The command's own completions, then architectures or fields."""
        from fer_sweep.config.trial import ARCHITECTURES, known_names

        given = list(ctx.args)
        words: list[str] = []
        if given[-1:] == ["--model"]:
            words = list(ARCHITECTURES)
        elif incomplete.startswith("-"):
            model = given[given.index("--model") + 1] if "--model" in given else None
            words = [f"--{name}" for name in known_names(model)]
        kind = type(super().shell_complete(ctx, "--")[0])  # click's class, whose name in typer changes
        return super().shell_complete(ctx, incomplete) + [kind(word) for word in words if word.startswith(incomplete)]


def train(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="A trial's config.json; options override it.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the trial; one with a checkpoint is resumed from it.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    upload_model: Annotated[bool, typer.Option(help="Upload the best weights to W&B.")] = False,
    as_json: Json = False,
) -> None:
    """Train one configuration on this host.

    Ctrl-C writes a checkpoint and stops; the same command with --folder resumes. The stock wandb agent runs this too.

    Example: fersweep train --model resnet18 --data synthetic --epochs 2
    """
    trial = _trial_config(config, context.args)
    from fer_sweep.agent.by_hand import default_folder, train_by_hand
    from fer_sweep.files import WEIGHTS

    folder = folder or default_folder(trial)
    say(f"training {trial.model} in {folder}")
    outcome = train_by_hand(trial, folder, device=device, threads=threads, keep_model=upload_model, say=say)
    if outcome.state == "preempted":
        say(f"stopped with a checkpoint; next: fersweep train --config {folder / 'config.json'} --folder {folder}")
        raise typer.Exit(130)
    result = outcome.result
    if result is None:
        raise FersweepError(f"the trial failed: {outcome.reason}")
    if as_json:
        print_json(result)
        return
    print_prose(
        f"best_val_acc {percent(result.best_val_acc)} at epoch {result.best_epoch}, "
        f"gap {points(result.train_val_gap)} points, {result.verdict}, "
        f"{result.images_per_second:,.0f} images/s ({result.precision}), {result.parameters:,} parameters"
    )
    print_text(f"model: {folder / WEIGHTS}")


def _trial_config(file: Path | None, arguments: list[str]) -> "TrialConfig":
    from fer_sweep.config.arguments import parse_arguments
    from fer_sweep.config.trial import flatten, parse_trial
    from fer_sweep.files import read_json

    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = flatten(read_json(file))
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--config {file}: {reason}", hint="give a trial's config.json") from None
    return parse_trial({**values, **flatten(parse_arguments(arguments))})


def doctor(as_json: Json = False) -> None:
    """Check this host, its data and W&B, and say what is missing.

    Example: fersweep doctor
    """
    from fer_sweep.agent.checkup import examine

    findings = examine()
    if as_json:
        print_json(findings)
        return
    columns = ("", "topic", "found", "what to do")
    print_table("fersweep doctor", columns, [["ok" if f.ok else "--", f.topic, f.found, f.advice] for f in findings])
