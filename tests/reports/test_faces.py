"""What a model gets most wrong, as the process writes it down and the report draws it."""

import base64
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

from fer_sweep.config.trial import parse_trial
from fer_sweep.data.cache import Split, open_dataset
from fer_sweep.errors import CheckpointError, DataError, FersweepError
from fer_sweep.files import trial_folder
from fer_sweep.records import CLASSES, TrialRecord, TrialState
from fer_sweep.reports.faces import worst_faces
from fer_sweep.selection import Candidate
from fer_sweep.training.loop import train
from fer_sweep.training.mistakes import write_mistakes

CONFIG = {"model": "simple_cnn", "channels": 4, "hidden": 8, "batch_size": 16, "epochs": 2, "lr": 1e-3}


@pytest.fixture
def winner(tiny_data: str) -> Candidate:
    """A trial that was trained, with its folder where a sweep's trials are."""
    config = parse_trial({**CONFIG, "data": tiny_data})
    result = train(config, trial_folder("s", "0")).result
    assert result is not None
    values = config.model_dump(mode="json")
    return Candidate("s", TrialRecord("0", TrialState.COMPLETE, values, values, result=result), result)


def test_the_surest_mistakes_first_and_as_many_as_the_result_says(winner: Candidate) -> None:
    path = write_mistakes(trial_folder("s", "0"))
    found = json.loads(path.read_text())
    confusion = np.array(winner.result.confusion_matrix)
    assert found["validation"] == confusion.sum() == 70
    assert found["wrong"] == confusion.sum() - confusion.trace() == len(found["mistakes"])
    dataset = open_dataset("tiny")
    places = set(dataset.indices(Split.VAL).tolist())
    counted = np.zeros((7, 7), dtype=int)
    for mistake in found["mistakes"]:
        assert mistake["index"] in places and dataset.labels[mistake["index"]] == mistake["true"]
        counted[mistake["true"], mistake["predicted"]] += 1
    assert (counted == confusion * (1 - np.eye(7, dtype=int))).all(), "they are the matrix's"
    sure = [mistake["probability"] for mistake in found["mistakes"]]
    assert sure == sorted(sure, reverse=True) and sure[0] <= 1
    assert found["fingerprint"] == dataset.info.fingerprint


def test_faces_are_the_pixels_of_the_data_set(winner: Candidate) -> None:
    from PIL import Image

    faces = worst_faces(winner, count=5)  # starts the process
    assert len(faces) == 5
    mistakes = json.loads((trial_folder("s", "0") / "mistakes.json").read_text())["mistakes"]
    for face, mistake in zip(faces, mistakes, strict=False):
        image = Image.open(io.BytesIO(base64.b64decode(face.source.partition(",")[2])))
        assert (np.asarray(image) == open_dataset("tiny").images[mistake["index"]]).all()
        assert (face.true, face.predicted) == (CLASSES[mistake["true"]], CLASSES[mistake["predicted"]])


def test_a_model_that_cannot_be_read(winner: Candidate) -> None:
    path = trial_folder("s", "0") / "best.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="no model can be loaded"):
        write_mistakes(path.parent)


def test_faces_of_a_model_that_is_elsewhere(winner: Candidate) -> None:
    elsewhere = dataclasses.replace(winner, sweep="gone")
    with pytest.raises(FersweepError, match="its model is not here"):
        worst_faces(elsewhere)


def test_faces_of_data_that_has_changed_since(winner: Candidate) -> None:
    path: Path = write_mistakes(trial_folder("s", "0"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "0" * 64}))
    with pytest.raises(DataError, match="no longer the one"):
        worst_faces(winner)
