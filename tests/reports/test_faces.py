"""What a model gets most wrong, as the process writes it down and the report draws it."""

import base64
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_sweep.config.trial import parse_trial
from fer_sweep.data.cache import Split, open_dataset
from fer_sweep.errors import CheckpointError, DataError, FersweepError
from fer_sweep.files import trial_folder
from fer_sweep.records import CLASSES, TrialOutcome, TrialState, Verdict
from fer_sweep.reports.faces import worst_faces
from fer_sweep.selection import Candidate
from fer_sweep.sweeps.choosing import chosen
from fer_sweep.training.examination import write_mistakes
from fer_sweep.training.loop import train
from tests.reports.test_sources import made
from tests.support.scripted_search import TINY
from tests.support.shell import Shell


@pytest.fixture
def winner(tmp_path: Path, tiny_data: str) -> Candidate:
    """The only trial of a sweep, with the model that it trained."""
    result = train(parse_trial({**TINY, "data": tiny_data}), tmp_path / "trained").result
    assert result is not None
    sound = result.model_copy(update={"verdict": Verdict.BALANCED})
    entry = made(tmp_path, [TrialOutcome(TrialState.COMPLETE, sound)], data=tiny_data)
    shutil.copytree(tmp_path / "trained", trial_folder(entry.id, "0"))
    return chosen(entry)


def test_the_surest_mistakes_first_with_the_pixels_of_the_data(winner: Candidate, shell: Shell) -> None:
    faces = worst_faces(winner)  # starts the process
    found = json.loads((trial_folder(winner.sweep, "0") / "mistakes.json").read_text())
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
    for face, mistake in zip(faces[:5], mistakes[:5], strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(face.source.partition(",")[2])))
        assert (np.asarray(image) == dataset.images[mistake["index"]]).all()
        assert (face.true, face.predicted) == (CLASSES[mistake["true"]], CLASSES[mistake["predicted"]])
    shell.json("report", "--faces", "-o", "r.html")
    assert Path("r.html").read_text().count("<img") == min(24, len(mistakes))


def test_no_faces_of_changed_data_of_a_damaged_model_or_of_one_elsewhere(winner: Candidate) -> None:
    path = write_mistakes(trial_folder(winner.sweep, "0"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "0" * 64}))
    with pytest.raises(DataError, match="has changed"):
        worst_faces(winner)
    weights = trial_folder(winner.sweep, "0") / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="cannot load a model"):
        write_mistakes(weights.parent)
    with pytest.raises(FersweepError, match="model not found"):
        worst_faces(dataclasses.replace(winner, sweep="gone"))
