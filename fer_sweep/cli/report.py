"""Commands that show sweeps: report, compare and dashboard."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from fer_sweep.cli.options import Json, SweepId, SweepIds
from fer_sweep.cli.printing import (
    candidate_json,
    log_warnings,
    note,
    print_json,
    print_prose,
    print_table,
    print_text,
    say,
)
from fer_sweep.errors import FersweepError, InputError, NothingToDo

if TYPE_CHECKING:
    from fer_sweep.reports.comparing import Pair
    from fer_sweep.reports.faces import Face
    from fer_sweep.reports.sources import Report

Format = Literal["html", "md", "csv", "parquet", "json"]
_FORMATS: dict[str, Format] = {**{f".{name}": name for name in get_args(Format)}, ".htm": "html"}


def report(
    sweep: SweepIds = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write, or - for stdout [default: report-SWEEP.html or .parquet, stdout for other formats].",
        ),
    ] = None,
    format: Annotated[Format | None, typer.Option(help="[default: by the suffix of --output, or html]")] = None,
    faces: Annotated[
        bool,
        typer.Option(
            "--faces/--no-faces",
            help="Embed the validation images that the winner gets most wrong; the data set's licence may forbid "
            "sharing them.",
        ),
    ] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Save a report and a workspace on the W&B server instead of a file.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="With --wandb: create new ones instead of updating those saved before.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as a JSON document on stdout.")
    ] = False,
) -> None:
    """Report on sweeps: winner, certainty, parameters, curves.

    Several sweeps stand side by side. HTML is one file that needs no network; csv, parquet and json have one row per
    trial; md is short. With --wandb, the same command updates the report and the workspace, and replaces changes made
    by hand.

    Example: fersweep report -o report.html
    """
    if wandb:
        for option, given in {"--output": output, "--format": format, "--faces": faces}.items():
            if given:
                raise InputError(f"{option} cannot be combined with --wandb", hint="remove one of them")
        _save_views(sweep, new=new, as_json=as_json)
        return
    if new:
        raise InputError("--new needs --wandb", hint="add --wandb, or remove --new: a file is always replaced")
    if output is not None and output.is_dir():
        raise InputError(f"--output {output} is a folder", hint=f"give a file, such as {output / 'report.html'}")
    format = format or _FORMATS.get(output.suffix.lower() if output else ".html")
    if format is None:
        raise InputError(f"--output {output}: unknown suffix", hint=f"add --format {'|'.join(get_args(Format))}")
    if faces and format != "html":
        raise InputError("--faces needs the HTML report", hint="remove --faces, or use --format html")
    to_stdout = str(output) == "-" or (output is None and format not in ("html", "parquet"))
    if as_json and to_stdout:
        raise InputError("--json and the report cannot both go to stdout", hint="add -o FILE")
    if format == "parquet" and to_stdout:
        raise InputError("parquet cannot go to stdout", hint="add -o FILE.parquet")
    gathered = _gathered(sweep)
    if to_stdout:
        # As bytes, so that the line ends of a format stay as they are.
        sys.stdout.buffer.write(_text(gathered, format, faces=faces).encode())
        sys.stdout.flush()
    else:
        _write(gathered, output, format, faces=faces, as_json=as_json)


def compare(
    first: Annotated[str, typer.Argument(help="SWEEP/TRIAL, or a trial of the last sweep.", metavar="A")],
    second: Annotated[str, typer.Argument(help="Likewise.", metavar="B")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file to write, with the learning curves of both.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put two trials side by side: what differs beyond noise.

    Example: fersweep compare 0 1
    """
    from fer_sweep.reports.comparing import Pair
    from fer_sweep.reports.sources import gather
    from fer_sweep.sweeps import open_sweeps
    from fer_sweep.sweeps.choosing import chosen, confirmed, next_steps

    log_warnings()
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {output}: not an HTML file", hint=f"give one, such as -o {output.stem}.html")
    references = [_trial_named(text) for text in (first, second)]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_sweeps(names)) for names, _ in references]
        sweeps = [sweep for (sweep,) in opened]
        one, other = (chosen(sweep, trial) for sweep, (_, trial) in zip(sweeps, references, strict=True))
        if one.name == other.name:
            raise InputError(
                f"{first} and {second} are the same trial", hint=f"fersweep status {one.sweep} lists others"
            )
        seeds = tuple(found for candidate in (one, other) if (found := confirmed(candidate)) is not None)
        pair = Pair(one, other, seeds)
        names = [one.name, other.name]
        if output is not None:
            from fer_sweep.files import write_atomically
            from fer_sweep.reports.html import render
            from fer_sweep.worker.slots import described

            shown = gather([*{sweep.id: sweep for sweep in sweeps}.values()], only=names)
            write_atomically(output, render(shown, described(), pair=pair))
    if as_json:
        differences = {d.metric: {**vars(d), "beyond_noise": d.is_beyond_noise} for d in pair.differences}
        both = {"first": candidate_json(one), "second": candidate_json(other), "configuration": pair.configuration}
        print_json({**both, "differences": differences, "meaning": pair.words(names), "file": output})
        return
    _print_pair(pair, names)
    if output is not None:
        print_text(f"report: {output}")
    better = max(one, other, key=lambda candidate: candidate.result.best_val_acc)
    for step in next_steps(better, next((found for found in seeds if found.name == better.name), None)):
        say(f"next: fersweep {step}")


def _trial_named(text: str) -> tuple[list[str] | None, str]:
    sweep, _, trial = text.rpartition("/")
    if not trial:
        raise InputError(f"{text!r} names no trial", hint="write SWEEP/TRIAL, as fersweep best does")
    return [sweep] if sweep else None, trial


def _print_pair(pair: "Pair", names: list[str]) -> None:
    rows = pair.configuration_rows()
    if rows:
        print_table("configuration: what differs", ("parameter", *names), rows)
    else:
        print_text("configuration: the same")
    print_table("results", ("", *names), pair.result_rows())
    for line in (*pair.verdicts(names), *pair.words(names)):
        print_prose(line)


def dashboard(
    sweep: SweepId = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than the default admits others, without a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 selects a free one.")] = 8080,
) -> None:
    """Watch a sweep in optuna-dashboard, in a browser.

    It shows a read-only copy that follows the sweep. Ctrl-C ends it.

    Example: fersweep dashboard --port 8081
    """
    from fer_sweep.reports.dashboard import is_loopback, serve
    from fer_sweep.sweeps import open_sweep

    log_warnings()
    if not is_loopback(host):
        say(f"warning: listening on {host}: others can see the sweep there, without a password")
    with open_sweep(sweep) as opened:
        serve(opened, host=host, port=port, on_ready=lambda address: print_text(f"dashboard: {address}"))


def _gathered(names: list[str] | None) -> "Report":
    from fer_sweep.reports.sources import gather
    from fer_sweep.sweeps import open_sweeps

    log_warnings()
    with open_sweeps(names) as opened:
        gathered = gather(opened)
        if not gathered.trials:
            ids = [sweep.id for sweep in opened]
            raise NothingToDo(f"no trials yet: {', '.join(ids)}", hint=f"train some: fersweep agent {ids[-1]}")
    return gathered


def _write(gathered: "Report", output: Path | None, format: Format, *, faces: bool, as_json: bool) -> None:
    from fer_sweep.files import write_atomically
    from fer_sweep.reports.tables import write_parquet

    sweeps = [sweep.id for sweep in gathered.sweeps]
    output = output or Path(f"report-{sweeps[0]}.{format}")
    if format == "parquet":
        write_parquet(gathered, output)
    else:
        write_atomically(output, _text(gathered, format, faces=faces))
    if as_json:
        size, trials = output.stat().st_size, len(gathered.trials)
        print_json({"file": output, "format": format, "bytes": size, "sweeps": sweeps, "trials": trials})
    else:
        print_text(f"report: {output}")
    if format == "html":
        say("next: open it in a browser; it needs no network")


def _text(gathered: "Report", format: Format, *, faces: bool) -> str:
    from fer_sweep.reports import tables

    texts = {"md": tables.markdown, "csv": tables.csv_text, "json": tables.json_text}
    if format in texts:
        return texts[format](gathered)
    from fer_sweep.reports.html import render
    from fer_sweep.worker.slots import described

    found, why_none = _faces(gathered) if faces else ([], "")
    return render(gathered, described(), found, why_none)


def _faces(gathered: "Report") -> tuple[list["Face"], str]:
    """The faces that the winner gets most wrong, or why there are none."""
    from fer_sweep.reports.faces import worst_faces

    winner = gathered.selection.winner
    if winner is None:
        return [], "There is no winner."
    try:
        found = worst_faces(winner)
    except FersweepError as error:
        note(f"no faces in the report: {error}" + (f" ({error.hint})" if error.hint else ""))
        return [], f"Not available: {error}."
    if found:
        note("the report contains images of the data set; check its licence before you share it")
    return found, "" if found else "The winner gets none wrong."


def _save_views(names: list[str] | None, *, new: bool, as_json: bool) -> None:
    from fer_sweep.reports.wandb_views import load_library, save_views
    from fer_sweep.sweeps import open_sweeps

    log_warnings()
    load_library()  # before any request to the server
    with open_sweeps(names) as opened:
        views = save_views(opened, new=new, say=say)
    if as_json:
        sweeps = [{"sweep": sweep.id, "url": shown.url} for sweep, shown in zip(opened, views.sweeps, strict=True)]
        print_json({"report": views.report, "workspace": views.workspace, "sweeps": sweeps})
    else:
        print_text(f"report: {views.report}")
        print_text(f"workspace: {views.workspace}")
    say("next: open them; after more trials the same command updates them")
