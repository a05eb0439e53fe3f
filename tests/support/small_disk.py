"""A sweep on a disk that fills up, and goes on once there is room: python -m tests.support.small_disk DISK."""

import contextlib
import itertools
import sqlite3
import sys
from pathlib import Path

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import StorageError
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.sweeps import create_sweep, list_sweeps


def main(disk: Path) -> None:
    """Fill the disk, see that nothing is damaged, make room and complete the trial."""
    assert disk.is_mount()
    storage, metrics = f"sqlite:///{disk / 'sweeps.db'}", {f"metric_{number}": 0.5 for number in range(300)}
    parameters = {"model": {"value": "vit"}, "lr": {"min": 0.001, "max": 0.1}}
    sweep = parse_sweep({"method": "random", "parameters": parameters})
    create_sweep(sweep, sweep_id="s", storage=storage)
    search = OptunaSearch("s", storage=storage)
    request = search.next_trial("cpu0")
    assert isinstance(request, TrialRequest)
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    for step in (
        lambda number: search.report(request.trial_id, number, metrics),
        lambda number: search.next_trial("cpu1"),
        lambda number: create_sweep(sweep, sweep_id=f"t{number}", storage=storage),
    ):
        try:
            for number in itertools.count(1):
                step(number)
        except StorageError as error:
            print(error, "--", error.hint)
        check_integrity(disk)
    (disk / "filler").unlink()
    search.report(request.trial_id, 10_000, {"val_loss": 0.5})
    search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
    record = search.records()[0]
    assert (record.trial_id, record.state) == ("0", "complete")
    search.close()
    create_sweep(sweep, sweep_id="last", storage=storage)
    assert list_sweeps(storage)[-1].id == "last"
    check_integrity(disk)


def check_integrity(disk: Path) -> None:
    """Raise if the database is damaged."""
    with contextlib.closing(sqlite3.connect(disk / "sweeps.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
