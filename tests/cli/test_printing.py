"""What is printed: names that others wrote without control characters, tables of any width, pipes as they are."""

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.cli import main
from fer_sweep.cli.printing import console, log_warnings, print_json, print_table, print_text
from fer_sweep.reports.tables import RANKING_COLUMNS
from tests.support.faces import Faces, write_folder

EVIL = "e\x1b[2Jv\x07i\u202el\x7f[red]"


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b\x07\x7f\x9b\u202e\u2066\r\b[]"), max_size=30))
def test_printed_text_cannot_control_a_terminal(text):
    def printed(act: Callable[[], None]) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", io.StringIO())
            act()
            return str(sys.stdout.getvalue())

    rich = f"[red]{text}[/red]"
    table = printed(lambda: print_table(rich, ["heading"], [[rich], [text]]))
    document = printed(lambda: print_json({"name": text}))
    assert all(map(is_harmless, (printed(lambda: print_text(text)), table, document)))
    assert table.count("[red]") == 2
    assert json.loads(document) == {"name": text}


def test_logged_warnings_cannot_control_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    monkeypatch.setattr(logging.getLogger("wandb"), "propagate", True)
    log_warnings()
    logging.warning("a\x1b[2Jb")
    assert capsys.readouterr().err == "WARNING: a\\x1b[2Jb\n"


def test_no_command_prints_control_characters(shell, tmp_path):
    files = Faces.banded(1, 1).files()
    write_folder(tmp_path / f"{EVIL}.zip", files)
    odd = {name.replace("angry", f"angri{EVIL}"): content for name, content in files.items()}
    write_folder(tmp_path / "odd", {**files, **odd})
    text = json.dumps(EVIL)
    Path(f"{EVIL}.yaml").write_text(f"method: {text}\n{text}: 1\nparameters: {text}\n")
    Path(f"{EVIL}.json").write_text(json.dumps({"model": EVIL, EVIL: EVIL}))
    for words, expected in (
        (["data", "prepare", str(tmp_path / f"{EVIL}.zip"), "--name", "evil"], 0),
        (["data", "list"], 0),
        (["data", "list", "--json"], 0),
        (["data", "audit", "evil"], 0),
        (["data", "prepare", str(tmp_path / "odd"), "--name", "more"], 2),
        (["data", "prepare", EVIL], 2),
        (["validate", f"{EVIL}.yaml"], 2),
        (["validate", f"{EVIL}.yaml", "--json"], 2),
        (["create", f"{EVIL}.yaml", "--set", f"{EVIL}=1"], 2),
        (["train", "--config", f"{EVIL}.json"], 2),
        (["train", f"--{EVIL}", EVIL], 2),
        (["status", EVIL], 2),
    ):
        code, out, err = shell(*words)
        assert code == expected, (words, err)
        assert is_harmless(out + err), words
        if "--json" in words:
            json.loads(out)


def test_name_that_the_locale_cannot_encode_is_escaped(monkeypatch, tmp_path):
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "cäche"))
    for more, escaped in (([], b"c\\xe4che"), (["--json"], b"")):
        monkeypatch.setattr(sys, "argv", ["fersweep", "data", "list", *more])
        stdout = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stdout, encoding="ascii"))
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stdout.flush()
        assert ended.value.code == 0
        assert escaped in stdout.getvalue()


CONFIGURATION = " ".join(f"parameter_{number}=0.{number:04}" for number in range(8))
ROW = [">*", "1", "abcdefgh/0", "complete", "57.62 %", "57.62 %", "+2.6", "4", "9,515,783", "balanced", CONFIGURATION]


@pytest.mark.parametrize(("width", "is_below"), [(104, True), (160, False)])
def test_a_narrow_terminal_shows_configurations_below_the_table(width, is_below, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name, value in {"COLUMNS": str(width), "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    print_table("a title", RANKING_COLUMNS, [ROW] * 2, key="sweep/trial")
    rows = [row.rstrip() for row in capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()]
    assert max(map(len, rows)) <= width
    headings = [number for number, row in enumerate(rows) if row.split() == ["sweep/trial", "configuration"]]
    assert len(headings) == is_below
    if is_below:
        assert sum("57.62 %" in row for row in rows[: headings[0]]) == 2
        below = [row for row in rows[headings[0] + 2 :] if row]
        assert " ".join(" ".join(below).split()) == " ".join([f"abcdefgh/0 {CONFIGURATION}"] * 2)
        assert len(below) == 4, "in a column squeezed between others it takes dozens"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_force_color_makes_no_terminal_of_a_pipe(stream, monkeypatch, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    with (tmp_path / "piped").open("w") as piped:
        monkeypatch.setattr(sys, stream, piped)
        assert not console(stderr=stream == "stderr").is_terminal
