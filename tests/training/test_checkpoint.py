"""Checkpoints and history.jsonl: whole or not at all, of this trial only, and safe to read whoever wrote them."""

import io
import pickle
import zipfile
import zlib

import pytest
import torch

from fer_sweep.config.trial import SimpleCNNConfig, parse_trial
from fer_sweep.data.memory import bounded_memory
from fer_sweep.errors import CheckpointError, StorageError
from fer_sweep.files import LAST_CHECKPOINT
from fer_sweep.records import StopReason
from fer_sweep.training.checkpoint import MAX_SHARE, PREVIOUS, Checkpoints
from fer_sweep.training.history import History, read_history
from fer_sweep.training.loop import train
from fer_sweep.training.trial import start
from tests.training.conftest import small

CONFIG = parse_trial({"model": "simple_cnn"})


def checkpoints(folder, config=CONFIG, data="abc"):
    return Checkpoints(folder, config, data)


def test_previous_checkpoint_is_kept_loaded_where_the_last_is_missing_and_removed(tmp_path):
    saver = checkpoints(tmp_path)
    assert saver.load() is None
    for step in range(3):
        saver.save({"step": step})
    assert {path.name for path in tmp_path.iterdir()} == {LAST_CHECKPOINT, PREVIOUS}
    assert saver.load() == {"step": 2}
    (tmp_path / LAST_CHECKPOINT).unlink()
    assert saver.load() == {"step": 1}
    saver.save({"step": 2})
    saver.remove(tmp_path / "best.safetensors")
    assert not list(tmp_path.iterdir())


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: path.write_bytes(b"")])
def test_damaged_checkpoint_is_skipped_for_the_previous_one(damage, tmp_path, caplog):
    for step in (1, 2):
        checkpoints(tmp_path).save({"step": step, "weight": torch.zeros(1000)})
    damage(tmp_path / LAST_CHECKPOINT)
    assert checkpoints(tmp_path).load()["step"] == 1
    assert LAST_CHECKPOINT in caplog.text


class NewerConfig(SimpleCNNConfig):
    """The configuration of a later version, which has one more field."""

    added: float = 0.5


@pytest.mark.parametrize(
    ("saved", "config", "data", "message"),
    [
        (CONFIG, parse_trial({"model": "simple_cnn", "lr": 0.5}), "abc", "another configuration"),
        (CONFIG, parse_trial({"model": "deeper_cnn"}), "abc", "another configuration"),
        (CONFIG, CONFIG, "abd", "another content"),
        (NewerConfig(added=0.5), CONFIG, "abc", "another configuration"),
    ],
    ids=["value", "model", "data", "unknown field"],
)
def test_checkpoint_of_another_trial_is_refused(saved, config, data, message, tmp_path):
    checkpoints(tmp_path, config=saved).save({"step": 1})
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints(tmp_path, config=config, data=data).load()
    assert caught.value.hint


def test_checkpoint_of_an_earlier_version_is_resumed_after_a_field_was_added(tmp_path):
    checkpoints(tmp_path).save({"step": 1})
    assert checkpoints(tmp_path, config=NewerConfig()).load() == {"step": 1}


def test_checkpoints_take_a_bounded_share_of_the_time(tmp_path):
    now = iter([0.0, 50.0, 100.0, 101.0, 101 + 0.99 / MAX_SHARE, 101 + 1.01 / MAX_SHARE])
    saver = Checkpoints(tmp_path, CONFIG, "abc", clock=lambda: next(now))
    assert saver.due(), "the cost of the first one is unknown"
    saver.save({})  # takes one second
    assert not saver.due()
    assert saver.due()


def zipped(parts, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def with_pickle(content):
    return lambda parts: zipped({**parts, "archive/data.pkl": content})


NOT_PLAIN = "as no checkpoint does"
FORGERIES = {  # with pickles that call os.system("touch owned") and bytearray(2**30)
    "code": (with_pickle(b"\x80\x02cos\nsystem\n(X\x0b\0\0\0touch ownedtR."), NOT_PLAIN),
    "bytearray": (with_pickle(b"\x80\x02cbuiltins\nbytearray\n(J\0\0\0\x40tR."), NOT_PLAIN),
    "protocol 4": (with_pickle(pickle.dumps({"owner": {"config": "", "data": ""}, "state": print}, 4)), NOT_PLAIN),
    "bomb": (lambda parts: zipped({**parts, "archive/0": bytes(50 << 20)}, zipfile.ZIP_DEFLATED), "it is compressed"),
    "two archives": (lambda parts: zipped(parts) + zipped({"archive/data.pkl": b"."}), "do not begin at its beginning"),
    "bare pickle": (lambda parts: pickle.dumps([1]), "holds no zip"),
}


@pytest.mark.parametrize(("forge", "reason"), FORGERIES.values(), ids=FORGERIES)
def test_foreign_checkpoint_is_skipped_without_running_code_or_taking_memory(forge, reason, tmp_path, caplog):
    checkpoints(tmp_path).save({"weight": torch.arange(4.0)})
    last = tmp_path / LAST_CHECKPOINT

    def write(content):
        last.write_bytes(b"fersweep-checkpoint-1 %08x\n" % zlib.crc32(content) + content)

    with zipfile.ZipFile(io.BytesIO(last.read_bytes().partition(b"\n")[2])) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    write(zipped(parts))
    assert checkpoints(tmp_path).load() is not None, "the members alone make a checkpoint"
    write(forge(parts))
    with bounded_memory(512 << 20):
        assert checkpoints(tmp_path).load() is None
    assert reason in caplog.text
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("model", "features.0.weight"), torch.zeros(3)),
        (("optimizer", "state", 0, "exp_avg"), torch.zeros(3)),
        (("progress", "step"), 2**70),
        (("history",), []),
        (("history", 0, "val_acc"), "text"),
        (("precision",), None),
        (("rng",), torch.zeros(3, dtype=torch.uint8)),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_checkpoint_with_a_part_that_does_not_fit_is_refused(path, wrong, tmp_path):
    config, epochs = small(ema_decay=0.9), []
    train(config, tmp_path, on_epoch=epochs.append, stop=lambda: StopReason.PREEMPTED if epochs else None)
    trial = start(config, tmp_path, torch.device("cpu"))
    place = state = trial.checkpoints.load()
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = wrong
    trial.checkpoints.save(state)
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(CheckpointError, match="none of this training") as caught:
        trial.restore()
    assert caught.value.hint


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


def test_huge_file_or_one_that_cannot_be_written_is_refused(tmp_path):
    with (tmp_path / "history.jsonl").open("wb") as stream:
        stream.truncate(3 << 30)  # sparse
    with pytest.raises(StorageError, match="larger than 16 MiB"):
        read_history(tmp_path / "history.jsonl")
    with pytest.raises(StorageError) as caught:
        History(tmp_path).append({"epoch": 1})
    assert caught.value.hint
