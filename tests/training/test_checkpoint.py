"""Checkpoints and history.jsonl: written atomically, refused for another trial, and safe to read whoever wrote them."""

import gzip
import io
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from fer_sweep.config.trial import SimpleCNNConfig, parse_trial
from fer_sweep.errors import CheckpointError, StorageError
from fer_sweep.files import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT
from fer_sweep.records import StopReason, TrialState
from fer_sweep.training.checkpoint import MAX_SHARE, Checkpoints
from fer_sweep.training.history import History, read_history
from fer_sweep.training.loop import train
from fer_sweep.training.trial import Trial
from tests.training.conftest import small

CONFIG = parse_trial({"model": "simple_cnn"})


def checkpoints(folder, config=CONFIG, data="abc"):
    return Checkpoints(folder, config, data)


def test_previous_checkpoint_is_kept_loaded_where_the_last_is_missing_and_removed(tmp_path):
    saver = checkpoints(tmp_path)
    assert saver.load() is None
    for step in range(3):
        saver.save({"step": step}, {})
    assert {path.name for path in tmp_path.iterdir()} == {LAST_CHECKPOINT, PREVIOUS_CHECKPOINT}
    assert saver.load().state == {"step": 2}
    (tmp_path / LAST_CHECKPOINT).unlink()
    assert saver.load().state == {"step": 1}
    saver.save({"step": 2}, {})
    saver.remove()
    assert not list(tmp_path.iterdir())


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, lambda path: path.write_bytes(b"")])
def test_damaged_checkpoint_is_skipped_for_the_previous_one(damage, tmp_path, caplog):
    for step in (1, 2):
        checkpoints(tmp_path).save({"step": step}, {"weight": torch.zeros(1000)})
    damage(tmp_path / LAST_CHECKPOINT)
    assert checkpoints(tmp_path).load().state == {"step": 1}
    assert LAST_CHECKPOINT in caplog.text


class NewerConfig(SimpleCNNConfig):
    """The configuration of a later version, which has one more field."""

    added: float = 0.5


@pytest.mark.parametrize(
    ("saved", "config", "data", "message"),
    [
        (CONFIG, parse_trial({"model": "simple_cnn", "lr": 0.5}), "abc", "another configuration"),
        (CONFIG, parse_trial({"model": "deeper_cnn"}), "abc", "another configuration"),
        (CONFIG, CONFIG, "abd", "another version of the data"),
        (NewerConfig(added=0.5), CONFIG, "abc", "another configuration"),
    ],
    ids=["value", "model", "data", "unknown field"],
)
def test_checkpoint_of_another_trial_is_refused(saved, config, data, message, tmp_path):
    checkpoints(tmp_path, config=saved).save({"step": 1}, {})
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints(tmp_path, config=config, data=data).load()
    assert caught.value.hint


def test_checkpoint_of_an_earlier_version_is_resumed_after_a_field_was_added(tmp_path):
    checkpoints(tmp_path).save({"step": 1}, {})
    assert checkpoints(tmp_path, config=NewerConfig()).load().state == {"step": 1}


def test_checkpoints_take_a_bounded_share_of_the_time(tmp_path):
    now = iter([0.0, 50.0, 100.0, 101.0, 101 + 0.99 / MAX_SHARE, 101 + 1.01 / MAX_SHARE])
    saver = Checkpoints(tmp_path, CONFIG, "abc", clock=lambda: next(now))
    assert saver.due(), "the cost of the first one is unknown"
    saver.save({}, {})  # takes one second
    assert not saver.due()
    assert saver.due()


def test_pickle_that_runs_code_is_skipped(tmp_path, caplog):
    forged = io.BytesIO()
    with zipfile.ZipFile(forged, "w") as archive:  # os.system("touch owned")
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\n(X\x0b\0\0\0touch ownedtR.")
        archive.writestr("archive/version", "3")
    header = b"fersweep-checkpoint-1 %08x\n" % zlib.crc32(forged.getvalue())
    (tmp_path / LAST_CHECKPOINT).write_bytes(header + forged.getvalue())
    assert checkpoints(tmp_path).load() is None
    assert "weights_only" in caplog.text
    assert not Path("owned").exists()


def test_checkpoint_of_the_first_version_is_resumed_with_all_that_it_holds(tmp_path):
    # Written at revision 6321c4a, three steps into the second of two epochs.
    stored = gzip.decompress(Path(__file__).with_name("first_version.ckpt.gz").read_bytes())
    config = small("deeper_cnn", blocks=2, width=2, epochs=2, ema_decay=0.9, precision="fp32", augment={"flip": True})
    (tmp_path / LAST_CHECKPOINT).write_bytes(stored)
    trial = Trial(config, tmp_path, torch.device("cpu"))
    assert (trial.progress.epochs_done, trial.progress.step, len(trial.history.rows)) == (1, 1, 1)
    written = torch.load(io.BytesIO(stored.partition(b"\n")[2]), weights_only=True)["state"]
    assert bits(trial.model.state_dict()) == bits(written["model"])
    assert bits(trial.average.model.state_dict()) == bits(written["average"])
    for index, moments in written["optimizer"]["state"].items():
        assert bits(trial.optimizer.state_dict()["state"][index]) == bits(moments)
    assert torch.equal(torch.get_rng_state(), written["rng"])
    assert trial.progress.loss_sum == written["progress"]["loss_sum"]
    assert train(config, tmp_path).state is TrialState.COMPLETE


def bits(tensors):
    return {name: (tensor.stride(), tensor.contiguous().numpy().tobytes()) for name, tensor in tensors.items()}


def test_checkpoint_that_does_not_fit_the_model_is_refused_with_a_hint(tmp_path):
    config, epochs = small(ema_decay=0.9), []
    train(config, tmp_path, on_epoch=epochs.append, stop=lambda: StopReason.PREEMPTED if epochs else None)
    trial = Trial(config, tmp_path, torch.device("cpu"))
    saved = trial.checkpoints.load()
    without_weight = {name: tensor for name, tensor in saved.tensors.items() if name != "model.features.0.weight"}
    other_moments = saved.tensors | {"optimizer.0.exp_avg": torch.zeros(5)}
    for state, tensors in (
        (saved.state, without_weight),
        (saved.state, other_moments),
        (saved.state | {"precision": "fp8"}, saved.tensors),
        (saved.state | {"added later": 1}, saved.tensors),
    ):
        trial.checkpoints.save(state, tensors)
        with pytest.raises(CheckpointError, match="does not fit this version") as caught:
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


def test_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(StorageError) as caught:
        History(tmp_path).append({"epoch": 1})
    assert caught.value.hint
