import json
from pathlib import Path

import pytest

from fer_sweep.errors import StorageError
from fer_sweep.training.history import History, read_history


def test_history_is_on_disk_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.append({"epoch": 1, "val_acc": 0.1})
    history.append({"epoch": 2, "val_acc": 1 / 3})
    assert read_history(history.path) == history.rows == [{"epoch": 1, "val_acc": 0.1}, {"epoch": 2, "val_acc": 1 / 3}]


def test_restarting_drops_what_came_after(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.append({"epoch": 1})
    history.append({"epoch": 2})
    history.restart(history.rows[:1])
    history.append({"epoch": 2})
    assert read_history(history.path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_line_cut_off_is_left_out_and_a_missing_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    path.write_text(json.dumps({"epoch": 1}) + '\n{"epo')
    assert read_history(path) == [{"epoch": 1}]


def test_a_history_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        History(tmp_path).append({"epoch": 1})
    assert caught.value.hint
