"""A row a trial: JSON, CSV and parquet that read back as they were, and Markdown that nobody's text steers."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from pyarrow import parquet

from fer_sweep.records import CLASSES
from fer_sweep.reports.sources import Report
from fer_sweep.reports.tables import csv_text, flat_rows, json_text, markdown, write_parquet
from tests.support import reports as made_up

HOSTILE = '=cmd|"/c calc"!A0\n| a [b](javascript:x) <script>alert(1)</script> `c` http://evil.example \x1b[31m'


@pytest.fixture
def small() -> Report:
    return made_up.report(made_up.sweep(trials=30, seed=1))


def test_json_has_a_row_a_trial_with_parameters_metrics_and_state(small: Report) -> None:
    read = json.loads(json_text(small))
    assert len(read) == 30
    assert sum(row["winner"] for row in read) == 1
    assert {row["state"] for row in read} == {"complete", "pruned", "running"}
    complete = next(row for row in read if row["state"] == "complete")
    assert {axis.name for axis in made_up.AXES} <= set(complete["parameters"])
    assert set(complete["metrics"]["per_class_recall"]) == set(CLASSES)
    assert len(complete["metrics"]["confusion_matrix"]) == 7
    running = next(row for row in read if row["state"] == "running")
    assert (running["metrics"]["epoch"], running["ended_at"]) == (made_up.EPOCHS, None), "its latest epoch"


def test_csv_reads_back_the_same_numbers(small: Report) -> None:
    read = list(csv.DictReader(io.StringIO(csv_text(small), newline="")))
    assert list(read[0])[:5] == ["sweep", "trial", "state", "winner", "pareto"]
    for row, record in zip(read, small.sweeps[0].records, strict=True):
        assert (row["trial"], float(row["param.lr"])) == (record.trial_id, record.parameters["lr"])
        if record.result is not None:
            assert float(row["best_val_acc"]) == record.result.best_val_acc
            assert float(row["recall.happy"]) == record.result.per_class_recall[3]


def test_no_cell_of_a_csv_is_a_formula() -> None:
    text = csv_text(made_up.hostile(HOSTILE))
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
    assert not [cell for cell in cells if cell.startswith("-") and not re.fullmatch(r"-[\d.]+(e-?\d+)?", cell)]
    assert "'" + HOSTILE in cells, "the text itself is whole"


def test_parquet_has_typed_columns_and_json_where_values_are_mixed(small: Report, tmp_path: Path) -> None:
    mixed = [1, "one", None, [1, 2], True]
    records = list(small.sweeps[0].records)
    for place, value in enumerate(mixed):
        records[place] = dataclasses.replace(records[place], parameters={**records[place].parameters, "odd": value})
    sweep = dataclasses.replace(small.sweeps[0], records=tuple(records))
    report = dataclasses.replace(small, sweeps=(sweep,))
    write_parquet(report, tmp_path / "trials.parquet")
    table = parquet.read_table(tmp_path / "trials.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["param.lr"], kinds["param.batch_size"], kinds["param.optimizer"]) == ("double", "int64", "string")
    assert (kinds["winner"], kinds["best_val_acc"]) == ("bool", "double")
    assert table.column("best_val_acc").to_pylist() == [row["best_val_acc"] for row in flat_rows(report)]
    odd = table.column("param.odd").to_pylist()
    assert [None if text is None else json.loads(text) for text in odd] == mixed + [None] * 25


def test_markdown_shows_hostile_text_as_it_is() -> None:
    text = markdown(made_up.hostile(HOSTILE))
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in prose.replace("\\<", "")
    assert "](javascript" not in prose.replace("\\]\\(", "")
    assert "http://evil" not in prose and "\x1b" not in prose
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in prose.splitlines() if line.startswith("|")}
    assert bars <= {3, 4, 9, 12, 13}, "no cell adds a column"
