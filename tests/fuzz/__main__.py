"""Coverage-guided fuzzing of the readers, with Atheris (libFuzzer): ``python -m tests.fuzz [READER ...] --seconds N``.

Each reader runs in a process of its own; a hang of 20 seconds or more than 3 GiB of memory ends it as a finding. What
was reached is kept in a folder of inputs, so that the next run begins there. The exit code is 1 if something was found.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

INSTRUMENTED = ["fer_sweep", "yaml", "tarfile", "zipfile", "csv", "PIL"]
"""Whose coverage guides; what is written in C or Rust (zlib, pydantic, pyarrow, libjpeg) is driven blindly."""
CORPUS = Path(".fuzz").absolute()
"""Inputs and findings are kept there."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("readers", nargs="*", help="all if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        fuzz(given.readers[0], given.seconds)
    from tests.fuzz.readers import READERS  # not in the child, which instruments what it imports

    return max(run(name, given.seconds) for name in given.readers or READERS)


def run(name: str, seconds: int) -> int:
    """Fuzz a reader in a process of its own; 1 if something was found."""
    folder = CORPUS / name
    for part in ("inputs", "seeds"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    words = [sys.executable, "-m", "tests.fuzz", name, "--child", f"--seconds={seconds}"]
    # libFuzzer leaves at once, so the child cannot tidy up.
    with (folder / "log").open("w") as log, tempfile.TemporaryDirectory(prefix="fersweep-fuzz-", dir=memory) as place:
        environment = {**os.environ, "FERSWEEP_CACHE": place}
        code = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    print(f"{name}: {'SOMETHING WAS FOUND' if code else 'nothing was found'}: {folder / 'log'}", flush=True)
    return min(1, abs(code))


def fuzz(name: str, seconds: int) -> None:
    """Fuzz a reader in this process, which ends with it."""
    import atheris  # installed by `make fuzz`

    logging.disable()
    folder = CORPUS / name
    os.chdir(os.environ["FERSWEEP_CACHE"])
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.readers import READERS, accepts

        for number, seed in enumerate(READERS[name][1]()):
            (folder / "seeds" / str(number)).write_bytes(seed)
            accepts(name, seed)  # what is imported on first use is instrumented too, and is no hang later
    limits = (f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3072", "-max_len=32768")
    options = ("-print_final_stats=1", "-detect_leaks=0", f"-artifact_prefix={folder}/")
    words = [name, *limits, *options, f"{folder}/inputs", f"{folder}/seeds"]
    atheris.Setup(words, lambda data: accepts(name, data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
