"""history.jsonl: every epoch once, in order; a damaged file is refused with its line."""

import pytest

from fer_sweep.errors import StorageError
from fer_sweep.training.history import History, read_history

FIRST = b'{"epoch": 1, "val_acc": 0.5}\n'


def test_epoch_is_on_disk_when_append_returns_and_restart_drops_those_after_the_checkpoint(tmp_path):
    history = History(tmp_path / "history.jsonl")
    assert read_history(history.path) == []
    one, two = {"epoch": 1, "val_acc": 0.1}, {"epoch": 2, "val_acc": 1 / 3}
    history.append(one)
    history.append({"epoch": 2, "val_acc": 0.2})
    history.restart(history.rows[:1])
    assert read_history(history.path) == [one]
    history.append(two)
    assert read_history(history.path) == history.rows == [one, two]
    with history.path.open("a") as stream:
        stream.write('{"epo')  # and the process is killed
    assert read_history(history.path) == [one, two]


@pytest.mark.parametrize(
    "line",
    [b"{", b"[1]", b'{"epoch": 2, "lr": "x"}', b'{"epoch": 3}', b"{}", b"\xff", b"[" * 10_000, b'{"epoch": true}'],
)
def test_damaged_line_is_refused_by_its_number(line, tmp_path):
    (tmp_path / "history.jsonl").write_bytes(FIRST + line + b"\n")
    with pytest.raises(StorageError, match=r"history\.jsonl, line 2: not the metrics of epoch 2") as caught:
        read_history(tmp_path / "history.jsonl")
    assert caught.value.hint


def test_huge_or_unreadable_file_is_refused(tmp_path):
    with (tmp_path / "history.jsonl").open("wb") as stream:
        stream.truncate(3 << 30)  # sparse
    with pytest.raises(StorageError, match="larger than 16 MiB"):
        read_history(tmp_path / "history.jsonl")
    with pytest.raises(StorageError, match="cannot be read"):
        read_history(tmp_path)
    with pytest.raises(StorageError) as caught:
        History(tmp_path).append({"epoch": 1})
    assert caught.value.hint
