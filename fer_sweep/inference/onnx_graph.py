"""The format ONNX: one graph from grey values to logits, normalisation included, for any batch size.

It uses torch's newer exporter (torch.export); the older one is deprecated since torch 2.9.
"""

import copy
import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError

from fer_sweep.errors import FersweepError, InputError
from fer_sweep.models.vit import ViT
from fer_sweep.training.examination import Examinee

LIBRARY, PACKAGES = "onnx", ("torch", "onnx", "onnxruntime")
_GRAPH = "model.onnx"
USE = """\
```python
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
face = Image.open("face.png").convert("L").resize(({{ spec.width }}, {{ spec.height }}), Image.Resampling.BILINEAR)
(logits,) = session.run(["logits"], {"pixels": np.asarray(face)[None, None]})
```

The input `pixels` is uint8 of shape (batch, 1, {{ spec.height }}, {{ spec.width }}), with grey values from 0 to 255;
the graph normalises them. It accepts no floats, so that values from 0 to 1 cannot be passed by mistake.
"""


class _Raw(nn.Module):
    """Raw values (B, C, H, W) uint8 to logits (B, K)."""

    def __init__(self, examinee: Examinee) -> None:
        super().__init__()
        self.mean, self.std = examinee.pixel_mean, examinee.pixel_std
        self.model = copy.deepcopy(examinee.model).to(memory_format=torch.contiguous_format)
        if isinstance(self.model, ViT):
            # Our attention depends on the batch size, which a graph with a dynamic batch cannot.
            self.model.transformer.set_attn_implementation("eager")

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model((pixels.float() - self.mean) / self.std)
        return logits


def write(examinee: Examinee, folder: Path) -> None:
    """Write model.onnx.

    Raises:
        InputError: A package for ONNX is not installed.
        FersweepError: torch cannot export the model.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} not installed", hint="pip install 'fersweep[onnx]'")
    example = torch.zeros(2, *examinee.spec.shape, dtype=torch.uint8)  # a batch of one would fix the batch size
    try:
        with warnings.catch_warnings():
            # torch 2.11 warns about its own use of LeafSpec; the check of the logits decides.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Raw(examinee).eval(),
                (example,),
                dynamo=True,
                input_names=["pixels"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except OnnxExporterError as error:
        raise FersweepError(
            f"torch {torch.__version__} cannot export this model to ONNX: {error}",
            hint="try other versions of torch, onnx and onnxscript, or use --format safetensors",
        ) from error
    assert program is not None  # with dynamo=True
    for node in program.model.graph.all_nodes():
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)  # it names folders of this machine
    program.model.metadata_props["classes"] = json.dumps(examinee.spec.classes)
    program.save(folder / _GRAPH)


def logits(folder: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (n, K) of raw values (n, C, H, W) by onnxruntime, the first image alone and the others in one batch."""
    import onnxruntime  # optional

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns if it finds no GPU
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / _GRAPH, options, providers=["CPUExecutionProvider"])
    parts = [session.run(["logits"], {"pixels": part})[0] for part in (pixels[:1], pixels[1:]) if len(part)]
    found: npt.NDArray[np.float32] = np.concatenate(parts)
    return found
