"""Tables in terminals of different widths, and pipes that are no terminals."""

import sys
from pathlib import Path

import pytest

from fer_sweep.cli.console import PatientConsole
from fer_sweep.cli.printing import RANKING_COLUMNS, print_table

CONFIGURATION = " ".join(f"parameter_{number}=0.{number:04}" for number in range(8))
ROW = [">*", "1", "abcdefgh/0", "complete", "57.62 %", "57.62 %", "+2.6", "4", "9,515,783", "balanced", CONFIGURATION]


@pytest.mark.parametrize(("width", "is_below"), [(104, True), (160, False)])
def test_a_narrow_terminal_shows_configurations_below_the_table(
    width: int, is_below: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
def test_force_color_makes_no_terminal_of_a_pipe(stream: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    with (tmp_path / "piped").open("w") as piped:
        monkeypatch.setattr(sys, stream, piped)
        assert not PatientConsole(stderr=stream == "stderr").is_terminal
