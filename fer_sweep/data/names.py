"""Which class and which split a name means: two tables, and the rules by which folders, files and columns are read.

A name that is not in the tables is refused where a guess would change labels or splits.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import PurePosixPath

from fer_sweep.data.dataset import Split
from fer_sweep.data.tree import shown
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

OFFICIAL_NAMES = {"training": Split.TRAIN, "publictest": Split.VAL, "privatetest": Split.TEST}
"""The values of the CSV's Usage column, which also begin the file names of Kaggle's image folders."""

OUTSIDE = frozenset({"contempt", "unknown", "nf"})
"""Classes that other label sets have and FER2013 lacks; their images are left out."""

_CLASS_FORMS = {
    "angry": "anger angery angrey",
    "disgust": "disgusted disgusting digust disgut disguist digusted",
    "fear": "fearful afraid scared fearfull",
    "happy": "happiness joy happyness hapiness happines",
    "sad": "sadness sadnes",
    "surprise": "surprised suprise suprised surprize surprized surpise surpised suprize",
    "neutral": "neutrality nuetral netural nutral neutal",
}
"""By class, the other names it goes by, and its misspellings."""

_CLASS_FILLERS = frozenset(
    {"face", "faces", "facial", "expression", "expressions", "emotion", "emotions", "image", "images"}
)
"""Words beside a class that change nothing, as in `Happy face`; numbers change nothing either (`0_angry`)."""

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), Split.TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), Split.VAL),
    **dict.fromkeys(("test", "testing", "privatetest"), Split.TEST),
}
"""A name with one of them as a part is a split's: `FER2013Train`, `test_set`, `my-val-images`."""
_SPLIT_PART = re.compile(
    rf"(?:fer)?({'|'.join(sorted(_SPLIT_WORDS, key=len, reverse=True))})"
    r"(?:set|data|images?|imgs?|faces?|files?|split)?s?"
)
"""A part, and what may be attached to it: `fertrain`, `testset`, `valimages`."""

UNDERSTOOD_SPLITS = (
    "train or training; val, valid, validation, dev or public_test; test, testing or private_test; "
    "alone or as a part of a name (FER2013Train, test_set)"
)

_LABELS = {form: label for label, name in enumerate(CLASSES) for form in (name, *_CLASS_FORMS[name].split())}
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
            near = get_close_matches(name[:_LONGEST_SHOWN].strip().lower(), _LABELS, n=1)
            hint = f"the classes are {', '.join(CLASSES)}; forms such as happiness or surprised are understood too"
            if near:
                hint = f"did you mean {CLASSES[_LABELS[near[0]]]}?"
            raise DataError(f"{where}: {_quoted(name)} is none of the {len(CLASSES)} classes", hint=hint)
        return code

    def notes(self) -> tuple[str, ...]:
        """Which other names the classes had, and how many images of which other classes were left out."""
        other = {name: code for name, code in self._known.items() if name.strip().lower() != CLASSES[code]}
        texts = [f"{_quoted(name)} as {CLASSES[code]}" for name, code in other.items()]
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
def split_code(name: str) -> Split | None:
    """The split a folder, file stem or Usage value names; None if it names none, or several.

    >>> split_code("FER2013Valid"), split_code("public_test"), split_code("test_set"), split_code("train_val")
    (<Split.VAL: 1>, <Split.VAL: 1>, <Split.TEST: 2>, None)
    """
    found: set[Split] = set()
    for words in _readings(name):
        meant = {_SPLIT_WORDS[match[1]] for word in words if (match := _SPLIT_PART.fullmatch(word))}
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

    A single place that names no split is training images.

    Raises:
        DataError: There are several, and one names no split: it may hold what must not be trained on.
    """
    named = {place: path_split(place) for place in places}
    nameless = [_quoted(str(place)) for place, found in named.items() if found is None]
    parts = {part: split for split, part in filter(None, named.values())}
    if nameless and len(named) > 1:
        beside = f", beside {few(map(_quoted, parts))}" if parts else ""
        verb = "name" if len(nameless) > 1 else "names"
        raise DataError(
            f"{source}: {few(nameless)} {verb} no known split, or several{beside}",
            hint=f"name each for its split: {UNDERSTOOD_SPLITS}. Put what is all for training into one folder train",
        )
    if nameless:
        return dict.fromkeys(named, Split.TRAIN), ("no folder or file names a split: all are training images",)
    return {place: found[0] for place, found in named.items() if found is not None}, split_notes(parts)


def split_notes(read: Mapping[str, Split]) -> tuple[str, ...]:
    """A note on names that were read as a split's and are no plain word for it, such as `test_set`."""
    texts = [
        f"{_quoted(name)} as {split.name.lower()}" for name, split in read.items() if name.lower() not in _SPLIT_WORDS
    ]
    return (f"splits were read from names: {few(texts)}",) if texts else ()


def few(texts: Iterable[str]) -> str:
    """Some texts in a line, sorted; of many, the first and how many more there are."""
    every = sorted(texts)
    more = len(every) - _MOST_SHOWN
    return ", ".join(every[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _class_words(name: str) -> Iterator[str]:
    """The only word of a name besides fillers and numbers, by each reading that has one."""
    for words in _readings(name):
        kept = [word for word in words if word not in _CLASS_FILLERS]
        if len(kept) == 1:
            yield kept[0]


def _readings(name: str) -> Iterator[list[str]]:
    """The words of a name in small letters: split at all that is no letter, then at capitals (`HappyFace`) too."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    for text in dict.fromkeys((name.lower(), parted.lower())):
        yield re.findall(r"[^\W\d_]+", text)


def _quoted(name: str) -> str:
    return "the top folder" if name == "." else repr(shown(name)[:_LONGEST_SHOWN])
