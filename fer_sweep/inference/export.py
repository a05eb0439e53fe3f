"""``fersweep export``: a trained model in another format, checked before it is put in place."""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from fer_sweep.errors import CheckpointError
from fer_sweep.files import home, read_object
from fer_sweep.openings import Opening, openings_in
from fer_sweep.records import ExportFormat, TrialResult
from fer_sweep.worker.slots import one_slot


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    folder: Path
    files: tuple[str, ...]
    checked_on: int
    """Number of validation images it was checked on."""
    largest_difference: float
    """Largest difference of a logit from the trained model's."""
    tolerance: float
    """Allowed difference, relative to the largest logit or 1."""


def export_model(
    folder: Path,
    target: Path,
    format: ExportFormat,
    *,
    name: str,
    data: str | None = None,
    threads: int | None = None,
) -> Exported:
    """Write a trained model in another format, with a model card.

    Args:
        folder: The trial's folder, with weights and config.json.
        target: The folder to write; it must not exist.
        format: The format.
        name: The model's name on its card.
        data: The data set with the validation images for the check; None for the one it was trained on.
        threads: CPU threads; None for all cores.

    Raises:
        InputError: ``target`` exists, the architecture has no such format, or a package is not installed.
        CheckpointError: The model cannot be loaded, or differs from the trained one.
        DataError: The data set is not prepared, or has no validation images.
        StorageError: The folder cannot be written.
        FersweepError: The export gives other logits than the model; ``target`` is not created.
    """
    slot = one_slot("cpu", threads)
    os.environ.update(slot.environment)
    import torch  # only here: the command line must not import torch

    from fer_sweep.data.cache import open_dataset
    from fer_sweep.inference.card import Card
    from fer_sweep.inference.folder import TOLERANCE, write_folder
    from fer_sweep.training.examination import check_on_validation, load_examinee, weights_in

    torch.set_num_threads(threads or slot.threads)
    examinee = load_examinee(folder, torch.device("cpu"))
    dataset = open_dataset(data or examinee.config.data)
    is_own = dataset.name == examinee.config.data
    if is_own:
        check_on_validation(examinee, dataset)
    card = Card(
        name=name,
        config=examinee.config,
        data=dataset.info if is_own else None,
        result=_result(folder),
        openings=_openings(weights_in(folder)),
    )
    images, difference = write_folder(examinee, card, format, dataset, target)
    files = tuple(sorted(path.name for path in target.iterdir()))
    return Exported(target, files, images, difference, TOLERANCE)


def _result(folder: Path) -> TrialResult | None:
    # Of a trial, or of an export.
    values = read_object(folder / "result.json") or read_object(folder / "config.json").get("result")
    with contextlib.suppress(ValueError):
        return TrialResult.model_validate(values)
    return None


def _openings(weights: Path) -> list[Opening]:
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{weights} cannot be read: {error.strerror}") from error
    return [opening for opening in openings_in(home()) if opening.weights == digest]
