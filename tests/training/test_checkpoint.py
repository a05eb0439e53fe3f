from pathlib import Path

import pytest
import torch

from fer_sweep.config.trial import SimpleCNNConfig, TrialConfig, parse_trial
from fer_sweep.errors import CheckpointError, StorageError
from fer_sweep.files import LAST_CHECKPOINT
from fer_sweep.training.checkpoint import MAX_SHARE, PREVIOUS, Checkpoints

CONFIG: TrialConfig = parse_trial({"model": "simple_cnn"})


def checkpoints(folder: Path, config: TrialConfig = CONFIG, data: str = "abc") -> Checkpoints:
    return Checkpoints(folder, config, data)


def test_what_is_saved_is_loaded_with_its_types_and_strides(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    checkpoints(tmp_path).save({"weight": weight, "rows": [{"a": 0.1}], "none": None, "step": 3})
    state = checkpoints(tmp_path).load()
    assert state is not None
    assert torch.equal(state.pop("weight"), weight)
    assert state == {"rows": [{"a": 0.1}], "none": None, "step": 3}


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert checkpoints(tmp_path).load() is None


def test_the_one_before_the_last_is_kept(tmp_path: Path) -> None:
    for step in range(3):
        checkpoints(tmp_path).save({"step": step})
    assert {path.name for path in tmp_path.iterdir()} == {LAST_CHECKPOINT, PREVIOUS}
    assert checkpoints(tmp_path).load() == {"step": 2}
    (tmp_path / LAST_CHECKPOINT).unlink()
    assert checkpoints(tmp_path).load() == {"step": 1}


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign", "folder"])
def test_a_damaged_last_one_is_passed_over(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saver = checkpoints(tmp_path)
    saver.save({"step": 1, "weight": torch.zeros(1000)})
    saver.save({"step": 2, "weight": torch.zeros(1000)})
    last = tmp_path / LAST_CHECKPOINT
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        last.write_bytes(b"")
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    elif damage == "foreign":
        torch.save({"step": 2}, last)
    else:
        last.unlink()
        last.mkdir()
    state = checkpoints(tmp_path).load()
    assert state is not None
    assert state["step"] == 1
    assert LAST_CHECKPOINT in caplog.text


def test_when_both_are_damaged_the_training_begins_anew(tmp_path: Path) -> None:
    for name in (LAST_CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"fersweep-checkpoint-1 00000000\n")
    assert checkpoints(tmp_path).load() is None


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "owned"),))

    checkpoints(tmp_path).save({"attack": Attack()})
    assert checkpoints(tmp_path).load() is None
    assert not (tmp_path / "owned").exists()


def test_another_trials_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoints(tmp_path).save({"step": 1})
    with pytest.raises(CheckpointError, match="another configuration") as caught:
        checkpoints(tmp_path, config=parse_trial({"model": "simple_cnn", "lr": 0.5})).load()
    assert caught.value.hint
    with pytest.raises(CheckpointError, match="another content"):
        checkpoints(tmp_path, data="abd").load()


class NewerConfig(SimpleCNNConfig):
    """The configuration of a later version, which has one more field."""

    added: float = 0.5


def test_checkpoint_of_an_earlier_version_is_resumed_after_a_field_was_added(tmp_path: Path) -> None:
    checkpoints(tmp_path).save({"step": 1})
    assert checkpoints(tmp_path, config=NewerConfig()).load() == {"step": 1}


def test_checkpoint_whose_added_field_differs_is_refused(tmp_path: Path) -> None:
    checkpoints(tmp_path, config=NewerConfig(added=0.5)).save({"step": 1})
    others = [NewerConfig(added=0.6), CONFIG, parse_trial({"model": "deeper_cnn"})]
    for other in others:
        with pytest.raises(CheckpointError, match="another configuration"):
            checkpoints(tmp_path, config=other).load()


def test_removing_takes_both_and_minds_none(tmp_path: Path) -> None:
    saver = checkpoints(tmp_path)
    saver.remove(tmp_path / "best.safetensors")
    saver.save({})
    saver.save({})
    saver.remove(tmp_path / "best.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StorageError):
        checkpoints(tmp_path / "file").save({})
    assert (tmp_path / "file").read_text() == "kept"


def test_saving_waits_until_it_is_worth_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("fer_sweep.training.checkpoint.time.perf_counter", lambda: now)
    saver = checkpoints(tmp_path)
    assert saver.due()  # what a first one costs is not known yet
    saver._cost = 1.0
    now += 0.99 / MAX_SHARE
    assert not saver.due()
    now += 0.02 / MAX_SHARE
    assert saver.due()
