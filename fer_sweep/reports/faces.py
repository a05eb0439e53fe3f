"""The faces that a model gets most wrong: found by a process that may load torch, read from the data cache.

They are images of the data set, whose licence may forbid sharing them, so the report embeds them only on request.
"""

import base64
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_sweep.data.cache import open_dataset
from fer_sweep.errors import DataError, FersweepError
from fer_sweep.files import WEIGHTS, read_json, trial_folder
from fer_sweep.formatting import percent
from fer_sweep.selection import Candidate

_SHOWN = 24
_LONGEST_S = 600


@dataclass(frozen=True)
class Face:
    """A validation image that was assigned to another class."""

    source: str
    """A PNG as a data URI."""
    true: str
    predicted: str
    share: str
    """The probability of the predicted class, in percent."""


def worst_faces(winner: Candidate) -> list[Face]:
    """The wrong predictions on validation images that a trial's best model was most sure of.

    Raises:
        FersweepError: The model is not on this host, or cannot be evaluated.
        DataError: The data set is not the one it was evaluated on.
    """
    folder = trial_folder(winner.sweep, winner.record.trial_id)
    weights, path = folder / WEIGHTS, folder / "mistakes.json"
    if not weights.is_file():
        raise FersweepError(f"model not found: no {WEIGHTS} in {folder}", hint="run this where it was trained")
    if not path.is_file() or path.stat().st_mtime < weights.stat().st_mtime:
        _evaluate(folder)
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise FersweepError(f"{path} cannot be read: {error}", hint="delete it; it is written again") from error
    data, dataset = found["data"], open_dataset(found["data"])
    if dataset.info.fingerprint != found["fingerprint"]:
        raise DataError(f"data set {data} has changed since {path} was written", hint="delete it; it is written again")
    names = dataset.info.spec.classes
    return [
        Face(_png(dataset.images[m["index"]]), names[m["true"]], names[m["predicted"]], percent(m["probability"], 0))
        for m in found["mistakes"][:_SHOWN]
    ]


def _evaluate(folder: Path) -> None:
    # A process of its own: reports must never import torch. It writes mistakes.json.
    command = [sys.executable, "-m", "fer_sweep.training.examination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FersweepError(f"the model could not be evaluated: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise FersweepError(f"the model could not be evaluated: {said[-1][:500]}")


def _png(image: npt.NDArray[np.uint8]) -> str:
    from PIL import Image  # only here: nothing else of a report needs it

    stream = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
