"""A bound on the memory that one untrusted source may take while it is read."""

import contextlib
import sys
from collections.abc import Iterator

import psutil

from fer_sweep.data.tree import hostile

MAX_MEMORY = 4 << 30
"""Bytes beyond what the process has already. FER2013 takes a tenth of it in its largest form."""


@contextlib.contextmanager
def bounded_memory(source: str) -> Iterator[None]:
    """Raise DataError where the block takes over MAX_MEMORY bytes more than the process has. Linux only.

    Stated sizes are checked before reading; but a library may take gigabytes for what a hundred bytes imply. The block
    must start no thread: where memory is short, a C library's thread cannot report it, and ends the process.
    """
    if sys.platform == "linux":
        import resource  # does not exist on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = psutil.Process().memory_info().data + MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (bound if soft == resource.RLIM_INFINITY else min(soft, bound), hard))
        try:
            yield
        except MemoryError:
            raise hostile(source, f"reading it takes over {MAX_MEMORY >> 30} GiB of memory") from None
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    else:
        yield
