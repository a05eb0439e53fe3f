"""The command that trains a single configuration: train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli.options import Device, Json, Threads
from fer_sweep.cli.printing import print_json, print_text, say
from fer_sweep.errors import FersweepError, InputError
from fer_sweep.formatting import percent, points

if TYPE_CHECKING:
    from fer_sweep.config.trial import TrialConfig
    from fer_sweep.records import TrialOutcome


_LARGEST_CONFIG = 2**20
"""Bytes; a trial's config.json has some 600."""


class _WithFields(typer.core.TyperCommand):
    """Adds the fields of TrialConfig to ``--help`` and to the completions."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from fer_sweep.config.arguments import option_lines

        with formatter.section("Trial options (any field of the architecture's configuration)"):
            formatter.write_dl([("--model", "simple_cnn, deeper_cnn, resnet18 or vit"), *option_lines()])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        from fer_sweep.config.trial import ARCHITECTURES, known_names

        given = list(ctx.args)
        if given[-1:] == ["--model"]:
            words = list(ARCHITECTURES)
        elif incomplete.startswith("-"):
            model = given[given.index("--model") + 1] if "--model" in given else None
            words = [f"--{name}" for name in known_names(model)]
        else:
            words = []
        own = super().shell_complete(ctx, "--")
        kind = type(own[0])  # typer has click's class of a completion under a name that changes
        return super().shell_complete(ctx, incomplete) + [kind(word) for word in words if word.startswith(incomplete)]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=_WithFields, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)


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

    Example: fersweep train --model resnet18 --lr 0.05 --data synthetic --epochs 2
    """
    trial = _trial_config(config, context.args)
    from fer_sweep.agent.by_hand import default_folder, train_by_hand

    folder = folder or default_folder(trial)
    say(f"training {trial.model} in {folder}")
    outcome = train_by_hand(trial, folder, device=device, threads=threads, keep_model=upload_model, say=say)
    _report(outcome, folder, as_json=as_json)


def _trial_config(file: Path | None, arguments: list[str]) -> "TrialConfig":
    from fer_sweep.config.arguments import parse_arguments
    from fer_sweep.config.trial import flatten, parse_trial
    from fer_sweep.files import parse_object

    values: dict[str, Any] = {}
    if file is not None:
        try:
            if not file.is_file() or file.stat().st_size > _LARGEST_CONFIG:
                raise ValueError("not a file of at most 1 MB")
            values = flatten(parse_object(file.read_bytes()))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"--config {file}: {error}", hint="give a trial's config.json") from None
    return parse_trial({**values, **flatten(parse_arguments(arguments))})


def _report(outcome: "TrialOutcome", folder: Path, *, as_json: bool) -> None:
    from fer_sweep.records import TrialState

    if outcome.state is TrialState.PREEMPTED:
        say(f"stopped with a checkpoint; next: fersweep train --config {folder / 'config.json'} --folder {folder}")
        raise typer.Exit(130)
    if outcome.result is None:
        raise FersweepError(f"the trial failed: {outcome.reason}")
    if as_json:
        print_json(outcome.result.model_dump(mode="json"))
        return
    result = outcome.result
    print_text(
        f"best_val_acc {percent(result.best_val_acc)} at epoch {result.best_epoch}, "
        f"gap {points(result.train_val_gap)} points, {result.verdict}, "
        f"{result.images_per_second:,.0f} images/s ({result.precision}), {result.parameters:,} parameters"
    )
    print_text(f"model: {folder / 'best.safetensors'}")
