"""The training of a trial: its metrics, files and endings."""

import functools
import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fer_sweep.config.trial import parse_trial
from fer_sweep.data.cache import open_dataset
from fer_sweep.errors import CheckpointError
from fer_sweep.models import build_model
from fer_sweep.records import EPOCH_METRICS, FER2013, StopReason, TrialResult, TrialState, Verdict
from fer_sweep.training.evaluation import evaluate
from fer_sweep.training.faces import Faces
from fer_sweep.training.loop import train
from fer_sweep.training.samples import choose_samples
from fer_sweep.training.trial import claim_folder
from tests.training import conftest

PLAIN = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "flip": False}
small = functools.partial(conftest.small, epochs=3, lr=3e-3, augment=PLAIN)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def after_two(rows, reason):
    return lambda: reason if len(rows) == 2 else None


def never_asked():
    raise AssertionError("a finished trial takes no further step")


def test_progress_within_an_epoch_is_told_and_goes_on_after_a_preemption(tmp_path):
    told, config = [], small(epochs=1)
    train(config, tmp_path, on_step=told.append, stop=lambda: StopReason.PREEMPTED if len(told) == 3 else None)
    before = told.copy()
    train(config, tmp_path, on_step=told.append)
    steps = round(1 / told[1])
    assert before == [step / steps for step in range(3)]
    assert told == [*before, *(step / steps for step in range(2, steps + 1))]


def test_trial_reports_every_epoch_and_writes_its_files(tmp_path):
    seen = []
    outcome = train(small(), tmp_path, on_epoch=lambda row: seen.append(dict(row)))
    assert outcome.state is TrialState.COMPLETE
    assert seen == rows_of(tmp_path)
    assert [row["epoch"] for row in seen] == [1, 2, 3]
    for row in seen:
        assert tuple(row) == EPOCH_METRICS
        assert row["train_val_gap"] == row["train_acc"] - row["val_acc"]
        assert row["images_per_second"] > 0
    result = outcome.result
    assert result == TrialResult.model_validate_json((tmp_path / "result.json").read_bytes())
    assert result.best_val_acc == max(row["val_acc"] for row in seen) == seen[-1]["best_val_acc"]
    best = seen[result.best_epoch - 1]
    assert (result.train_acc, result.train_val_gap) == (best["train_acc"], best["train_val_gap"])
    assert result.epochs == 3 and result.seconds > 0 and result.peak_memory_mb > 10
    assert result.parameters == sum(p.numel() for p in build_model(small(), FER2013).parameters())
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert files == {"config.json", "history.jsonl", "result.json", "best.safetensors"}
    assert parse_trial(json.loads((tmp_path / "config.json").read_bytes())) == small()


def test_trial_learns_and_saves_the_weights_of_its_best_epoch(tmp_path):
    config = small(epochs=12, lr=1e-2, channels=8, hidden=32, precision="fp32")
    result = train(config, tmp_path).result
    assert result.best_val_acc > 0.9
    assert result.best_epoch < 12, "or the last weights would do"
    assert result.verdict is Verdict.BALANCED
    assert sum(map(sum, result.confusion_matrix)) == 21
    assert len(result.per_class_recall) == 7
    model = build_model(config, FER2013)
    model.load_state_dict(load_file(tmp_path / "best.safetensors"))
    dataset = open_dataset("tiny")
    samples = choose_samples(dataset, config)
    faces = Faces(dataset, samples, torch.device("cpu"))
    _, predictions = evaluate(model, faces, faces.val, "fp32")
    right = predictions == dataset.labels[samples.val]
    assert right.mean() == result.best_val_acc
    assert right[samples.clean].mean() == result.val_acc_clean
    assert samples.clean.sum() == 14
    with safe_open(tmp_path / "best.safetensors", "pt") as stored:
        about = json.loads(stored.metadata()["fersweep"])
    assert (about["pixel_mean"], about["pixel_std"]) == (faces.mean, faces.std)
    assert (about["epoch"], about["val_acc"]) == (result.best_epoch, result.best_val_acc)
    assert parse_trial(about["config"]) == config


def test_averaged_weights_are_evaluated_and_the_seed_matters(tmp_path):
    changes = {"plain": {}, "averaged": {"ema_decay": 0.999}, "seeded": {"seed": 1}}
    for name, change in changes.items():
        train(small(epochs=1, **change), tmp_path / name)
    (plain,), (averaged,), (seeded,) = (rows_of(tmp_path / name) for name in changes)
    assert plain["train_loss"] == averaged["train_loss"] != seeded["train_loss"]
    assert plain["val_loss"] != averaged["val_loss"]


def test_resumed_and_finished_trials_report_their_epochs_again(tmp_path, caplog):
    rows, seen = [], []
    stopped = train(small(), tmp_path, on_epoch=rows.append, stop=after_two(rows, StopReason.PREEMPTED))
    assert (stopped.state, stopped.result) == (TrialState.PREEMPTED, None)
    first = train(small(), tmp_path, on_epoch=lambda row: seen.append(row["epoch"]))
    assert first.state is TrialState.COMPLETE
    assert train(small(), tmp_path, on_epoch=lambda row: seen.append(row["epoch"]), stop=never_asked) == first
    assert seen == [1, 2, 3, 1, 2, 3]
    (tmp_path / "history.jsonl").write_text("{\n")
    assert train(small(), tmp_path, on_epoch=seen.append, stop=never_asked).result == first.result
    assert len(seen) == 6, "its epochs are lost, its result is not"
    assert "history.jsonl, line 1" in caplog.text


def test_pruned_trial_keeps_its_best_epoch(tmp_path):
    rows = []
    outcome = train(small(epochs=9), tmp_path / "t", on_epoch=rows.append, stop=after_two(rows, StopReason.PRUNED))
    assert outcome.state is TrialState.PRUNED
    assert outcome.result.epochs == len(rows) == 2
    assert outcome.result.best_val_acc == max(row["val_acc"] for row in rows)
    assert (tmp_path / "t" / "best.safetensors").exists()
    again = train(small(epochs=9), tmp_path / "t", stop=never_asked)
    assert (again.state, again.result) == (TrialState.PRUNED, outcome.result)
    early = train(small(), tmp_path / "early", stop=lambda: StopReason.PRUNED)
    assert (early.state, early.result) == (TrialState.PRUNED, None), "before its first epoch"


DIVERGING = {"optimizer": "sgd", "lr": 10.0, "warmup": 0.0, "momentum": 0.9, "weight_decay": 10.0, "precision": "fp32"}


@pytest.mark.parametrize("check_every", [8, 64])
def test_divergence_in_the_first_epoch_completes_without_an_epoch(check_every, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_sweep.training.loop.CHECK_EVERY", check_every)
    steps = []
    outcome = train(small(**DIVERGING, batch_size=2), tmp_path, stop=lambda: steps.append(1))
    assert outcome.state is TrialState.COMPLETE
    assert outcome.reason == "the loss was not finite in epoch 1"
    result = outcome.result
    assert (result.verdict, result.best_val_acc, result.best_epoch) == (Verdict.DIVERGED, 0.0, 0)
    assert rows_of(tmp_path) == []
    # An epoch has 35 steps: a check every 64 finds it at its end only.
    assert (len(steps) < 35) == (check_every == 8)
    assert train(small(**DIVERGING, batch_size=2), tmp_path, stop=never_asked).state is TrialState.COMPLETE


def test_divergence_later_keeps_the_epochs_before(tmp_path):
    result = train(small(**DIVERGING | {"warmup": 0.5, "epochs": 30}), tmp_path).result
    rows = rows_of(tmp_path)
    assert result.verdict is Verdict.DIVERGED
    assert 0 < result.epochs == len(rows) < 30
    assert result.best_val_acc == max(row["val_acc"] for row in rows)
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900, b'{"model": [], "lr": {}}', b"{}"],
    ids=["empty", "list", "not text", "deep list", "deep dictionary", "wrong types", "no keys"],
)
def test_unreadable_file_of_a_trial_is_refused_by_name(tmp_path, name, content):
    assert claim_folder(small(), tmp_path) is None
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as caught:
        claim_folder(small(), tmp_path)
    assert caught.value.hint


def test_folder_is_cleared_of_an_interrupted_write_and_belongs_to_its_configuration(tmp_path):
    (tmp_path / ".last.ckpt.ab12cd34").write_bytes(b"half")
    assert claim_folder(small(), tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(CheckpointError, match="another configuration"):
        claim_folder(small(lr=1e-4), tmp_path)
