"""What a forkserver imports once, so that a forked trial starts training at the price of a function call.

Importing this module touches no GPU and starts no thread: a process that has done either cannot be forked safely.
"""

import importlib
import os

# transformers asks whether CUDA is there; asked through NVML the answer leaves the driver uninitialised.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# numpy's OpenBLAS starts its threads on import. Training does no linear algebra in numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

for _name in (
    "torch",
    "torchvision.models",
    "torchvision.ops",
    "transformers.models.vit.modeling_vit",
    "fer_sweep.data.cache",
    "fer_sweep.models.simple_cnn",
    "fer_sweep.models.deeper_cnn",
    "fer_sweep.models.resnet18",
    "fer_sweep.models.vit",
    "fer_sweep.training.loop",
):
    importlib.import_module(_name)
