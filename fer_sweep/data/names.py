"""Which class and which split a name means: tables, and the rules by which folders, files and columns are read.

A name that is not in the tables is refused where a guess would change labels or splits.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import PurePosixPath

from fer_sweep.data.dataset import Split
from fer_sweep.data.tree import Member, Tree, shown
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

OFFICIAL_NAMES = {"training": Split.TRAIN, "publictest": Split.VAL, "privatetest": Split.TEST}
"""The values of the CSV's Usage column, which also begin the file names of Kaggle's image folders."""

OUTSIDE = frozenset({"contempt", "unknown", "nf"})
"""Classes that other label sets have and FER2013 lacks; their images are left out."""

CLASS_FORMS = {
    "angry": "anger angery angrey",
    "disgust": "disgusted disgusting digust disgut disguist digusted",
    "fear": "fearful afraid scared fearfull",
    "happy": "happiness joy happyness hapiness happines",
    "sad": "sadness sadnes",
    "surprise": "surprised suprise suprised surprize surprized surpise surpised suprize",
    "neutral": "neutrality nuetral netural nutral neutal",
}
"""By class, the other names it goes by, and its misspellings."""

CLASS_FILLERS = frozenset(
    {"face", "faces", "facial", "expression", "expressions", "emotion", "emotions", "image", "images"}
    | {"class", "label", "category"}
)
"""Words beside a class that change nothing, as in `Happy face`; numbers change nothing either (`0_angry`)."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), Split.TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), Split.VAL),
    **dict.fromkeys(("test", "testing", "privatetest"), Split.TEST),
}
"""A name with one of them as a part is a split's: `FER2013Train`, `test_set`, `my-val-images`."""
_SPLIT_PART = re.compile(
    rf"(?:fer)?({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})"
    r"(?:set|data|images?|imgs?|faces?|files?|split)?s?"
)
"""A part, and what may be attached to it: `fertrain`, `testset`, `valimages`."""

UNDERSTOOD_CLASSES = f"the classes are {', '.join(CLASSES)}; forms such as happiness or surprised are understood too"
NUMBERINGS = "the order of numbers differs (FER2013's 0 to 6, FER+'s and AffectNet's 0 to 7, RAF-DB's 1 to 7)"
UNDERSTOOD_SPLITS = (
    "train or training; val, valid, validation, dev or public_test; test, testing or private_test; "
    "alone or as a part of a name (FER2013Train, test_set)"
)

Order = tuple[str, ...]
"""The names of the labels from 0 on."""
_LABELS = {form: label for label, name in enumerate(CLASSES) for form in (name, *CLASS_FORMS[name].split())}
_ORDER_FILE = "classnames.txt"
_LONGEST_ORDER = 1 << 20
"""Bytes."""
_DATA_ENDINGS = frozenset(
    {".csv", ".parquet", ".tar", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".npy", ".npz"}
)
_NEAREST_FOLDERS = 16
"""Above an image or a file; a hostile path may have thousands."""
_MOST_SHOWN = 8
_LONGEST_SHOWN = 60


class ClassNames:
    """The class names that a reader meets: their labels, and notes on how they were read."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._outside: Counter[str] = Counter()

    def label(self, name: str, where: str) -> int | None:
        """The label of one more image; None for a class that FER2013 lacks; DataError for no class."""
        code, outside = class_code(name), outside_class(name)
        if code is not None:
            self._known[name] = code
        elif outside is not None:
            self._outside[outside] += 1
        else:
            near = get_close_matches(name[:_LONGEST_SHOWN].strip().lower(), _LABELS, n=1, cutoff=0.7)
            hint = UNDERSTOOD_CLASSES
            if near:
                hint = f"did you mean {CLASSES[_LABELS[near[0]]]}?"
            elif re.fullmatch(r"\s*\d+\s*", name):
                hint = f"{NUMBERINGS}: write the names of the classes in place of numbers ({', '.join(CLASSES)})"
            raise DataError(f"{where}: {quoted(name)} is none of the {len(CLASSES)} classes", hint=hint)
        return code

    def notes(self) -> tuple[str, ...]:
        """Which other names the classes had, and how many images of which other classes were left out."""
        other = {name: code for name, code in self._known.items() if name.strip().lower() != CLASSES[code]}
        texts = [f"{quoted(name)} as {CLASSES[code]}" for name, code in other.items()]
        notes = [f"class names were read as follows: {few(texts)}"] if texts else []
        notes += [f"{count:,} images of class {name} were left out" for name, count in sorted(self._outside.items())]
        return tuple(notes)


@lru_cache(maxsize=4096)
def class_code(name: str) -> int | None:
    """The label of a class by any of its names, in any case and with any separators; None for no such class.

    >>> class_code("Anger"), class_code("suprise"), class_code("Happy face"), class_code("contempt")
    (0, 5, 3, None)
    """
    for kept in _class_words(name):
        for word in (kept, kept.removesuffix("s")):
            if word in _LABELS:
                return _LABELS[word]
    return None


@lru_cache(maxsize=4096)
def outside_class(name: str) -> str | None:
    """Which class that FER2013 lacks a name means; None if it means none of those."""
    return next((word for word in _class_words(name) if word in OUTSIDE), None)


@lru_cache(maxsize=4096)
def class_number(name: str) -> int | None:
    """The number that a name gives in place of a class; None if it has a word of its own, or no number up to 99.

    >>> class_number("03"), class_number("class_3"), class_number("class003"), class_number("IMG3")
    (3, 3, 3, None)
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    numbers = re.findall(r"[0-9]+", name)
    if len(numbers) != 1 or len(numbers[0]) > 3 or not CLASS_FILLERS.issuperset(words):
        return None
    return int(numbers[0]) if int(numbers[0]) < 100 else None


def named_order(names: Iterable[object], where: str) -> Order:
    """The names of the labels from 0 on; DataError if one is no class, or two are the same."""
    order = tuple(str(name) for name in names)
    numbers: dict[int, int] = {}
    for number, name in enumerate(order):
        code = ClassNames().label(name, where)
        if code is not None and (first := numbers.setdefault(code, number)) != number:
            raise DataError(
                f"{where}: {quoted(order[first])} and {quoted(name)}, labels {first} and {number}, both mean "
                f"{CLASSES[code]}",
                hint="correct the name that is wrong: every class has one number",
            )
    return order


def order_file(tree: Tree) -> Order | None:
    """The names of the labels from 0 on, by a source's `classnames.txt`; None if it has none, or an empty one."""
    member = next((member for member in tree.members if member.path.name == _ORDER_FILE), None)
    if member is None:
        return None
    text = tree.read(member, limit=_LONGEST_ORDER).decode("utf-8-sig", errors="replace")
    return named_order([line for line in text.splitlines() if line.strip()], tree.label(member)) or None


@lru_cache(maxsize=4096)
def split_code(name: str) -> Split | None:
    """The split a folder, file stem or Usage value names; None if it names none, or several.

    >>> split_code("FER2013Valid"), split_code("public_test"), split_code("test_set"), split_code("train_val")
    (<Split.VAL: 1>, <Split.VAL: 1>, <Split.TEST: 2>, None)
    """
    found: set[Split] = set()
    for words in _readings(name):
        meant = {SPLIT_WORDS[match[1]] for word in words if (match := _SPLIT_PART.fullmatch(word))}
        if Split.TEST in meant and "public" in words:
            if "private" in words:  # both of FER2013's test splits in one
                return None
            meant = (meant - {Split.TEST}) | {Split.VAL}
        found |= meant
    return found.pop() if len(found) == 1 else None


def path_split(path: PurePosixPath) -> tuple[Split, str] | None:
    """The split that the last parts of a path name, as few of them as name one, and those parts."""
    parts = path.parts[-_NEAREST_FOLDERS:]
    for first in reversed(range(len(parts))):
        split = split_code(" ".join(parts[first:]))
        if split is not None:
            return split, parts[first] if split_code(parts[first]) == split else "/".join(parts[first:])
    return None


def unnumbered(path: PurePosixPath) -> PurePosixPath:
    """The path of one of several parts of a file, without its ending, its number and what comes after the number.

    >>> [str(unnumbered(PurePosixPath(name))) for name in ("data/test-00000-of-00002-8aa3.parquet", "train/0001.tar")]
    ['data/test', 'train']
    """
    return path.parent / re.sub(r"(?:^|[-_.])\d+(?:-of-\d+(?:-[0-9a-f]+)?)?$", "", path.stem)


def splits_by_name(source: str, places: Iterable[PurePosixPath]) -> tuple[dict[PurePosixPath, Split], tuple[str, ...]]:
    """The split of each of some folders or files (without endings) of a source, and notes on how it was read.

    A single place that names no split is training images, unless the source's own name says otherwise. The same
    split of several data sets in folders side by side is put together.

    Raises:
        DataError: There are several, and one names no split: it may hold what must not be trained on.
    """
    named = {place: path_split(place) for place in places}
    nameless = [quoted(str(place)) for place, found in named.items() if found is None]
    parts = {part: split for split, part in filter(None, named.values())}
    if nameless and len(named) > 1:
        beside = f", beside {few(map(quoted, parts))}" if parts else ""
        verb = "name" if len(nameless) > 1 else "names"
        raise DataError(
            f"{source}: {few(nameless)} {verb} no known split, or several{beside}",
            hint=f"name each for its split: {UNDERSTOOD_SPLITS}. Put what is all for training into one folder train",
        )
    if nameless:
        own = split_code(re.sub(r"(\.tar)?\.\w+$", "", source))
        if own not in (None, Split.TRAIN):
            raise DataError(
                f"{source}: its name says that all of it is the {own.name.lower()} split, so nothing is for training",
                hint="give the folder or archive that holds the training split too, or rename it if all is for that",
            )
        return dict.fromkeys(named, Split.TRAIN), ("no folder or file names a split: all are training images",)
    read = {place: found for place, found in named.items() if found is not None}
    notes = split_notes(parts)
    roots = {(split, str(place).rpartition(part)[0].rstrip("/") or ".") for place, (split, part) in read.items()}
    if len(roots) > len({split for split, _ in roots}):
        folders = few(quoted(root) for root in {root for _, root in roots})
        notes += (f"several data sets were put together, split by split: {folders}",)
    return {place: split for place, (split, _) in read.items()}, notes


def split_notes(read: Mapping[str, Split], *, plain: Collection[str] = SPLIT_WORDS) -> tuple[str, ...]:
    """A note on names that were read as a split's and are no plain word for it, such as `test_set`."""
    texts = [f"{quoted(name)} as {split.name.lower()}" for name, split in read.items() if name.lower() not in plain]
    return (f"splits were read from names: {few(texts)}",) if texts else ()


def order_note(order: Order) -> str:
    """A note on numbers that were read in an order that the files do not state."""
    return f"the files do not name their classes: labels 0 to {len(order) - 1} were read as {', '.join(order)}"


def left_out(tree: Tree, read: Collection[Member]) -> tuple[str, ...]:
    """A note on the archives and tables of a source that its reader does not read."""
    others = [m.path for m in tree.members if m.path.suffix.lower() in _DATA_ENDINGS and m not in read]
    return (f"{len(others)} other files were left out: {few(quoted(str(path)) for path in others)}",) if others else ()


def few(texts: Iterable[str]) -> str:
    """Some texts in a line, sorted; of many, the first and how many more there are."""
    every = sorted(texts)
    more = len(every) - _MOST_SHOWN
    return ", ".join(every[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _class_words(name: str) -> Iterator[str]:
    """The only word of a name besides fillers and numbers, by each reading that has one."""
    for words in _readings(name):
        kept = [word for word in words if word not in CLASS_FILLERS]
        if len(kept) == 1:
            yield kept[0]


def _readings(name: str) -> Iterator[list[str]]:
    """The words of a name in small letters: split at all that is no letter, then at capitals (`HappyFace`) too."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    for text in dict.fromkeys((name.lower(), parted.lower())):
        yield re.findall(r"[^\W\d_]+", text)


def quoted(name: str) -> str:
    """A name as messages show it: on one line, in quotes and not too long."""
    return "the top folder" if name == "." else repr(shown(name)[:_LONGEST_SHOWN])
