"""Evaluate a trained model: load it, check it on the validation images, predict, test, list its mistakes.

``python -m fer_sweep.training.examination FOLDER`` lists them, for callers that must not import torch.

Ten-crop is what the literature on FER2013 averages over: 44x44 crops of the four corners and the centre, and their
mirror images. Models there are trained on 44x44; ours take the whole 48x48, so a crop is scaled up by a factor of 1.09:
well inside what a model saw in augmented training.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import FaceDataset, Split, positions_of_test
from fer_sweep.errors import CheckpointError, DataError, FersweepError
from fer_sweep.files import write_atomically
from fer_sweep.records import Averaging, Examination
from fer_sweep.training.evaluation import accuracy, confusion_matrix, forward, scores
from fer_sweep.training.precision import Precision, choose_precision
from fer_sweep.training.weights import Trained, load_trained, weights_in

CROP = 44 / 48
"""Side of a crop over that of the image."""
TOLERANCE = 0.01
"""By how much the accuracy on the validation images may differ from what the training measured: another device or
precision decides some close calls the other way."""
MISTAKES = "mistakes.json"
KEPT = 100
"""Mistakes written down, the surest first."""
_BATCH = 256


@dataclass(frozen=True)
class Examinee(Trained):
    """A trained model, ready to be evaluated."""

    model: nn.Module
    """In evaluation mode, on its device."""
    device: torch.device
    precision: Precision


def load_examinee(folder: Path, device: torch.device) -> Examinee:
    """Load the best weights of a trial from its folder or an export; their file describes the model, too.

    Raises:
        CheckpointError: The file is missing or damaged.
        WeightsUnavailable: The architecture's description comes from a hub that is out of reach.
    """
    trained, model = load_trained(weights_in(folder), device)
    return Examinee(**vars(trained), model=model, device=device, precision=choose_precision(trained.config, device))


def check_data(examinee: Examinee, dataset: FaceDataset) -> None:
    """Check that a data set is the one that a model was trained on, if the model says so.

    Raises:
        CheckpointError: Its name was given to other content.
    """
    found = dataset.info.fingerprint
    if examinee.fingerprint not in (None, found):
        raise CheckpointError(
            f"the model was trained on data set {dataset.name} with content {str(examinee.fingerprint)[:12]}; "
            f"by now that name is given to {found[:12]}, from {dataset.info.source}",
            hint="nothing was done with it; prepare the data it was trained on again: fersweep data prepare PATH "
            f"--name {dataset.name} --replace",
        )


def check_on_validation(examinee: Examinee, dataset: FaceDataset, averaging: Averaging = Averaging.NONE) -> float:
    """Check that a model has the accuracy that its training measured, on the data set that it was trained on.

    Returns:
        Its accuracy on the validation images with ``averaging``, in [0, 1].

    Raises:
        CheckpointError: It differs by more than TOLERANCE, and by more than a single image, or the data is other data.
    """
    check_data(examinee, dataset)
    positions = dataset.indices(Split.VAL)
    labels = dataset.labels[positions]
    plain = accuracy(labels, predict(examinee, dataset.images, positions, Averaging.NONE))
    if abs(plain - examinee.val_acc) > max(TOLERANCE, 1.5 / len(positions)):
        raise CheckpointError(
            f"the model gets {plain:.2%} of the validation images of {dataset.name} right, and its training measured "
            f"{examinee.val_acc:.2%}: weights or data are not those of the training",
            hint="nothing was done with it; prepare the data it was trained on again, or train the model again",
        )
    if averaging is Averaging.NONE:
        return plain
    return accuracy(labels, predict(examinee, dataset.images, positions, averaging))


def examine(
    examinee: Examinee, dataset: FaceDataset, averaging: Averaging, trained_on: FaceDataset | None
) -> Examination:
    """Evaluate a model on the test split. Only here, and nowhere else in fersweep, are its images shown to a model.

    ``trained_on`` is the data set the model was trained on, to be checked first; None if it is not prepared here.

    Raises:
        CheckpointError: The model is not what its training made; the test split was not opened.
        DataError: There are no test images.
    """
    positions = positions_of_test(dataset)
    val_acc = None if trained_on is None else check_on_validation(examinee, trained_on, averaging)
    labels, predictions = dataset.labels[positions], predict(examinee, dataset.images, positions, averaging)
    clean = ~_copies(dataset, positions, trained_on or dataset)
    confusion = confusion_matrix(labels, predictions, len(examinee.spec.classes))
    macro_f1, recall = scores(confusion)
    return Examination(
        averaging=averaging,
        images=len(labels),
        right=int((labels == predictions).sum()),
        clean_images=int(clean.sum()),
        clean_right=int((labels == predictions)[clean].sum()),
        macro_f1=macro_f1,
        per_class_recall=recall,
        confusion_matrix=confusion,
        classes=examinee.spec.classes,
        precision=examinee.precision,
        val_acc=val_acc,
    )


def predict(
    examinee: Examinee, images: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64], averaging: Averaging
) -> npt.NDArray[np.int64]:
    """The classes (n,) predicted for the images (N, *stored_shape) at ``positions`` (n,)."""
    found: npt.NDArray[np.int64] = probabilities(examinee, images, positions, averaging).argmax(axis=1)
    return found


@torch.inference_mode()
def probabilities(
    examinee: Examinee, images: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64], averaging: Averaging
) -> npt.NDArray[np.float32]:
    """The probabilities (n, K) of the classes for the images (N, *stored_shape) at ``positions`` (n,)."""
    found = []
    for start in range(0, len(positions), _BATCH):
        part = torch.from_numpy(images[positions[start : start + _BATCH]]).to(examinee.device)
        batch = part.view(-1, *examinee.spec.shape).float().sub_(examinee.pixel_mean).div_(examinee.pixel_std)
        seen = [forward(examinee.model, view, examinee.precision).softmax(dim=1) for view in views(batch, averaging)]
        found.append(torch.stack(seen).mean(dim=0).cpu())
    return torch.cat(found).numpy()


def views(batch: Tensor, averaging: Averaging) -> Iterator[Tensor]:
    """What a model is shown of images (B, C, H, W), each of the same shape: 1, 2 or 10 views."""
    shown = _crops(batch) if averaging is Averaging.TENCROP else [batch]
    for view in shown:
        yield view
        if averaging is not Averaging.NONE:
            yield view.flip(-1)


def _crops(batch: Tensor) -> Iterator[Tensor]:
    size = batch.shape[-2:]
    height, width = (round(CROP * side) for side in size)
    down, right = size[0] - height, size[1] - width
    for top, left in ((0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)):
        crop = batch[:, :, top : top + height, left : left + width]
        yield functional.interpolate(crop, size=size, mode="bilinear", align_corners=False)


def open_if_here(name: str) -> FaceDataset | None:
    """A data set, or None if it is not prepared on this host."""
    try:
        return open_dataset(name)
    except DataError:
        return None


def _copies(dataset: FaceDataset, positions: npt.NDArray[np.int64], trained_on: FaceDataset) -> npt.NDArray[np.bool_]:
    """Which images have an exact copy among the training images of another data set, or the same: (n,)."""
    seen = {trained_on.images[position].tobytes() for position in trained_on.indices(Split.TRAIN)}
    return np.array([dataset.images[position].tobytes() in seen for position in positions], dtype=np.bool_)


def write_mistakes(folder: Path) -> Path:
    """Evaluate a trial's best model on the validation split, on the CPU, and write down where it was surest and wrong.

    Returns:
        The file: ``data``, ``fingerprint``, ``validation`` (images looked at), ``wrong`` (of those), and ``mistakes``:
        each with its ``index`` in the data set, the ``true`` class and the ``predicted`` one with its ``probability``.

    Raises:
        CheckpointError: The model cannot be read, or was trained on other content of its data set.
        DataError: Its data set is not prepared on this host.
    """
    examinee = load_examinee(folder, torch.device("cpu"))
    dataset = open_dataset(examinee.config.data)
    check_data(examinee, dataset)
    positions = dataset.indices(Split.VAL)
    found = probabilities(examinee, dataset.images, positions, Averaging.NONE)  # (n, K)
    true, predicted, probability = dataset.labels[positions], found.argmax(axis=1), found.max(axis=1)
    wrong = np.flatnonzero(predicted != true)
    surest = wrong[np.argsort(-probability[wrong], kind="stable")][:KEPT]
    about = {
        "data": dataset.name,
        "fingerprint": dataset.info.fingerprint,
        "validation": len(positions),
        "wrong": len(wrong),
        "mistakes": [
            {
                "index": int(positions[place]),
                "true": int(true[place]),
                "predicted": int(predicted[place]),
                "probability": round(float(probability[place]), 4),
            }
            for place in surest
        ],
    }
    write_atomically(folder / MISTAKES, json.dumps(about, indent=1) + "\n")
    return folder / MISTAKES


def main() -> None:
    """Run as a module: one argument, the trial's folder."""
    try:
        write_mistakes(Path(sys.argv[1]))
    except FersweepError as error:
        sys.exit(f"{error} ({error.hint})" if error.hint else str(error))


if __name__ == "__main__":
    main()
