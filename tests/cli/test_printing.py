"""Tables in terminals of different widths, and pipes that are no terminals."""

import sys
from pathlib import Path

import pytest

from fer_sweep.cli.console import PatientConsole
from fer_sweep.cli.printing import RANKING_COLUMNS, _set_apart, print_table

CONFIGURATION = " ".join(f"parameter_{number}=0.{number:04}" for number in range(8))
ROW = [">*", "1", "abcdefgh/0", "complete", "57.62 %", "57.62 %", "+2.6", "4", "9,515,783", "balanced", CONFIGURATION]


def test_a_column_is_set_apart_only_where_it_would_be_squeezed() -> None:
    assert _set_apart(RANKING_COLUMNS, [ROW], 104) == len(ROW) - 1
    assert _set_apart(RANKING_COLUMNS, [ROW], 160) is None
    assert _set_apart({"trial": "right", "state": "left"}, [["1", "running"]], 40) is None
    assert _set_apart(RANKING_COLUMNS, [], 200) is None


def test_a_narrow_terminal_shows_configurations_below_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name, value in {"COLUMNS": "104", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    print_table("a title", RANKING_COLUMNS, [ROW] * 2, key="sweep/trial")
    rows = [row.rstrip() for row in capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()]
    assert max(map(len, rows)) <= 104
    (heading,) = [number for number, row in enumerate(rows) if row.split() == ["sweep/trial", "configuration"]]
    assert sum("57.62 %" in row for row in rows[:heading]) == 2
    below = " ".join(" ".join(rows[heading + 2 :]).split())
    assert below == " ".join([f"abcdefgh/0 {CONFIGURATION}"] * 2)
    assert len([row for row in rows[heading + 2 :] if row]) == 4, "in a column squeezed between others it takes dozens"


@pytest.mark.parametrize("stderr", [False, True])
def test_force_color_makes_no_terminal_of_a_pipe(stderr: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    with (tmp_path / "piped").open("w") as stream:
        monkeypatch.setattr(sys, "stderr" if stderr else "stdout", stream)
        assert not PatientConsole(stderr=stderr).is_terminal
