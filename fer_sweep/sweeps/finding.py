"""Which sweep of this home is meant, and what to say where none is."""

import shlex
import time
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.files import home
from fer_sweep.formatting import duration
from fer_sweep.shipped import resolve
from fer_sweep.sweeps.entries import SweepEntry, home_above, scan


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
    if (above := home_above()) is None:
        return None
    folder = shlex.quote(str(above.parent))
    return f"sweeps are in the folder they were created in, and {above} has some: cd {folder}, or set FERSWEEP_HOME"


def refuse_sweep_file(text: str) -> None:
    """Raise ``InputError`` for the name of a sweep file, which a command about sweeps does not take."""
    found = resolve("sweeps", Path(text))
    if found.suffix in (".yaml", ".yml") and found.is_file():
        raise InputError(
            f"{text} is a sweep file, not a sweep",
            hint=f"create a sweep from it: fersweep create {shlex.quote(text)}; or create and train one: fersweep run "
            f"{shlex.quote(text)}",
        )
