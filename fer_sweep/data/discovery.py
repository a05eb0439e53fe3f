"""Find FER2013 in the usual folders of Kaggle, Colab and browsers, without a deep walk."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fer_sweep.data.names import OFFICIAL_NAMES, class_code, split_code
from fer_sweep.data.sources import reader_of
from fer_sweep.data.tree import Tree, is_archive, open_tree
from fer_sweep.errors import DataError

# Below one place; on a mounted drive each takes a moment.
MOST_FOLDERS, MOST_CANDIDATES = 500, 100
MOST_ENTRIES = 2_000
"""Listed of one folder; a class folder, with thousands of images, is not listed whole."""

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
_WORDS = ("fer", "face", "emotion", "expression", "archive")
"""One of them is in the name of an archive worth opening: Kaggle's own download is called archive.zip."""


@dataclass(frozen=True)
class Place:
    """A folder to look in."""

    path: Path
    depth: int
    """Levels of folders below it that are listed."""


@dataclass(frozen=True)
class Discovery:
    """What was found, the best first."""

    taken: Path
    others: tuple[Path, ...]
    unusable: tuple[str, ...]
    """What looked like a data set but cannot be read, and why."""


def usual_places() -> tuple[Place, ...]:
    """The folders of data sets on Kaggle, in Colab and at home, in order of preference."""
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as in a container
        home = Path("/nonexistent")
    kagglehub = Path(os.environ.get("KAGGLEHUB_CACHE") or home / ".cache" / "kagglehub")
    return (
        Place(Path("/kaggle/input"), 5),
        Place(kagglehub / "datasets", 5),
        Place(Path.cwd(), 2),
        Place(Path("/content"), 2),
        Place(Path("/content/drive/MyDrive"), 2),
        Place(home / "Downloads", 2),
    )


def discover(places: Sequence[Place] | None = None) -> Discovery:
    """Find the data set to prepare, in some places or else the usual ones.

    Raises:
        DataError: There is none; the message names the places, the hint how to get one.
    """
    places = usual_places() if places is None else places
    seen: set[str] = set()
    official: list[Path] = []
    others: list[Path] = []
    unusable: list[str] = []
    for place in places:
        for path in islice(_likely(place), MOST_CANDIDATES):
            real = os.path.realpath(path)  # one place may be within another
            if real in seen:
                continue
            seen.add(real)
            try:
                with open_tree(path) as tree:
                    if _is_data_set(tree):
                        (official if _is_official(tree) else others).append(path)
            except DataError as error:
                unusable.append(f"{path}: {error}")
    found = official + others
    if not found:
        looked = ", ".join(str(place.path) for place in places)
        saw = f"; not usable: {'; '.join(unusable)}" if unusable else ""
        raise DataError(
            f"no FER2013 found in {looked}{saw}",
            hint="get it here, then run this again: `kaggle datasets download -d msambare/fer2013`, or in Python "
            'kagglehub.dataset_download("msambare/fer2013"), or on Kaggle Add Input, fer2013; or name its path: '
            "fersweep data prepare PATH; or use drawn faces: the data set synthetic",
        )
    return Discovery(found[0], tuple(found[1:]), tuple(unusable))


def _likely(place: Place) -> Iterator[Path]:
    """Folders and files whose names suggest a data set, nearest first."""
    level = [place.path]
    seen: set[str] = set()
    for depth in range(place.depth + 1):
        below: list[Path] = []
        for folder in level:
            real = os.path.realpath(folder)
            if real in seen or len(seen) >= MOST_FOLDERS:
                continue
            seen.add(real)
            folders, files = _listed(folder)
            if _has_classes(folders) or (depth and any(file.suffix.lower() == ".parquet" for file in files)):
                yield folder
            else:
                yield from filter(_is_worth_opening, files)
                below += folders
        level = below


def _is_worth_opening(file: Path) -> bool:
    name = file.name.lower()
    return name.endswith(".csv") or (name.endswith(_ARCHIVES) and any(word in name for word in _WORDS))


def _listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """The subfolders and files of a folder, by name; none of one without permission."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, MOST_ENTRIES):
                if not entry.name.startswith("."):
                    (folders if entry.is_dir() else files).append(Path(entry.path))
    except OSError:
        return [], []
    return sorted(folders), sorted(files)


def _has_classes(folders: Sequence[Path]) -> bool:
    """Whether subfolders are splits that hold a folder for each of some classes."""
    for split in folders:
        if split_code(split.name) is not None:
            inside, _ = _listed(split)
            if len({code for path in inside if (code := class_code(path.name)) is not None}) >= 2:
                return True
    return False


def _is_data_set(tree: Tree) -> bool:
    if reader_of(tree) is None:
        return sum(is_archive(tree, member) for member in tree.members) == 1
    headers = _headers(tree)
    return len(headers) < len(tree.members) or any(b"emotion" in header for header in headers)


def _is_official(tree: Tree) -> bool:
    """Whether FER2013's own split seems to be in it."""
    names = {member.path.name.partition("_")[0].lower() for member in tree.members}
    return any(b"usage" in header for header in _headers(tree)) or not names.isdisjoint(OFFICIAL_NAMES)


def _headers(tree: Tree) -> list[bytes]:
    """The first line of each CSV, in small letters."""
    tables = [member for member in tree.members if member.path.suffix.lower() == ".csv"]
    return [tree.head(member, 200).partition(b"\n")[0].lower() for member in tables]
