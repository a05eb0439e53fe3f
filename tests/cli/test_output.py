"""Output that cannot be written: one line on stderr and exit code 1, whatever a command prints with."""

import subprocess

import pytest

from fer_sweep.host_processes import FERSWEEP


@pytest.mark.parametrize(
    ("where", "why"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
    ids=["closed", "full"],
)
@pytest.mark.parametrize("words", ["doctor --json", "doctor"])
def test_a_command_says_in_one_line_that_it_cannot_print(words: str, where: str, why: str) -> None:
    command = ["sh", "-c", f'exec "$@" {where}', "sh", *FERSWEEP, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"error: cannot write to stdout: {why}\n")
