"""The sweeps of this home: ``sweeps/<id>/sweep.json``, beside a copy of the sweep file and the pins of its data."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.data.dataset import DatasetInfo
from fer_sweep.errors import DataError, InputError, StorageError
from fer_sweep.files import home, read_json, sweep_folder, write_atomically
from fer_sweep.store.database import default_storage


@dataclass(frozen=True)
class SweepEntry:
    """One sweep of this home: the content of its sweep.json."""

    id: str
    search: str
    """What proposes its trials: ``optuna`` (embedded) or ``wandb`` (the server)."""
    storage: str | None
    """The URL of its database, without a password; None for ``sweeps.db`` in fersweep's home, even if that moves."""
    name: str | None
    """The name in its file."""
    created: float
    """Unix time, seconds."""
    max_gap: float | None = None
    """Largest train-val gap of the winner, as a fraction."""
    url: str | None = None
    """Its page, for a search on a server."""
    path: str | None = None
    """ENTITY/PROJECT/ID, for a search on a server."""
    confirms: str | None = None
    """For a sweep of ``fersweep confirm``: the SWEEP/TRIAL that it trains with further seeds."""

    @property
    def database(self) -> str:
        """The URL of its database."""
        return self.storage or default_storage()


_ENTRY = TypeAdapter(SweepEntry)


def known() -> Sequence[SweepEntry]:
    """Every sweep created here, oldest first.

    Raises:
        StorageError: A sweep.json cannot be read.
    """
    entries = []
    for path in (home() / "sweeps").glob("*/sweep.json"):
        try:
            entry = _ENTRY.validate_python(read_json(path))
            if entry.id != path.parent.name:
                raise ValueError(f"it belongs to sweep {entry.id!r}")  # an id names folders, so it is checked
            entries.append(entry)
        except (OSError, ValueError) as error:  # pydantic raises ValueErrors
            raise StorageError(
                f"cannot read {path}: {error}",
                hint="restore the file, or move the sweep's folder away to continue without it",
            ) from error
    return sorted(entries, key=lambda entry: entry.created)


def remember(entry: SweepEntry, sweep: SweepFile) -> None:
    """Write a sweep's entry and file into its folder, so that it can be opened."""
    folder = sweep_folder(entry.id)
    write_atomically(folder / "sweep.yaml", yaml.safe_dump(sweep.to_plain(), sort_keys=False))
    write_atomically(folder / "sweep.json", json.dumps(asdict(entry), indent=2) + "\n")


def pinned_data(sweep_id: str, name: str) -> DatasetInfo | None:
    """The data set that a sweep has pinned under a name; None if there is none, or it cannot be read."""
    with contextlib.suppress(InputError):
        return read_pin(sweep_id, name)
    return None


def read_pin(sweep_id: str, name: str) -> DatasetInfo | None:
    """The data set that a sweep has pinned under a name; None if there is none.

    Raises:
        DataError: The pin cannot be read.
    """
    path = pin_path(sweep_id, name)
    try:
        return DatasetInfo.read(path, name)
    except (OSError, ValueError) as error:  # pydantic raises ValueErrors
        raise DataError(
            f"cannot read {path} ({type(error).__name__}), which pins data set {name} of this sweep",
            hint="restore it; if you delete it, the sweep pins the data set of the next agent's host",
        ) from error


def pin_path(sweep_id: str, name: str) -> Path:
    """The file that pins a data set of a sweep."""
    return sweep_folder(sweep_id) / f"data-{name}.json"
