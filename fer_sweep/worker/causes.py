"""What an attempt broke off from, told by the words of the libraries it met: they have no errors in common."""

from fer_sweep.records import Cause

_WORDS_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "ALLOC_FAILED")
_WORDS_OF_ONEDNN = ("could not create a primitive", "could not execute a primitive")
"""All that oneDNN says where there is no memory for the code it writes for a convolution, or for its scratch space."""
_WORDS_OF_A_DEVICE = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "NCCL error", "No CUDA GPUs are available")
_WORDS_OF_A_MISTAKE = ("device-side assert",)
"""A CUDA error that the trial's own numbers cause, on any GPU."""


def cause_of(error: Exception) -> Cause | None:
    """Whether an error in training is one of memory or of the GPU, and not of the configuration."""
    words = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or speaks_of_memory(words):
        return Cause.OUT_OF_MEMORY
    if any(word in words for word in _WORDS_OF_A_MISTAKE):
        return None
    return Cause.DEVICE if any(word in words for word in _WORDS_OF_A_DEVICE) else None


def in_words(error: Exception) -> str:
    """An error as people see it: its type, what it says, and what that means where it takes knowing to see."""
    words = f"{type(error).__name__}: {error}"
    return f"out of memory, most likely: {words}" if any(said in words for said in _WORDS_OF_ONEDNN) else words


def speaks_of_memory(text: str) -> bool:
    """Whether what a library said at its end is that memory ran out."""
    return any(word.lower() in text.lower() for word in (*_WORDS_OF_MEMORY, *_WORDS_OF_ONEDNN))
