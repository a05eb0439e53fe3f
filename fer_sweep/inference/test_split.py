"""``fersweep test``: evaluates one chosen model on the test split, once."""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import fingerprint_of_test
from fer_sweep.errors import InputError
from fer_sweep.inference.loading import load_model
from fer_sweep.openings import Opening, one_at_a_time, openings_of, write_down
from fer_sweep.records import Averaging, Examination
from fer_sweep.training.examination import examine, open_if_here
from fer_sweep.training.weights import weights_in


@dataclass(frozen=True)
class Report:
    """The result of a test."""

    examination: Examination
    opening: Opening
    before: Sequence[Opening]
    """Earlier openings of the same test images, for any model."""
    is_official: bool
    """Whether the images are FER2013's PrivateTest."""


def open_test_split(
    folder: Path,
    *,
    name: str,
    log_folder: Path,
    averaging: Averaging = Averaging.NONE,
    data: str | None = None,
    again: bool = False,
    device: str = "auto",
    threads: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Evaluate a trained model, which ``load_model`` finds, on a test split, once.

    Args:
        name: The model's name in the record.
        log_folder: Where the opening is recorded, besides home and data cache.
        averaging: The views that predictions are averaged over.
        data: The data set whose test split is opened; None for the one it was trained on.
        again: Open it although it was opened before.
        say: Called with notes.

    Raises:
        InputError: The split has been opened before, and ``again`` is off.
        CheckpointError: The model differs from the trained one; the split was not opened.
        DataError: The data set is not prepared, or has no test images.
        StorageError: The opening cannot be recorded, so its result is not shown.
    """
    examinee = load_model(folder, device=device, threads=threads)
    trained_on = open_if_here(examinee.config.data)
    dataset = open_dataset(data or examinee.config.data)
    if trained_on is None:
        say(
            f"note: data set {examinee.config.data}, which it was trained on, is not prepared: the model is not checked"
        )
    split = fingerprint_of_test(dataset)
    with one_at_a_time():
        before = openings_of(split)
        if before and not again:
            raise _refusal(before[-1], len(before))
        examination = examine(examinee, dataset, averaging, trained_on)
        opening = Opening(
            id=secrets.token_hex(8),
            opened=time.time(),
            model=name,
            weights=hashlib.sha256(weights_in(folder).read_bytes()).hexdigest(),
            data=dataset.name,
            fingerprint=dataset.info.fingerprint,
            test_fingerprint=split,
            averaging=averaging,
            images=examination.images,
            right=examination.right,
            again=bool(before),
        )
        write_down(opening, log_folder)
    return Report(examination, opening, before, dataset.info.official_split)


def _refusal(last: Opening, count: int) -> InputError:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.opened))
    times = "once" if count == 1 else f"{count} times"
    return InputError(
        f"the test split of {last.data} was opened {times} already, last on {when}: {last.words}",
        hint="a second opening makes it a validation split; --again opens it nevertheless, and records that",
    )
