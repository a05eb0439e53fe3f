"""Commands about data sets: prepare, list, audit, share."""

from pathlib import Path
from typing import Annotated

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.printing import print_json, print_table, print_text, say

app = typer.Typer(help="Prepare, list, audit and share data sets.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def prepare(
    # Not a Path, which would make `auto` of `./auto`.
    path: Annotated[
        str, typer.Argument(help="A zip, a folder, a CSV or parquet files of FER2013; auto to look for it.")
    ],
    name: Annotated[str | None, typer.Option(help="Name to train with [default: fer2013].")] = None,
    ferplus: Annotated[Path | None, typer.Option(help="FER+ labels (fer2013new.csv) to use instead.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a data set of this name.")] = False,
    as_json: Json = False,
) -> None:
    """Read a data set in any of its layouts into a cache that training maps into memory.

    auto looks in the usual folders of Kaggle (/kaggle/input), Colab (/content, Drive), kagglehub, the working folder
    and Downloads, and says which it took. (A folder of that name is ./auto.)

    Example: fersweep data prepare Downloads/archive.zip
    """
    from rich.console import Console
    from rich.progress import Progress

    from fer_sweep.data.cache import prepare as prepare_data

    source = _found() if path == "auto" else Path(path)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        info = prepare_data(source, name, ferplus=ferplus, progress=show, replace=replace)
    if as_json:
        print_json(info.model_dump(mode="json"))
    else:
        print_text(f"{info.name}: {info.total:,} images from {info.source} ({info.layout})")
        for note in info.notes:
            print_text(f"  note: {note}")
    say(f"next: fersweep data audit {info.name}")


def _found() -> Path:
    from fer_sweep.data.discovery import discover

    found = discover()
    say(f"taken: {found.taken.path}")
    for other in found.others:
        say(f"also there: {other.path}")
    for reason in found.unusable:
        say(f"not usable: {reason}")
    return found.taken.path


@app.command(name="list")
def list_datasets(as_json: Json = False) -> None:
    """List the data sets that are prepared.

    Example: fersweep data list
    """
    from fer_sweep.data.cache import list_datasets as prepared
    from fer_sweep.files import cache_dir

    infos = prepared()
    if as_json:
        print_json([info.model_dump(mode="json") for info in infos])
        return
    columns = {"name": "left", "train": "right", "val": "right", "test": "right", "split": "left", "source": "left"}
    rows = [
        [
            info.name,
            *(f"{sum(info.counts.get(split, {}).values()):,}" for split in ("train", "val", "test")),
            "official" if info.official_split else "own",
            f"{info.source} ({info.layout})",
        ]
        for info in infos
    ]
    print_table(f"data sets in {cache_dir()}", columns, rows)
    say("`synthetic` is always there, drawn when first used")
    if not any(info.name == "fer2013" for info in infos):
        say("next: fersweep data prepare PATH --name fer2013")


@app.command()
def audit(
    name: Annotated[str, typer.Argument(help="A prepared data set.", autocompletion=completing.datasets)] = "fer2013",
    as_json: Json = False,
) -> None:
    """Count what is wrong with a data set: imbalance, blanks, copies, leaks between splits, conflicting labels.

    Example: fersweep data audit fer2013
    """
    from fer_sweep.data.audit import audit as audit_data
    from fer_sweep.data.cache import open_dataset

    report = audit_data(open_dataset(name))
    if as_json:
        print_json(report.to_plain())
        return
    print_table(f"audit of {name}", {"": "left", "figure": "left"}, report.lines())


@app.command()
def share(
    name: Annotated[str, typer.Argument(help="A prepared data set.", autocompletion=completing.datasets)] = "fer2013",
) -> None:
    """Copy a data set into fersweep's home, where agents on hosts that share it take it from.

    Agents of a sweep in PostgreSQL, or in a home on a network file system, do this by themselves.

    Example: fersweep data share fer2013
    """
    from fer_sweep.sweeps.data import share_data

    if not share_data(name, say):
        say(f"data set {name} is shared already")
