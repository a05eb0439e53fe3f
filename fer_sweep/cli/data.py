"""Commands about data sets: prepare, list, audit, share, delete."""

from pathlib import Path
from typing import Annotated

import typer

from fer_sweep.cli.groups import Groups
from fer_sweep.cli.options import Json, datasets
from fer_sweep.cli.printing import note, print_json, print_prose, print_table, say

app = typer.Typer(
    cls=Groups, help="Prepare, list, audit, share and delete data sets.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="A prepared data set.", autocompletion=datasets)]


@app.command()
def prepare(
    # A Path would turn `./auto` into `auto`.
    path: Annotated[str, typer.Argument(help="Zip, folder, CSV or parquet files of FER2013; auto to search for it.")],
    name: Annotated[str | None, typer.Option(help="Name of the data set [default: fer2013].")] = None,
    ferplus: Annotated[Path | None, typer.Option(help="Use the FER+ labels in this file (fer2013new.csv).")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing data set of this name.")] = False,
    as_json: Json = False,
) -> None:
    """Read a data set, in any known layout, for training.

    auto searches the usual folders of Kaggle (/kaggle/input), Colab (/content, Drive) and kagglehub, the working
    directory and Downloads, and prints which one it uses. (For a folder of that name, write ./auto.)

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
        print_json(info)
    else:
        print_prose(f"{info.name}: {info.total:,} images from {info.source} ({info.layout})")
        for text in info.notes:
            print_prose(f"{'warning' if text in info.warnings else 'note'}: {text}")
        _print_counts(info.counts)
    say(f"next: fersweep data audit {info.name}")


def _print_counts(counts: dict[str, dict[str, int]]) -> None:
    """Print a table of the images by class and split."""
    by_class = [[name, *(f"{classes[name]:,}" for classes in counts.values())] for name in counts["train"]]
    totals = [f"{sum(classes.values()):,}" for classes in counts.values()]
    print_table("images by class and split", ("class", *counts), [*by_class, ["all", *totals]])


def _found() -> Path:
    from fer_sweep.data.discovery import discover

    found = discover()
    say(f"using {found.taken}")
    for other in found.others:
        say(f"also found: {other}")
    for reason in found.unusable:
        say(f"not usable: {reason}")
    return found.taken


@app.command(name="list")
def list_datasets(as_json: Json = False) -> None:
    """List the prepared data sets.

    Example: fersweep data list
    """
    from fer_sweep.data.cache import list_datasets as prepared
    from fer_sweep.files import cache_dir

    infos = prepared()
    if as_json:
        print_json(infos)
        return
    columns = ("name", "train", "val", "test", "split", "source")
    rows = []
    for info in infos:
        sizes = [f"{sum(info.counts.get(split, {}).values()):,}" for split in ("train", "val", "test")]
        split = "official" if info.official_split else "own"
        rows.append([info.name, *sizes, split, f"{info.source} ({info.layout})"])
    print_table(f"data sets in {cache_dir()}", columns, rows)
    say("`synthetic` is always available; it is generated when first used")
    if not any(info.name == "fer2013" for info in infos):
        say("next: fersweep data prepare PATH --name fer2013")


@app.command()
def audit(name: Name = "fer2013", as_json: Json = False) -> None:
    """Check a data set for copies, leaks, imbalance and bad labels.

    Example: fersweep data audit fer2013
    """
    from fer_sweep.data.audit import audit as audit_data
    from fer_sweep.data.cache import open_dataset

    report = audit_data(open_dataset(name))
    if as_json:
        print_json(report)
        return
    print_table(f"audit of {name}", ("", "figure"), report.lines())
    _print_counts(report.counts)
    for reason, command in report.next_steps():
        note(reason)
        say(f"next: {command}")
    if not report.next_steps():
        say(f"next: fersweep create simple_cnn --data {name}")


@app.command()
def share(name: Name = "fer2013") -> None:
    """Copy a data set into fersweep's home, for other hosts.

    Agents do this themselves if the sweep is in PostgreSQL or the home is on a network file system.

    Example: fersweep data share fer2013
    """
    from fer_sweep.sweeps.data import share_data

    if not share_data(name, say):
        say(f"data set {name} is already shared")


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Prepared data sets.", autocompletion=datasets)],
) -> None:
    """Delete prepared data sets, without asking.

    The files that they were prepared from stay. A note names the sweeps of this home that pin one.

    Example: fersweep data delete fer2013
    """
    from fer_sweep.data.cache import delete as delete_data
    from fer_sweep.sweeps.data import pinning

    names = list(dict.fromkeys(names))
    for name, info in zip(names, delete_data(names), strict=True):
        was = f"{info.total:,} images from {info.source}" if info else "its description was damaged"
        print_prose(f"deleted data set {name} ({was})")
        sweeps = pinning(name)
        if sweeps:
            again = f"fersweep data prepare {info.source if info else 'PATH'} --name {name}"
            word = "sweep" if len(sweeps) == 1 else "sweeps"
            note(f"{name} is pinned by {word} {', '.join(sweeps)}, whose trials need it; to prepare it again: {again}")
