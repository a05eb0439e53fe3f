"""Commands that use a trained model: export and predict."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.chosen_model import chosen_model
from fer_sweep.cli.printing import log_warnings, print_json, print_text, say
from fer_sweep.errors import InputError, printable

if TYPE_CHECKING:
    from fer_sweep.inference.predict import Prediction

_BAR = 40
"""Characters of a bar that means certainty."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(export)
    app.command()(predict)


def export(
    sweep: Annotated[
        str | None,
        typer.Argument(
            help="The sweep whose winner to export; the last one searched if left out.",
            autocompletion=completing.sweep_ids,
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write; it must not exist.")] = None,
    format: Annotated[
        str,
        typer.Option(
            help="safetensors, onnx (pip install 'fersweep[onnx]'), or huggingface (vit only).",
            autocompletion=completing.words("safetensors", "onnx", "huggingface"),
        ),
    ] = "safetensors",
    trial: Annotated[str | None, typer.Option(help="This trial of it in the winner's place.")] = None,
    folder: Annotated[Path | None, typer.Option(help="The folder of a trial, in place of a sweep.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set on whose validation images to check it [default: its own].",
            autocompletion=completing.datasets,
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all cores].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write the chosen model for others to use, with a README.md that says what it is.

    Before the folder takes its place, what is in it is loaded again, and must give the trained model's logits on
    validation images.

    Example: fersweep export --format onnx -o faces
    """
    from fer_sweep.records import ExportFormat

    if format not in set(ExportFormat):
        raise InputError(f"--format {format}: not here", hint=f"one of {', '.join(ExportFormat)}")
    if output is None:
        raise InputError("where to is missing", hint="give a folder that does not exist: -o FOLDER")
    model = chosen_model(sweep, trial, folder)
    from fer_sweep.inference.export import export_model

    log_warnings()
    name = model.name if folder is None else folder.resolve().name  # paths of this machine are nobody else's business
    done = export_model(model.folder, output, ExportFormat(format), name=name, data=data, threads=threads)
    if as_json:
        print_json(
            {
                "model": model.name,
                "folder": str(done.folder),
                "format": format,
                "files": done.files,
                "checked_on": done.checked_on,
                "largest_difference": done.largest_difference,
                "tolerance": done.tolerance,
            }
        )
        return
    print_text(f"{model.name} as {format} in {done.folder}: {', '.join(done.files)}")
    print_text(
        f"checked: on {done.checked_on:,} validation images its logits are the trained model's "
        f"(the largest difference is {done.largest_difference:.1g}; {done.tolerance:.0e} of the largest is allowed)"
    )
    say(f"next: how to use it is in {done.folder / 'README.md'}")


def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures: JPEG, PNG, BMP, PPM or WebP.")],
    sweep: Annotated[
        str | None,
        typer.Option(
            help="The sweep whose winner to ask [default: the last one searched].", autocompletion=completing.sweep_ids
        ),
    ] = None,
    trial: Annotated[str | None, typer.Option(help="This trial of it in the winner's place.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="The folder of a trial or of an export to safetensors, in place of a sweep.")
    ] = None,
    crop_face: Annotated[
        bool, typer.Option("--crop-face", help="Find the largest face (pip install 'fersweep[faces]').")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, or a GPU's number or UUID.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all cores].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show pictures to the chosen model and print the probabilities of the seven expressions.

    A picture is turned upright, made grey, and the square in its middle shown to the model at 48x48; --crop-face takes
    the largest face in its place, as tightly as FER2013 does.

    Example: fersweep predict me.jpg --crop-face
    """
    model = chosen_model(sweep, trial, folder)
    from fer_sweep.inference.predict import predict_images

    log_warnings()
    found = predict_images(model.folder, images, crop_face=crop_face, device=device, threads=threads)
    if as_json:
        print_json({"model": model.name, "images": [_document(prediction) for prediction in found]})
        return
    say(f"model: {model.name}")
    _draw(found)


def _document(prediction: "Prediction") -> dict[str, Any]:
    square = prediction.square
    return {
        "image": str(prediction.image),
        "expression": prediction.expression,
        "probabilities": dict(prediction.probabilities),
        "square": {"left": square.left, "top": square.top, "side": square.side},
        "faces": prediction.faces,
    }


def _draw(predictions: "Sequence[Prediction]") -> None:
    """Bars on a terminal, and the same lines without them where they are read by a program."""
    from rich.text import Text

    from fer_sweep.cli.console import PatientConsole

    console = PatientConsole()
    for prediction in predictions:
        others = "" if (prediction.faces or 1) == 1 else f" (the largest of {prediction.faces} faces)"
        title = f"{prediction.image}: {prediction.expression}{others}"
        if not console.is_terminal:
            print_text(title)
        else:
            console.print(Text(printable(title), style="bold"))
        by_share = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
        for expression, share in by_share:
            line = f"  {expression:<8} {100 * share:5.1f} %"
            if not console.is_terminal:
                print_text(line)
                continue
            style = "green" if expression == prediction.expression else "dim"
            console.print(Text(f"{line}  ").append("█" * round(_BAR * share) or "▏", style=style))
