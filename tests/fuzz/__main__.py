"""Coverage-guided fuzzing of the readers, with Atheris (libFuzzer): ``python -m tests.fuzz [READER ...] --seconds N``.

Each reader runs in a process of its own, which a hang of HANG_S or more memory than MEMORY_MB ends as a finding. What
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
HANG_S = 20
MEMORY_MB = 3072


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("readers", nargs="*", help="all if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="where inputs and findings are kept")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        fuzz(given.readers[0], given.seconds, given.corpus)
    from tests.fuzz.readers import READERS  # not in the child, which instruments what it imports

    return max(run(name, given.seconds, given.corpus / name) for name in given.readers or READERS)


def run(name: str, seconds: int, folder: Path) -> int:
    """Fuzz a reader in a process of its own; 1 if something was found."""
    for part in ("inputs", "seeds"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    words = [sys.executable, "-m", "tests.fuzz", name, "--child", f"--seconds={seconds}", f"--corpus={folder}"]
    # libFuzzer leaves at once, so the child cannot tidy up.
    with (folder / "log").open("w") as log, tempfile.TemporaryDirectory(prefix="fersweep-fuzz-", dir=memory) as place:
        environment = {**os.environ, "TMPDIR": place, "FERSWEEP_CACHE": place}
        code = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    print(f"{name}: {'SOMETHING WAS FOUND' if code else 'nothing was found'}: {folder / 'log'}", flush=True)
    return min(1, abs(code))


def fuzz(name: str, seconds: int, folder: Path) -> None:
    """Fuzz a reader in this process, which ends with it."""
    import atheris  # installed by `make fuzz`

    logging.disable()
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.readers import READERS, accepts

        reader = READERS[name]
        for number, seed in enumerate(reader.seeds()):
            (folder / "seeds" / str(number)).write_bytes(seed)
            accepts(reader, seed)  # what is imported on first use is instrumented too, and is no hang later
    if "torch" in sys.modules:  # all of torch would take minutes to instrument
        from torch._weights_only_unpickler import Unpickler

        atheris.instrument_func(Unpickler.load)
    limits = (f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB}", "-detect_leaks=0")
    places = (f"-artifact_prefix={folder}/", f"{folder}/inputs", f"{folder}/seeds")
    options = (f"-max_len={reader.longest}", "-print_final_stats=1")
    atheris.Setup([name, *limits, *options, *places], lambda data: accepts(reader, data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
