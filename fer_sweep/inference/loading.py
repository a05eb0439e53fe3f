"""A trained model, loaded into this process."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fer_sweep.worker.slots import one_slot

if TYPE_CHECKING:
    from fer_sweep.training.examination import Examinee


def load_model(folder: Path, *, device: str = "cpu", threads: int | None = None) -> "Examinee":
    """Load a trained model, for evaluation on a device.

    Args:
        folder: Of a trial or an export, with weights and config.json.
        device: ``auto``, ``cpu``, ``mps``, or a GPU's number or UUID.
        threads: CPU threads; None for all cores.

    Raises:
        InputError: There is no such device, or there are not so many cores.
        DeviceMissing: torch cannot use the GPU.
        CheckpointError: The model cannot be loaded.
    """
    slot = one_slot(device, threads)
    os.environ.update(slot.environment)
    import torch  # only here: the command line must not import torch

    from fer_sweep.training.devices import check_device
    from fer_sweep.training.examination import load_examinee

    torch.set_num_threads(threads or slot.threads)
    place = torch.device(slot.device)
    check_device(place)
    return load_examinee(folder, place)
