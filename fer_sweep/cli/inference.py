"""Commands that use a trained model: test, predict and export."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fer_sweep.cli.options import OF_WINNER, Data, Device, Folder, Json, Threads, Trial, Winner, sweep_ids
from fer_sweep.cli.printing import console, log_warnings, note, print_json, print_prose, print_table, say
from fer_sweep.errors import InputError, printable
from fer_sweep.formatting import percent

if TYPE_CHECKING:
    from fer_sweep.inference.predict import Prediction
    from fer_sweep.inference.test_split import Report
    from fer_sweep.selection import Confirmed

_BAR = 40
"""Length in characters of the bar for probability 1."""


def test(
    sweep: Winner = None,
    trial: Trial = None,
    folder: Folder = None,
    tta: Annotated[
        Literal["none", "flip", "tencrop"],
        typer.Option(help="Average over the image alone, its mirror image too, or ten crops of 44x44."),
    ] = "none",
    data: Data = None,
    again: Annotated[
        bool, typer.Option("--again", help="Open the split although it was opened before; recorded.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Evaluate the chosen model on the test split, once.

    This is FER2013's PrivateTest. The result is recorded. Decide on --tta and confirm the choice first: a test split
    that is opened twice is a validation split.

    Example: fersweep test --tta flip
    """
    from fer_sweep.records import Averaging

    model = _chosen_model(sweep, trial, folder)
    from fer_sweep.inference.test_split import open_test_split

    log_warnings()
    if model.sweep is not None and model.confirmed is None:
        note(f"this choice is not confirmed; fersweep confirm {model.sweep} measures it with further seeds")
    report = open_test_split(
        model.folder,
        name=model.name,
        log_folder=model.sweep_folder,
        averaging=Averaging(tta),
        data=data,
        again=again,
        device=device,
        threads=threads,
        say=say,
    )
    if as_json:
        print_json(_report_json(report, model))
    else:
        _print_report(report, model)
        for step in model.next_steps:
            say(f"next: fersweep {step}")


def predict(
    images: Annotated[
        list[Path], typer.Argument(help="Pictures, or folders of them: JPEG, PNG, BMP, PPM, WebP, GIF or TIFF.")
    ],
    sweep: Annotated[str | None, typer.Option(help=OF_WINNER, autocompletion=sweep_ids)] = None,
    trial: Trial = None,
    folder: Folder = None,
    crop_face: Annotated[
        bool, typer.Option("--crop-face", help="Find the largest face (pip install 'fersweep[faces]').")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Print the probability of each expression for pictures.

    Each picture is turned upright and converted to grey, and its central square is scaled to 48x48. With --crop-face
    the largest face is used instead, cropped as tightly as in FER2013.

    Example: fersweep predict me.jpg --crop-face
    """
    model = _chosen_model(sweep, trial, folder)
    from fer_sweep.inference.predict import predict_images

    log_warnings()
    found = predict_images(model.folder, images, crop_face=crop_face, device=device, threads=threads, note=note)
    if as_json:
        places = ("left", "top", "side")
        shown = [
            vars(p) | {"expression": p.expression, "square": {place: getattr(p.square, place) for place in places}}
            for p in found
        ]
        print_json({"model": model.name, "images": shown})
        return
    say(f"model: {model.name}")
    for prediction in found:
        _draw(prediction)


def export(
    sweep: Winner = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write; it must not exist.")] = None,
    format: Annotated[
        Literal["safetensors", "onnx", "huggingface"],
        typer.Option(help="onnx needs `pip install 'fersweep[onnx]'`; huggingface is for vit only."),
    ] = "safetensors",
    trial: Trial = None,
    folder: Folder = None,
    data: Data = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write the chosen model for other programs.

    A README.md describes it. The export is loaded again and must give the trained model's logits on validation images;
    otherwise nothing is written. --data names another data set for this check.

    Example: fersweep export --format onnx -o faces
    """
    from fer_sweep.records import ExportFormat

    if output is None:
        raise InputError("--output is missing", hint="give a folder that does not exist: -o FOLDER")
    model = _chosen_model(sweep, trial, folder)
    from fer_sweep.inference.export import export_model

    log_warnings()
    name = model.name if folder is None else folder.resolve().name  # a card must not reveal paths of this machine
    done = export_model(model.folder, output, ExportFormat(format), name=name, data=data, threads=threads)
    if as_json:
        print_json({"model": model.name, **vars(done), "format": format})
        return
    print_prose(f"{model.name} as {format} in {done.folder}: {', '.join(done.files)}")
    print_prose(
        f"checked: its logits equal the trained model's on {done.checked_on:,} validation images "
        f"(largest difference {done.largest_difference:.1g}; tolerance {done.tolerance:.0e} of the largest logit)"
    )
    say(f"next: {done.folder / 'README.md'} shows how to use it")


@dataclass(frozen=True)
class _ChosenModel:
    """A trained model that a command was asked to use."""

    name: str
    """SWEEP/TRIAL, or its folder."""
    folder: Path
    """Holds the weights and config.json."""
    sweep_folder: Path
    """Of its sweep; its own folder if it has none."""
    sweep: str | None = None
    """The sweep that was searched; None for a folder and for a trial of a confirmation."""
    confirmed: "Confirmed | None" = None
    """The results of its further seeds so far."""
    next_steps: tuple[str, ...] = ()
    """Commands that lead on, once it is tested."""


def _chosen_model(sweep: str | None, trial: str | None, folder: Path | None) -> _ChosenModel:
    """Find the model: the winner or a trial of a sweep, or the one in a folder."""
    if folder is not None:
        if sweep is not None or trial is not None:
            raise InputError("--folder cannot be combined with a sweep or --trial", hint="give one or the other")
        if not folder.is_dir():
            raise InputError(f"--folder {folder}: no such folder", hint="give a trial's folder or an export")
        return _ChosenModel(str(folder.resolve()), folder, folder)
    # Only here: a model in a folder needs no sweep, and these imports take longer.
    from fer_sweep.sweeps import last_searched, open_sweep
    from fer_sweep.sweeps.choosing import chosen, confirmed, used

    with last_searched() if sweep is None else open_sweep(sweep) as opened:
        candidate = chosen(opened, trial)
        path = opened.trial_folder(candidate.record.trial_id)
        if not path.is_dir():
            raise InputError(
                f"the model of trial {candidate.name} is on the host that trained it",
                hint="run this command there, or copy the trial's folder and give it with --folder",
            )
        searched = opened.id if opened.entry.confirms is None else None
        return _ChosenModel(candidate.name, path, opened.folder, searched, confirmed(candidate), used(candidate))


_AVERAGED = {"none": "", "flip": ", averaged with the mirror images", "tencrop": ", averaged over ten crops each"}


def _report_json(report: "Report", model: _ChosenModel) -> dict[str, Any]:
    from fer_sweep.selection import wilson

    found = report.examination
    return {
        "model": model.name,
        "folder": model.folder,
        "data": report.opening.data,
        "is_private_test": report.is_official,
        "tta": found.averaging,
        "accuracy": found.accuracy,
        "interval": wilson(found.right, found.images),
        "images": found.images,
        "right": found.right,
        "clean": {"accuracy": found.clean_accuracy, "images": found.clean_images},
        "macro_f1": found.macro_f1,
        "per_class_recall": dict(zip(found.classes, found.per_class_recall, strict=True)),
        "confusion_matrix": found.confusion_matrix,
        "precision": found.precision,
        "val_acc": found.val_acc,
        "confirmed": model.confirmed.accuracy if model.confirmed else None,
        "opened": len(report.before) + 1,
        "before": report.before,
    }


def _print_report(report: "Report", model: _ChosenModel) -> None:
    from fer_sweep.openings import how_often
    from fer_sweep.selection import wilson

    found = report.examination
    rows = []
    for index, (label, row) in enumerate(zip(found.classes, found.confusion_matrix, strict=True)):
        if images := sum(row):
            low, high = wilson(row[index], images)
            ends = f"{100 * low:.1f} to {100 * high:.1f} %"
            rows.append([label, images, percent(found.per_class_recall[index]), ends])
        else:
            rows.append([label, 0, "", ""])
    split = "PrivateTest" if report.is_official else "the test split (not FER2013's PrivateTest)"
    print_prose(f"{model.name} on {split} of {report.opening.data}")
    print_table("recall by class", ("class", "images", "recall", "95 % interval"), rows)
    low, high = wilson(found.right, found.images)
    print_prose(
        f"accuracy {percent(found.accuracy)} ({100 * low:.2f} to {100 * high:.2f} %, Wilson 95 %) "
        f"on {found.images:,} images{_AVERAGED[found.averaging]}; macro F1 {found.macro_f1:.3f}"
    )
    if found.clean_images < found.images:
        accuracy = percent(found.clean_accuracy) or "no accuracy"
        print_prose(f"{accuracy} on the {found.clean_images:,} images with no copy in training")
    if found.val_acc is not None:
        print_prose(f"on the validation images, with the same averaging: {percent(found.val_acc)}")
    if model.confirmed is not None and model.confirmed.accuracy is not None:
        print_prose(f"further seeds, on the validation images: {model.confirmed.summary}")
    if not report.before:
        print_prose("opened for the first time; recorded in tests.jsonl")
        return
    print_prose(how_often(len(report.before) + 1))
    for earlier in report.before:
        print_prose(f"  before: {earlier.words}")


def _draw(prediction: "Prediction") -> None:
    """Print the probabilities, with bars on a terminal."""
    from rich.text import Text

    screen = console()
    several = (prediction.faces or 1) > 1
    others = f" (the largest of {prediction.faces} faces)" if several else ""
    title = printable(f"{prediction.image}: {prediction.expression}{others}")
    screen.print(Text(title, style="bold"), soft_wrap=True)
    for expression, share in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        line = Text(f"  {expression:<8} {100 * share:5.1f} %")
        if screen.is_terminal:
            style = "green" if expression == prediction.expression else "dim"
            line.append("  ").append("█" * round(_BAR * share) or "▏", style=style)
        screen.print(line, soft_wrap=True)
