"""What a forkserver, a spare and `fersweep train` import first, so that a trial starts as fast as a function call.

The architectures that a sweep can ask for are preloaded beside it: torchvision and transformers take 2.5 s and 250 MB,
which a sweep of CNNs does not need. Importing any of these touches no GPU and starts no thread: a process that has
done either cannot be forked safely.
"""

import importlib
import os

# transformers asks whether CUDA is there; asked through NVML the answer leaves the driver uninitialised.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# numpy's OpenBLAS starts its threads on import. Training does no linear algebra in numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# GNU OpenMP's threads spin while they wait for each other. If another process runs on one of their cores, they spin for
# milliseconds: beside one such process on two cores, DeeperCNN trained at less than half of its speed.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Also what every trial imports later: the first backward pass nested tensors, the data the modules of numpy.
for _name in (
    "torch",
    "torch.nested._internal.nested_tensor",
    "numpy.ma",
    "numpy.ctypeslib",
    "fer_sweep.data.cache",
    "fer_sweep.data.synthetic",
    "fer_sweep.training.loop",
):
    importlib.import_module(_name)
