"""The format safetensors: the weights, for fersweep and for code that builds the network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from fer_sweep.inference.export import logits_of
from fer_sweep.training.examination import Examinee, load_examinee
from fer_sweep.training.weights import EXPORTED

LIBRARY, PACKAGES = "fersweep", ("torch",)
USE = """\
`fersweep predict face.png --folder .` in this folder, or in Python:

```python
from pathlib import Path

import torch
from fer_sweep.training.examination import load_examinee

trained = load_examinee(Path("."), torch.device("cpu"))
faces = torch.zeros(1, 1, {{ spec.height }}, {{ spec.width }})  # grey values, 0 to 255
logits = trained.model((faces - trained.pixel_mean) / trained.pixel_std)
```
"""


def write(examinee: Examinee, folder: Path) -> None:
    """Write model.safetensors, with the same metadata as a trial's best.safetensors."""
    about: dict[str, Any] = {
        "config": examinee.config.model_dump(),
        "val_acc": examinee.val_acc,
        "spec": examinee.spec.model_dump(mode="json"),
        "pixel_mean": examinee.pixel_mean,
        "pixel_std": examinee.pixel_std,
    }
    if examinee.fingerprint is not None:
        about["data"] = examinee.fingerprint
    weights = {name: tensor.contiguous() for name, tensor in examinee.model.state_dict().items()}
    save_file(weights, folder / EXPORTED, metadata={"fersweep": json.dumps(about)})


def logits(folder: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (n, K) of raw values (n, C, H, W) by an exported model."""
    return logits_of(load_examinee(folder, torch.device("cpu")), pixels)
