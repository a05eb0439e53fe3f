"""Causes of failed attempts, classified by message: the libraries share no exception classes."""

from fer_sweep.records import Cause

_ONEDNN_OOM = ("could not create a primitive", "could not execute a primitive")
"""oneDNN's only messages if there is no memory for a convolution's generated code or scratch space."""
_OOM = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "ALLOC_FAILED", *_ONEDNN_OOM)
_DEVICE = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "NCCL error", "No CUDA GPUs are available")
_OWN_FAULT = "device-side assert"
"""A CUDA error that the trial's own numbers cause, on any GPU."""


def cause_of(error: Exception) -> Cause | None:
    """The cause of an error in training, if that is memory or the GPU and not the configuration."""
    message = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or mentions_memory(message):
        return Cause.OUT_OF_MEMORY
    if _OWN_FAULT in message:
        return None
    return Cause.DEVICE if any(word in message for word in _DEVICE) else None


def described(error: Exception) -> str:
    """An error's type and message, explained where the message is obscure."""
    message = f"{type(error).__name__}: {error}"
    return f"out of memory, most likely: {message}" if any(word in message for word in _ONEDNN_OOM) else message


def mentions_memory(text: str) -> bool:
    """Whether a library's last message says that memory ran out."""
    return any(word.lower() in text.lower() for word in _OOM)
