"""The command that opens the test split: test."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.chosen_model import chosen_model
from fer_sweep.cli.printing import log_warnings, mean_json, percent, print_json, print_table, print_text, say
from fer_sweep.errors import InputError

if TYPE_CHECKING:
    from fer_sweep.inference.test_split import Report
    from fer_sweep.selection import Confirmed


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(test)


def test(
    sweep: Annotated[
        str | None,
        typer.Argument(
            help="The sweep whose winner to test; the last one searched if left out.",
            autocompletion=completing.sweep_ids,
        ),
    ] = None,
    trial: Annotated[str | None, typer.Option(help="This trial of it in the winner's place.")] = None,
    folder: Annotated[Path | None, typer.Option(help="The folder of a trial, in place of a sweep.")] = None,
    tta: Annotated[
        str,
        typer.Option(
            help="Average over: none, flip (the mirror image too), or tencrop (ten crops of 44x44).",
            autocompletion=completing.words("none", "flip", "tencrop"),
        ),
    ] = "none",
    data: Annotated[
        str | None,
        typer.Option(help="Data set whose test split to open [default: its own].", autocompletion=completing.datasets),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Open it although it was opened before; recorded.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, or a GPU's number or UUID.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all cores].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Evaluate the chosen model on PrivateTest, once, and write down that it was.

    Best decide on --tta, and confirm the choice, before: a split that was looked at twice is a validation split.

    Example: fersweep test --tta flip
    """
    from fer_sweep.records import Averaging

    if tta not in set(Averaging):
        raise InputError(f"--tta {tta}: not here", hint=f"one of {', '.join(Averaging)}")
    model = chosen_model(sweep, trial, folder)
    from fer_sweep.inference.test_split import open_test_split

    log_warnings()
    if model.sweep is not None and model.confirmed is None:
        say(f"note: this choice was not confirmed; fersweep confirm {model.sweep} shows what it owes to chance")
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
        print_json(_document(report, model.name, model.folder, model.confirmed))
    else:
        _print(report, model.name, model.confirmed)


_WAYS = {
    "none": "",
    "flip": ", averaged with their mirror images",
    "tencrop": ", averaged over ten crops of each",
}


def _document(report: "Report", name: str, folder: Path, confirmed: "Confirmed | None") -> dict[str, Any]:
    from dataclasses import asdict

    from fer_sweep.selection import wilson

    found, opening = report.examination, report.opening
    interval = wilson(found.right, found.images)
    return {
        "model": name,
        "folder": str(folder),
        "data": opening.data,
        "is_private_test": report.is_official,
        "tta": str(found.averaging),
        "accuracy": found.accuracy,
        "interval": [interval.low, interval.high],
        "images": found.images,
        "right": found.right,
        "clean": {"accuracy": found.clean_accuracy, "images": found.clean_images},
        "macro_f1": found.macro_f1,
        "per_class_recall": dict(zip(found.classes, found.per_class_recall, strict=True)),
        "confusion_matrix": found.confusion_matrix,
        "precision": found.precision,
        "val_acc": found.val_acc,
        "confirmed": mean_json(confirmed.accuracy) if confirmed else None,
        "opened": len(report.before) + 1,
        "before": [asdict(opening) for opening in report.before],
    }


def _print(report: "Report", name: str, confirmed: "Confirmed | None") -> None:
    from fer_sweep.openings import how_often
    from fer_sweep.selection import wilson

    found, opening = report.examination, report.opening
    rows = []
    for index, (label, recall, row) in enumerate(
        zip(found.classes, found.per_class_recall, found.confusion_matrix, strict=True)
    ):
        interval = wilson(row[index], sum(row)) if sum(row) else None
        ends = f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %" if interval else ""
        rows.append([label, sum(row), percent(recall) if sum(row) else "", ends])
    split = "PrivateTest" if report.is_official else "the test split (not FER2013's PrivateTest)"
    print_text(f"{name} on {split} of {opening.data}")
    print_table("recall by class", {"class": "left", "images": "right", "recall": "right", "95 %": "right"}, rows)
    whole = wilson(found.right, found.images)
    print_text(
        f"accuracy {percent(found.accuracy)} ({100 * whole.low:.2f} to {100 * whole.high:.2f} %, Wilson 95 %) "
        f"on {found.images:,} images{_WAYS[found.averaging]}; macro F1 {found.macro_f1:.3f}"
    )
    if found.clean_images < found.images:
        print_text(
            f"{percent(found.clean_accuracy) or 'none left'} on the {found.clean_images:,} of them with no copy among "
            "the training images"
        )
    if found.val_acc is not None:
        print_text(f"on the validation images, the same way: {percent(found.val_acc)}")
    if confirmed is not None and confirmed.accuracy is not None:
        print_text(f"further seeds, on the validation images: {confirmed.summary}")
    if not report.before:
        print_text("opened for the first time; recorded in tests.jsonl")
        return
    print_text(how_often(len(report.before) + 1))
    for earlier in report.before:
        print_text(f"  before: {earlier.words}")
