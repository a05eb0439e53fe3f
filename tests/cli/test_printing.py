"""Tables in terminals of different widths."""

import os
import sys

from fer_sweep.cli.printing import RANKING_COLUMNS, _set_apart
from tests.pictures.screen import WIDTH, Screen, record

CONFIGURATION = " ".join(f"parameter_{number}=0.{number:04}" for number in range(8))
ROW = [">*", "1", "abcdefgh/0", "complete", "57.62 %", "57.62 %", "+2.6", "4", "9,515,783", "balanced", CONFIGURATION]
CODE = f"""
from fer_sweep.cli.printing import RANKING_COLUMNS, print_table
print_table("a title", RANKING_COLUMNS, [{ROW!r}] * 2, key="sweep/trial")
"""


def test_a_column_is_set_apart_only_where_it_would_be_squeezed() -> None:
    assert _set_apart(RANKING_COLUMNS, [ROW], 104) == len(ROW) - 1
    assert _set_apart(RANKING_COLUMNS, [ROW], 160) is None
    assert _set_apart({"trial": "right", "state": "left"}, [["1", "running"]], 40) is None
    assert _set_apart(RANKING_COLUMNS, [], 200) is None


def test_a_narrow_terminal_shows_configurations_below_the_table() -> None:
    screen = Screen()
    screen.feed(record([sys.executable, "-c", CODE], ".", dict(os.environ)))
    rows = [row.rstrip() for row in screen.plain()]
    assert max(map(len, rows)) <= WIDTH
    (heading,) = [number for number, row in enumerate(rows) if row.split() == ["sweep/trial", "configuration"]]
    assert sum("57.62 %" in row for row in rows[:heading]) == 2
    below = " ".join(" ".join(rows[heading + 2 :]).split())
    assert below == " ".join([f"abcdefgh/0 {CONFIGURATION}"] * 2)
    assert len([row for row in rows[heading + 2 :] if row]) == 4, "in a column squeezed between others it takes dozens"
