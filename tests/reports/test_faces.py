"""What a model gets most wrong, as the process writes it down and the report draws it."""

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from fer_sweep.config.trial import parse_trial
from fer_sweep.data.cache import Split, open_dataset
from fer_sweep.errors import CheckpointError, DataError, FersweepError
from fer_sweep.files import trial_folder
from fer_sweep.records import CLASSES, TrialRecord, TrialState
from fer_sweep.reports.faces import worst_faces
from fer_sweep.selection import Candidate
from fer_sweep.training.loop import train
from fer_sweep.training.mistakes import write_mistakes
from tests.support.scripted_search import TINY


@pytest.fixture
def winner(tiny_data: str) -> Candidate:
    """A trial that was trained, with its folder where a sweep's trials are."""
    config = parse_trial({**TINY, "data": tiny_data})
    result = train(config, trial_folder("s", "0")).result
    assert result is not None
    values = config.model_dump(mode="json")
    return Candidate("s", TrialRecord("0", TrialState.COMPLETE, values, values, result=result), result)


def test_the_surest_mistakes_first_as_many_as_the_result_says_with_the_pixels_of_the_data(winner: Candidate) -> None:
    faces = worst_faces(winner, count=5)  # starts the process
    found = json.loads((trial_folder("s", "0") / "mistakes.json").read_text())
    mistakes, confusion, dataset = found["mistakes"], np.array(winner.result.confusion_matrix), open_dataset("tiny")
    assert found["fingerprint"] == dataset.info.fingerprint
    assert found["validation"] == confusion.sum() == 70
    assert found["wrong"] == len(mistakes)
    counted = np.zeros((7, 7), dtype=int)
    for mistake in mistakes:
        assert mistake["index"] in dataset.indices(Split.VAL) and dataset.labels[mistake["index"]] == mistake["true"]
        counted[mistake["true"], mistake["predicted"]] += 1
    assert (counted == confusion * (1 - np.eye(7, dtype=int))).all(), "they are the matrix's"
    sure = [mistake["probability"] for mistake in mistakes]
    assert sure == sorted(sure, reverse=True) and sure[0] <= 1
    for face, mistake in zip(faces, mistakes[:5], strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(face.source.partition(",")[2])))
        assert (np.asarray(image) == dataset.images[mistake["index"]]).all()
        assert (face.true, face.predicted) == (CLASSES[mistake["true"]], CLASSES[mistake["predicted"]])


def test_no_faces_of_changed_data_of_a_damaged_model_or_of_one_elsewhere(winner: Candidate) -> None:
    path = write_mistakes(trial_folder("s", "0"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "0" * 64}))
    with pytest.raises(DataError, match="no longer the one"):
        worst_faces(winner)
    weights = trial_folder("s", "0") / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="no model can be loaded"):
        write_mistakes(weights.parent)
    with pytest.raises(FersweepError, match="its model is not here"):
        worst_faces(dataclasses.replace(winner, sweep="gone"))
