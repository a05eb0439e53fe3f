"""What a shell is told when somebody presses Tab: ids of sweeps, data sets, sweep files, the words of an option.

All of it is read from the names of files, since a person waits: nothing heavy is imported, no database is opened and
no server asked. What cannot be read is left out, as a message has no place in the middle of a command line.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from fer_sweep.files import data_folder, home, read_json


def sweep_ids(incomplete: str) -> list[tuple[str, str]]:
    """Sweeps made here, the newest first, each with the name in its file; by ENTITY/PROJECT/ID once a slash is typed.

    Args:
        incomplete: What has been typed of the word so far.
    """
    found = []
    for path in (home() / "sweeps").glob("*/sweep.json"):
        with contextlib.suppress(OSError, ValueError):
            entry = read_json(path)
            word = entry.get("path") if "/" in incomplete else path.parent.name
            if isinstance(word, str) and word.startswith(incomplete):
                found.append((path.stat().st_mtime, word, str(entry.get("name") or "")))
    return [(word, name) for _, word, name in sorted(found, reverse=True)]


def datasets(incomplete: str) -> list[str]:
    """The data sets that are prepared, and `synthetic`, which always is."""
    with contextlib.suppress(OSError):
        names = sorted(path.stem for path in data_folder().glob("*.json"))
        return [name for name in (*names, "synthetic") if name.startswith(incomplete)]
    return []


def sweep_files(incomplete: str) -> list[str]:
    """YAML files beside what is typed and in `sweeps/`; none, and the shell then completes paths by itself."""
    folder, separator, beginning = incomplete.rpartition("/")
    if folder.startswith("~"):
        return []  # what is found would be spelt otherwise than what was typed
    prefix = folder + separator
    places = [prefix] if prefix else ["", "sweeps/"]
    found = []
    for place in places:
        with contextlib.suppress(OSError):
            found += [place + path.name for path in Path(place or ".").iterdir() if path.suffix in (".yaml", ".yml")]
    return sorted(name for name in found if name.startswith(prefix + beginning))


def words(*known: str) -> Callable[[str], list[str]]:
    """An option's own words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete
