"""Completions for the shell: sweep ids, data sets, sweep files, the values of an option.

They come from file names alone, because a person waits: no heavy import, no database, no server. Unreadable files are
skipped, since a message would appear in the middle of the command line.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from fer_sweep.files import data_folder, home, read_json


def sweep_ids(incomplete: str) -> list[tuple[str, str]]:
    """Sweeps of this home with their names, newest first; as ENTITY/PROJECT/ID once a slash is typed.

    Args:
        incomplete: The beginning of the word.
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
    """The prepared data sets and `synthetic`."""
    with contextlib.suppress(OSError):
        names = sorted(path.stem for path in data_folder().glob("*.json"))
        return [name for name in (*names, "synthetic") if name.startswith(incomplete)]
    return []


def sweep_files(incomplete: str) -> list[str]:
    """YAML files in the folder that is typed, or here and in `sweeps/`; without any, the shell completes paths."""
    folder, separator, beginning = incomplete.rpartition("/")
    if folder.startswith("~"):
        return []  # the completion would have to replace the ~
    prefix = folder + separator
    places = [prefix] if prefix else ["", "sweeps/"]
    found = []
    for place in places:
        with contextlib.suppress(OSError):
            found += [place + path.name for path in Path(place or ".").iterdir() if path.suffix in (".yaml", ".yml")]
    return sorted(name for name in found if name.startswith(prefix + beginning))


def words(*known: str) -> Callable[[str], list[str]]:
    """The fixed values of an option."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete
