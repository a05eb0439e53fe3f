"""A bound on the memory that reading somebody else's file may take.

Sizes that an archive or a table states are checked before it is read; but a library may take gigabytes for what a
hundred bytes only imply, such as one large value that a parquet file repeats by its number in a dictionary.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

MAX_MEMORY = 4 << 30
"""Bytes beyond what the process has already. FER2013 takes a tenth of it in its largest form."""


@contextlib.contextmanager
def bounded_memory(limit: int = MAX_MEMORY) -> Iterator[None]:
    """Let the block, in all threads, take so many bytes more than the process has; beyond that is a MemoryError.

    Linux only, where the kernel holds a process to a limit on its data; elsewhere nothing happens.
    """
    taken = _taken()
    if taken is None:
        yield
        return
    import resource  # does not exist on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [bound for bound in (soft, hard, taken + limit) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _taken() -> int | None:
    """Bytes of data this process has mapped; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = next((line.split()[1] for line in status.splitlines() if line.startswith("VmData:")), None)
    return None if found is None else int(found) << 10
