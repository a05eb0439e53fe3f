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
        return fuzz(given.readers[0], given.seconds, given.corpus / given.readers[0])
    from tests.fuzz.readers import READERS  # not before the child has its imports instrumented

    return min(1, sum(run(name, given.seconds, given.corpus) for name in given.readers or READERS))


def run(name: str, seconds: int, corpus: Path) -> bool:
    """Fuzz a reader in a process of its own; gives whether something was found."""
    words = [sys.executable, "-m", "tests.fuzz", name, "--child", f"--seconds={seconds}", f"--corpus={corpus}"]
    folder = corpus / name
    (folder / "inputs").mkdir(parents=True, exist_ok=True)
    before, log = set(folder.glob("*-*")), folder / "log"
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    # libFuzzer leaves at once, so the child cannot tidy up.
    with log.open("w") as stream, tempfile.TemporaryDirectory(prefix="fersweep-fuzz-", dir=memory) as place:
        environment = {**os.environ, "TMPDIR": place}
        code = subprocess.run(words, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    progress = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("#")]
    findings = sorted(set(folder.glob("*-*")) - before)
    print(f"{name}: {len(findings)} findings, exit {code}: {log}", *progress[-1:], *findings, sep="\n  ", flush=True)
    return bool(findings or code)


def fuzz(name: str, seconds: int, folder: Path) -> int:
    import atheris  # installed by `make fuzz`

    logging.disable()
    seeds = folder / "seeds"
    seeds.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.readers import READERS, accepts

        reader = READERS[name]
        for number, seed in enumerate(reader.seeds()):
            (seeds / str(number)).write_bytes(seed)
            accepts(reader, seed)  # what is imported on first use is instrumented too, and is no hang later
    if "torch" in sys.modules:  # all of torch would take minutes to instrument
        from torch._weights_only_unpickler import Unpickler

        atheris.instrument_func(Unpickler.load)
    words = f"-max_total_time={seconds} -timeout={HANG_S} -rss_limit_mb={MEMORY_MB} -max_len={reader.longest}"
    words += " -detect_leaks=0 -print_final_stats=1 -verbosity=1"
    folders = [f"-artifact_prefix={folder}/", str(folder / "inputs"), str(seeds)]
    atheris.Setup([sys.argv[0], *words.split(), *folders], lambda data: accepts(reader, data) and None)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
