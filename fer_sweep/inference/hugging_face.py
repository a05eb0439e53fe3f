"""The format huggingface: a ViT for transformers' Auto classes, image processor included.

transformers' own classes load a ViT with patches and a class token. For another stem or pooling it has no class, so the
export holds a copy of ours, models/fersweep_vit.py, which it loads with trust_remote_code=True.

Their image processor reads RGB, our model has one channel. The first layer is linear, so its weights are multiplied by
the shares of red, green and blue in grey (ITU-R 601, as in Pillow), which gives the same output for RGB input.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTImageProcessor
from transformers.utils import logging as hf_logging

from fer_sweep.errors import FersweepError, InputError
from fer_sweep.models.fersweep_vit import FersweepViTConfig, FersweepViTForImageClassification
from fer_sweep.models.vit import ViT
from fer_sweep.training.examination import Examinee

_GREY = torch.tensor([19595, 38470, 7471]) / 65536
"""Shares of red, green and blue in Pillow's grey; their sum is 1, so grey pictures are unchanged."""
LIBRARY, PACKAGES = "transformers", ("torch", "transformers")
USE = """\
{% set own = config.model == "vit" and (config.stem != "patch" or config.pool != "cls") %}
{% set trust = ", trust_remote_code=True" if own else "" %}
{% if own %}
transformers has no class of its own for a ViT with stem {{ config.stem | code }} and pool {{ config.pool | code }}.
This folder holds one in `fersweep_vit.py`, which needs torch and transformers only. `trust_remote_code=True` runs that
file: read it first.

{% endif %}
```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained(".")
model = AutoModelForImageClassification.from_pretrained("."{{ trust }}).eval()
inputs = processor(Image.open("face.png"), return_tensors="pt")
with torch.inference_mode():
    print(model.config.id2label[int(model(**inputs).logits.argmax())])
```

`transformers.pipeline("image-classification", "."{{ trust }})` works too.
Pictures may be grey or in colour; the first layer converts colours to grey.
"""


def write(examinee: Examinee, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json; where needed, also fersweep_vit.py.

    Raises:
        InputError: The model is not a ViT.
    """
    model = examinee.model
    if not isinstance(model, ViT):
        raise InputError(
            f"--format huggingface is for vit, and this model is {examinee.config.model}",
            hint="use --format safetensors or --format onnx",
        )
    if isinstance(model.transformer, FersweepViTForImageClassification):
        # save_pretrained then copies the module and names its classes in config.json.
        FersweepViTConfig.register_for_auto_class()  # type: ignore[no-untyped-call] # transformers leaves it untyped
        kind = type(model.transformer)
        kind.register_for_auto_class("AutoModelForImageClassification")  # type: ignore[no-untyped-call] # as above
    names = dict(enumerate(examinee.spec.classes))
    grey = model.transformer.config
    config = type(grey).from_dict(
        {
            **grey.to_dict(),
            "num_channels": len(_GREY),
            "id2label": names,
            "label2id": {name: code for code, name in names.items()},
        }
    )
    weights = model.transformer.state_dict()
    convolutions = (name for name, part in model.transformer.named_modules() if isinstance(part, nn.Conv2d))
    first = f"{next(convolutions)}.weight"
    weights[first] = weights[first] * _GREY[None, :, None, None]
    coloured = type(model.transformer)(config)
    coloured.load_state_dict(weights)
    processor = ViTImageProcessor(
        do_convert_rgb=True,
        do_resize=True,
        size={"height": model.input_size[0], "width": model.input_size[1]},
        resample=Image.Resampling.BILINEAR,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[examinee.pixel_mean / 255] * len(_GREY),
        image_std=[examinee.pixel_std / 255] * len(_GREY),
    )
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # transformers leaves it untyped
    coloured.save_pretrained(folder)
    processor.save_pretrained(folder)


@torch.inference_mode()
def logits(folder: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (n, K) of grey values (n, 1, H, W) by an export, loaded with transformers' Auto classes.

    Raises:
        FersweepError: The image processor resizes images differently than the training did.
    """
    load = AutoImageProcessor.from_pretrained
    processor = load(folder, local_files_only=True)  # type: ignore[no-untyped-call] # transformers leaves it untyped
    # By its class, where it has ours: AutoModel would leave a copy of it in the user's cache at each export.
    is_ours = (folder / "fersweep_vit.py").exists()
    kind: Any = FersweepViTForImageClassification if is_ours else AutoModelForImageClassification
    model = kind.from_pretrained(folder, local_files_only=True).eval()
    inputs: torch.Tensor = processor([Image.fromarray(face[0]) for face in pixels], return_tensors="pt")["pixel_values"]
    size = (processor.size["height"], processor.size["width"])
    if size != pixels.shape[-2:]:
        # A ViT pretrained at another size: Pillow rounds to whole grey levels, torch does not.
        mean, std = 255 * processor.image_mean[0], 255 * processor.image_std[0]
        ours = (torch.from_numpy(pixels).float() - mean) / std
        ours = functional.interpolate(ours, size=size, mode="bilinear", align_corners=False, antialias=True)
        if not float((inputs - ours).abs().max()) <= 1.01 / std:
            raise FersweepError(
                "Hugging Face's image processor resizes faces differently than the training did; nothing was written",
                hint="take --format safetensors or --format onnx",
            )
        inputs = ours.expand(-1, len(_GREY), -1, -1)
    found: npt.NDArray[np.float32] = model(pixel_values=inputs).logits.float().numpy()
    return found
