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
from fer_sweep.cli.printing import (
    TRIAL_COLUMNS,
    console,
    log_warnings,
    print_json,
    print_table,
    print_text,
    print_trials,
    table_lines,
)
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.reports.tables import ARCHITECTURE_COLUMNS, RANKING_COLUMNS
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


PARAMETERS = " ".join(f"parameter_{number}=0.{number:04}" for number in range(30))
MEASURED = ("57.62 %", "56.98 %", "+12.6")
LONG = {
    "best": (
        RANKING_COLUMNS,
        "sweep/trial",
        [">*", "12", "abcdefgh/ijklmnop", *MEASURED, "collapsed", "complete", "120", "19,515,783", PARAMETERS],
    ),
    "architectures": (
        ARCHITECTURE_COLUMNS,
        "architecture",
        [">", "efficientnet_lite", "120 (17 on the front)", "abcdefgh/123", *MEASURED, "19,515,783", "collapsed"],
    ),
    "status": (
        TRIAL_COLUMNS,
        "trial",
        [
            "ijklmnop",
            "preempted",
            "120",
            "57.62 %",
            "+12.6",
            "collapsed",
            "killed by the kernel: no memory",
        ],
    ),
}


@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("name", LONG)
def test_a_table_of_long_values_fits_the_terminal_with_every_word_whole(name, width):
    headings, key, row = LONG[name]
    other = [cell.replace("1", "9") for cell in row]
    heading, rows = table_lines(headings, [row, other], width, 1 + headings.index(key))
    lines = [heading, *rows]
    assert max(map(len, lines)) <= width
    shown = {word.rstrip(",") for line in lines for word in line.split()}
    assert shown >= {word.rstrip(",") for text in (*row, *other) for word in text.split()}
    starts = [line for line in rows if row[headings.index(key)] in line.split()]
    assert len(starts) == 2, "each row has its name once"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_force_color_makes_no_terminal_of_a_pipe(stream, monkeypatch, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    with (tmp_path / "piped").open("w") as piped:
        monkeypatch.setattr(sys, stream, piped)
        assert not console(stderr=stream == "stderr").is_terminal


@pytest.mark.parametrize(
    ("state", "reason", "is_shown"),
    [
        ("failed", "KeyError: 'faces'", True),
        ("preempted", "no room: resumed with 8 images at once", True),
        ("preempted", "preempted in epoch 1 of 4", False),
        ("pruned", "stopped early: worse than the others at this epoch", False),
    ],
)
def test_a_trial_has_a_note_only_if_its_state_and_epoch_do_not_say_as_much(state, reason, is_shown, capsys):
    print_trials("trials", [TrialRecord("0", TrialState(state), {}, {}, {"epoch": 1.0}, reason=reason)])
    assert (reason in capsys.readouterr().out) == is_shown
