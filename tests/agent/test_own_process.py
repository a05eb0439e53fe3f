"""What a trial's process does for itself before it trains."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
from fer_sweep.agent.own_process import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    return len(b"x" * 2**26)

if {keep}:
    keep_freed_memory()
step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_not_asked_of_the_kernel_again() -> None:
    def faults(keep: bool) -> int:
        code = FAULTS.format(keep=keep)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert faults(keep=True) < 100  # a page is 4 KiB: 16,384 of them in every block of 64 MiB
    assert faults(keep=False) > 16_384
