"""``fersweep report`` into files and on stdout, and ``fersweep dashboard``."""

import csv
import html
import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fer_sweep.reports import dashboard
from tests.reports.test_sources import Complete, made
from tests.support.faces import Faces, write_zip
from tests.support.shell import Shell


@pytest.fixture
def sweep(tmp_path: Path, complete: Complete) -> str:
    """The id of a sweep with three trials, whose models are elsewhere."""
    return made(tmp_path, [complete(best_val_acc=accuracy) for accuracy in (0.5, 0.6, 0.7)]).id


def test_every_format(shell: Shell, sweep: str) -> None:
    document = shell.json("report", "-o", "r.html")
    size = Path("r.html").stat().st_size
    assert document == {"file": "r.html", "format": "html", "bytes": size, "sweeps": [sweep], "trials": 3}
    code, out, err = shell("report")
    assert (code, out) == (0, f"report: report-{sweep}.html\n")
    assert "faces" not in err and "<img" not in Path(f"report-{sweep}.html").read_text(), "only if asked for"
    code, _, err = shell("report", "--faces", "-o", "r.html")
    assert code == 0 and "note: no faces in the report: model not found" in err
    assert "Not available" in Path("r.html").read_text()
    code, out, _ = shell("report", "--format", "csv")
    read = list(csv.DictReader(io.StringIO(out, newline="")))
    assert code == 0 and [row["state"] for row in read] == ["complete"] * 3
    code, out, _ = shell("report", "--format", "json", "-o", "-")
    assert code == 0 and [float(row["param.lr"]) for row in read] == [r["parameters"]["lr"] for r in json.loads(out)]
    code, out, _ = shell("report", "--format", "md", sweep)
    assert code == 0 and f", trial 2 of sweep {sweep}" in out.partition("## Winner")[2]
    assert f"fersweep create sweep-{sweep}.yaml" in out and "| class | recall | images |" in out
    assert shell("report", "-o", "t.parquet")[0] == 0
    assert Path("t.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-o report.pdf", "unknown suffix"),
        ("-o .fersweep --format md", "a folder"),
        ("-o - --format parquet", "parquet cannot go to stdout"),
        ("--format csv --json", "cannot both go to stdout"),
        ("--format csv --faces", "--faces needs the HTML report"),
        ("--wandb -o r.html", "--output cannot be combined with --wandb"),
        ("--new", "--new needs --wandb"),
        ("", "no trials yet"),
    ],
)
def test_what_cannot_be_written(shell: Shell, tmp_path: Path, complete: Complete, options: str, message: str) -> None:
    made(tmp_path, [complete()] if options else [])
    code, out, err = shell("report", *options.split())
    assert (code, out) == (2 if options else 3, "")
    assert message in err and "hint: " in err


def test_another_address_is_said_aloud(shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[str, str]] = []
    monkeypatch.setattr(dashboard, "serve", lambda entry, **options: served.append((entry.id, options["host"])))
    assert shell("dashboard") == (0, "", "")
    code, _, err = shell("dashboard", sweep, "--host", "0.0.0.0")
    assert code == 0 and "warning: listening on 0.0.0.0" in err and "without a password" in err
    assert served == [(sweep, "127.0.0.1"), (sweep, "0.0.0.0")]


def test_the_commands_under_reproduce_are_complete(
    shell: Shell, tmp_path: Path, played_trials: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(Path("faces's.zip"), Faces.banded().files())
    assert shell("data", "prepare", "faces's.zip", "--name", "small")[0] == 0
    ids = [made(tmp_path, [], data="small", name=name, run_cap=2).id for name in ("it's", "second")]
    for sweep in ids:
        assert shell("agent", sweep, "--gpus", "none", "--slots", "1")[0] == 0
    assert shell("report", *ids, "-o", "report.html")[0] == 0
    page = Path("report.html").read_text().partition('<section id="again"')[2].partition("</section>")[0]
    blocks = [html.unescape(code) for code in re.findall("<code>(.*?)</code>", page, flags=re.DOTALL)]
    assert len(blocks) == 5, "the data, two sweeps, the winner of both, its training"
    for name in ("FERSWEEP_HOME", "FERSWEEP_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere" / name))
    known: dict[str, str] = {}
    for block in blocks:
        *writing, last = re.split(r"\nEND\n", block)
        if writing:  # the file, by the shell itself
            subprocess.run(["sh", "-c", f"{writing[0]}\nEND"], check=True)
        for line in last.splitlines():
            parts = re.fullmatch(r"(?:(\w+)=\$\()?(.+?)\)?", line)
            assert parts is not None, line
            variable, command = parts.groups()
            words = [known.get(word, word) for word in shlex.split(command)]
            small = {"agent": ["--gpus", "none", "--slots", "1"], "train": ["--epochs", "1", "--device", "cpu"]}
            code, out, err = shell(*words[1:], *small.get(words[1], []))
            assert code == 0, f"{line}\n{err}"
            known |= {f"${variable}": out.strip()} if variable else {}
    assert len(known) == 2
