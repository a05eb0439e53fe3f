"""What an archive may hold: how much of it, and under which names. Everything else is refused."""

import re
from pathlib import PurePosixPath

from fer_sweep.errors import DataError, printable

MAX_FILES = 500_000
MAX_TOTAL = 4 << 30
"""Bytes in all, unpacked. FER2013 as CSV is 0.3 GB."""
MAX_FILE = 1 << 30
"""Bytes of one file, unpacked."""
MAX_RATIO = 100
"""Unpacked over packed size. Pixels as text shrink three to four times, zeros a thousand times."""
RATIO_FROM = 32 << 20
"""Bytes below which the ratio does not matter."""


def shown(name: object) -> str:
    """A name as it may be printed: on one line, and with no control characters."""
    return printable(str(name)).translate({ord("\n"): "\\n", ord("\t"): "\\t"})


def safe_path(raw: str, archive: str) -> PurePosixPath:
    """The path of a member.

    Raises:
        DataError: It leads out of the archive.
    """
    path = PurePosixPath(raw)
    if path.is_absolute() or ".." in path.parts or "\\" in raw or "\0" in raw or re.match(r"[A-Za-z]:", raw):
        raise hostile(archive, f"{raw!r} leads out of it")
    return path


def check_size(archive: str, member: str, size: int) -> None:
    """Refuse a file of more than MAX_FILE bytes."""
    if size > MAX_FILE:
        raise hostile(archive, f"{member} unpacks to {size >> 20} MiB, over {MAX_FILE >> 20}")


def check_amount(archive: str, count: int, total: int) -> None:
    """Refuse more than MAX_FILES files, or more than MAX_TOTAL bytes of them."""
    if count > MAX_FILES:
        raise hostile(archive, f"more than {MAX_FILES:,} files")
    if total > MAX_TOTAL:
        raise hostile(archive, f"it unpacks to more than {MAX_TOTAL >> 30} GiB")


def check_ratio(archive: str, what: str, size: int, packed: int) -> None:
    """Refuse what unpacks to more than MAX_RATIO times its size."""
    if size > RATIO_FROM and size > MAX_RATIO * max(packed, 1):
        raise hostile(archive, f"{what} unpacks to {size // max(packed, 1)} times its size: a decompression bomb")


def hostile(archive: str, why: str) -> DataError:
    """The error that an archive is refused with."""
    return DataError(
        f"{archive}: refused: {why}",
        hint="get it from another place, or if you trust it unpack it yourself and give the folder",
    )
