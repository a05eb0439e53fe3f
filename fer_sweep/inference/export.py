"""``fersweep export``: a trained model in another format, checked before it takes its place."""

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
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    checked_on: int
    """Validation images that the export gave the trained model's logits for."""
    largest_difference: float
    """Of two logits among those."""
    tolerance: float
    """What it may be, as a share of the largest logit or of 1."""


def export_model(
    folder: Path,
    target: Path,
    format: ExportFormat,
    *,
    name: str,
    data: str | None = None,
    threads: int | None = None,
) -> Exported:
    """Write a trained model in another format, with a card that says what it is.

    Args:
        folder: The trial's, with its weights and config.json.
        target: The folder to write; there must be nothing there.
        format: Which files.
        name: What the card calls the model.
        data: The data set on whose validation images it is checked; None for the one it was trained on.
        threads: CPU threads; None for all cores.

    Raises:
        InputError: There is something at ``target``, the architecture has no such format, or a package is missing.
        CheckpointError: The model cannot be loaded, or is not what its training made.
        DataError: The data set is not prepared, or has no validation images.
        StorageError: The folder cannot be written.
        FersweepError: What was written gives other logits than the model; there is nothing at ``target``.
    """
    slot = one_slot("cpu", threads)
    os.environ.update(slot.environment)
    import torch  # only here: agent/ meets torch where something is trained, evaluated or exported

    from fer_sweep.data.cache import open_dataset
    from fer_sweep.inference.card import Card
    from fer_sweep.inference.folder import write_folder
    from fer_sweep.inference.reference import TOLERANCE
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
        openings=_looks_at_the_test(weights_in(folder)),
    )
    checked = write_folder(examinee, card, format, dataset, target)
    files = tuple(sorted(path.name for path in target.iterdir()))
    return Exported(target, files, checked.images, checked.largest_difference, TOLERANCE)


def _result(folder: Path) -> TrialResult | None:
    # Of a trial, or of something that was exported already.
    values = read_object(folder / "result.json") or read_object(folder / "config.json").get("result")
    with contextlib.suppress(ValueError):
        return TrialResult.model_validate(values)
    return None


def _looks_at_the_test(weights: Path) -> list[Opening]:
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{weights} cannot be read: {error.strerror}") from error
    return [opening for opening in openings_in(home()) if opening.weights == digest]
