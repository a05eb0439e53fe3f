"""Telling the living from the dead."""

import os
import subprocess
import sys

import pytest

from fer_sweep.search.owners import is_dead, this_process


def test_this_process_lives():
    assert not is_dead(this_process())
    assert this_process() == this_process()


def test_an_ended_process_is_dead_and_one_with_its_number_is_another():
    host, pid, started = this_process().rsplit(":", 2)
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    assert is_dead(f"{host}:{int(child.stdout)}:{started}")
    if started != "0":
        assert is_dead(f"{host}:{pid}:{int(started) - 1}")


@pytest.mark.parametrize("owner", ["", "me", "a:b", "a:b:c", "other/host:1:2", "::", "elsewhere:PID:0"])
def test_nothing_is_said_of_owners_elsewhere(owner):
    owner = owner.replace("PID", str(os.getpid()))
    assert not is_dead(owner)
