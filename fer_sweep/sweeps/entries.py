"""The sweeps of this home, and which one is meant by a word.

Each is ``sweeps/<id>/sweep.json``, beside a copy of the sweep file and the pins of its data.
"""

import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.data.dataset import DatasetInfo
from fer_sweep.errors import DataError, InputError, NothingToDo, StorageError
from fer_sweep.files import home, read_json, sweep_folder, write_atomically
from fer_sweep.formatting import duration
from fer_sweep.shipped import resolve
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
    added: bool = False
    """Whether it was not created here, but named by its path on W&B: the last sweep only once it is trained here."""
    confirms: str | None = None
    """For a sweep of ``fersweep confirm``: the SWEEP/TRIAL that it trains with further seeds."""

    @property
    def database(self) -> str:
        """The URL of its database."""
        return self.storage or default_storage()


_ENTRY = TypeAdapter(SweepEntry)


def known() -> Sequence[SweepEntry]:
    """Every sweep created here whose sweep.json can be read, oldest first."""
    return scan()[0]


def scan() -> tuple[Sequence[SweepEntry], Mapping[str, StorageError]]:
    """Every sweep created here, oldest first, and by the name of its folder what is wrong with each unreadable one."""
    entries, unreadable = [], {}
    for path in sorted((home() / "sweeps").glob("*/sweep.json")):
        try:
            entry = _ENTRY.validate_python(read_json(path))
            if entry.id != path.parent.name:
                raise ValueError(f"it belongs to sweep {entry.id!r}")  # an id names folders, so it is checked
            entries.append(entry)
        except (OSError, ValueError) as error:  # pydantic raises ValueErrors
            unreadable[path.parent.name] = StorageError(
                f"cannot read {path}: {error}",
                hint="restore the file, move the sweep's folder away to continue without it, or name another sweep",
            )
    return sorted(entries, key=lambda entry: entry.created), unreadable


def remember(entry: SweepEntry, sweep: SweepFile) -> None:
    """Write a sweep's entry and file into its folder, so that it can be opened."""
    write_atomically(sweep_folder(entry.id) / "sweep.yaml", yaml.safe_dump(sweep.to_plain(), sort_keys=False))
    write_entry(entry)


def write_entry(entry: SweepEntry) -> None:
    """Write a sweep's entry alone."""
    write_atomically(sweep_folder(entry.id) / "sweep.json", json.dumps(asdict(entry), indent=2) + "\n")


def rename(entry: SweepEntry, name: str) -> SweepEntry:
    """Give a sweep another name in this home; on W&B it keeps the former one.

    Raises:
        InputError: The name cannot be one, or is the id of another sweep.
    """
    if any(other.id == usable_name(name) != entry.id for other in scan()[0]):
        raise InputError(f"{name} is the id of another sweep", hint="choose another name")
    renamed = replace(entry, name=name)
    write_entry(renamed)
    return renamed


def usable_name(name: str) -> str:
    """The name that a person gives to a sweep; InputError if commands could not be given it."""
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > 128:
        raise InputError(f"{name[:200]!r} cannot name a sweep", hint="use 1 to 128 characters, such as vit-small")
    return name


def find_entry(sweep: str) -> SweepEntry | None:
    """The sweep of this home that is meant: by id, path or address on W&B, name, or the beginning of its id.

    Raises:
        InputError: Several sweeps have this name, or ids that begin so.
        StorageError: Its sweep.json cannot be read.
    """
    entries, unreadable = scan()
    if sweep in unreadable:
        raise unreadable[sweep]
    matches: tuple[tuple[str, Callable[[SweepEntry], bool]], ...] = (
        ("have this id", lambda entry: entry.id == sweep),
        ("have this address", lambda entry: sweep in (entry.path, entry.url)),
        ("have this name", lambda entry: entry.name == sweep),
        ("have an id that begins so", lambda entry: bool(sweep) and entry.id.startswith(sweep)),
    )
    for which, fits in matches:
        found = [entry for entry in entries if fits(entry)]
        if len(found) == 1:
            return found[0]
        if found:
            newest = ", ".join(_with_age(entry) for entry in found[:-6:-1])
            more = f" and {len(found) - 5} more: fersweep list" if len(found) > 5 else ""
            raise InputError(f"{sweep}: {len(found)} sweeps {which}", hint=f"give the id of one: {newest}{more}")
    for error in unreadable.values():
        raise error  # it may be the one that is meant
    return None


def unknown_sweep(sweep: str, elsewhere: str = "") -> InputError:
    """The error for a sweep that this home does not have."""
    entries = scan()[0]
    words = [word for entry in entries for word in (entry.id, entry.name) if word]
    near = get_close_matches(sweep, words, n=1)
    if near:
        hint = f"did you mean {near[0]}? To see all sweeps: fersweep list"
    elif entries:
        latest = ", ".join(_with_age(entry) for entry in entries[:-6:-1])
        hint = f"the latest: {latest}; all of them: fersweep list; on W&B: ENTITY/PROJECT/ID"
    else:
        hint = _above() or "name a sweep on W&B as ENTITY/PROJECT/ID"
    return InputError(f"no sweep {sweep!r} in {home()}{elsewhere}", hint=hint)


FIRST = "create one: fersweep create simple_cnn --data synthetic, or with a data set of fersweep data list"
"""The hint where there is no sweep."""


def no_sweeps() -> NothingToDo:
    """The error where this home has no sweep."""
    return NothingToDo(f"no sweep in {home()} yet", hint=_above() or FIRST)


def _with_age(entry: SweepEntry) -> str:
    words = [entry.name] if entry.name and entry.name != entry.id else []
    return f"{entry.id} ({', '.join([*words, duration(time.time() - entry.created)])} old)"


def _above() -> str | None:
    """The hint at sweeps in a folder above the working directory, where ``FERSWEEP_HOME`` is not set."""
    if os.environ.get("FERSWEEP_HOME"):
        return None
    with contextlib.suppress(OSError):  # a folder above that may not be read
        for folder in Path.cwd().parents:
            above = folder / ".fersweep"
            if any((above / "sweeps").glob("*/sweep.json")):
                there = f"cd {shlex.quote(str(folder))}, or set FERSWEEP_HOME"
                return f"sweeps are in the folder they were created in, and {above} has some: {there}"
    return None


def refuse_sweep_file(text: str) -> None:
    """Raise ``InputError`` for the name of a sweep file, which a command about sweeps does not take."""
    found = resolve("sweeps", Path(text))
    if found.suffix in (".yaml", ".yml") and found.is_file():
        raise InputError(
            f"{text} is a sweep file, not a sweep",
            hint=f"create a sweep from it: fersweep create {shlex.quote(text)}; or create and train one: fersweep run "
            f"{shlex.quote(text)}",
        )


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
