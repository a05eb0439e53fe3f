"""What a trial's process does for itself before it trains."""

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from fer_sweep.worker.own_process import keep_freed_memory


def page_faults(keep: bool) -> int:
    """How many it takes to allocate and free a block of 64 MiB five times."""
    if keep:
        keep_freed_memory()
    len(b"x" * 2**26)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        len(b"x" * 2**26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_not_asked_of_the_kernel_again() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        usual, kept = (process.submit(page_faults, keep).result() for keep in (False, True))
    assert kept < 100  # a page is 4 KiB: 16,384 of them in every block
    assert usual > 16_384
