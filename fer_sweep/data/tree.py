"""A folder, an archive or a single file seen as one list of files, read in memory and never unpacked to disk.

Archives are untrusted: absolute names, `..`, links, encryption and decompression bombs are refused on opening,
before a byte of content is read.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self, TypeVar, cast

from fer_sweep.errors import DataError, printable

MAX_FILES = 500_000
MAX_BYTES = 4 << 30
"""Of all files, unpacked. FER2013 as CSV has 0.3 GB."""
MAX_RATIO = 100
"""Unpacked over packed size, from 32 MiB on. Pixels as text shrink three to four times, zeros a thousand times."""
MAX_EXTENSION = 8 << 10
"""Bytes of one extended header in a tar, such as a long name. Python before 3.11.10 takes minutes for a megabyte of
digits there (CVE-2024-6232)."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_COMPRESSED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""What opens a compressed file, by how it begins."""
_ENDINGS = re.compile(r"\.(gz|bz2|xz)$")
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_HEAD = 512
"""Bytes that tell an archive from another file."""
_PIECE = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Member:
    """One file of a tree."""

    path: PurePosixPath
    """Relative to the tree's root."""
    size: int
    """Bytes, unpacked."""


@dataclass(frozen=True)
class Tree:
    """Files under one root."""

    name: str
    """The folder's or archive's own name, for messages."""
    members: tuple[Member, ...]
    """Sorted by path, without what file managers leave behind."""
    opener: Callable[[Member], AbstractContextManager[IO[bytes]]]
    lock: AbstractContextManager[object] = field(default_factory=contextlib.nullcontext)
    """Held by ``read``, which several threads may call."""

    def read(self, member: Member, *, limit: int | None = None) -> bytes:
        """The content of one file.

        Raises:
            DataError: It cannot be read, is longer than ``limit`` bytes, or not as long as the archive says.
        """
        if limit is not None and member.size > limit:
            raise hostile(self.label(member), f"{member.size >> 20} MiB is too much for such a file")
        with self.lock, self.open(member) as stream:
            content = stream.read(member.size + 1)
        if len(content) != member.size:
            raise DataError(
                f"{self.label(member)}: {member.size} bytes promised, {len(content)} or more found",
                hint="the file is truncated or damaged: download it again",
            )
        return content

    def head(self, member: Member, count: int = _HEAD) -> bytes:
        """The first bytes of one file."""
        with self.open(member) as stream:
            return stream.read(count)

    @contextlib.contextmanager
    def open(self, member: Member) -> Iterator[IO[bytes]]:
        """Open one file for reading; see ``readable`` for what its block raises."""
        with readable(self.label(member)), self.opener(member) as stream:
            yield stream

    def label(self, member: Member) -> str:
        """How messages name one file, on one line whatever its name."""
        return shown(self.name if str(member.path) == self.name else f"{self.name}: {member.path}")


def shown(name: object) -> str:
    """A name as it may be printed: on one line, and with no control characters."""
    return printable(str(name)).translate({ord("\n"): "\\n", ord("\t"): "\\t"})


def hostile(archive: str, why: str) -> DataError:
    """The error that an archive is refused with."""
    return DataError(
        f"{archive}: refused: {why}",
        hint="get it from another place, or if you trust it unpack it yourself and give the folder",
    )


@contextlib.contextmanager
def readable(label: str) -> Iterator[None]:
    """Turn what Python's readers raise over damaged content into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # over damaged bytes zipfile, tarfile, zlib, csv and pyarrow raise a dozen kinds
        reason = str(error) or type(error).__name__
        hint = "the file is truncated, damaged or protected: check it, or download it again"
        raise DataError(f"{label}: cannot be read: {reason}", hint=hint) from error


@contextlib.contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Open a folder, a zip, a tar or any single file; the last two also compressed by gzip, bzip2 or xz.

    Raises:
        DataError: It does not exist, is damaged, or is an archive that must not be trusted.
    """
    label = shown(path.absolute().name or str(path))
    with contextlib.ExitStack() as stack:
        with readable(label):  # such as a name that is too long, or a folder without permission
            if path.is_dir():
                tree = _folder(path, label)
            elif path.is_file():
                tree = open_stream(stack.enter_context(path.open("rb")), label)
            elif path.exists():
                hint = "give a folder, an archive, a CSV or a parquet"
                raise DataError(f"{label}: neither a file nor a folder", hint=hint)
            else:
                address = re.match(r"\w{2,}:/", str(path))
                hint = "an address is not read: download it first" if address else f"looked for {path.absolute()}"
                raise DataError(f"{label}: no such file or folder", hint=hint)
        yield tree


def open_stream(stream: IO[bytes], name: str) -> Tree:
    """The files of an archive, or a single file, that is already open for reading; raises as ``open_tree`` does."""
    with readable(name):
        head, size = _head_and_size(stream)
        packed = size
        if size == 0:
            raise DataError(f"{name}: the file is empty", hint="download it again")
        if opener := next((opener for begin, opener in _COMPRESSED.items() if head.startswith(begin)), None):
            stream = _decompressed(opener(stream), name, packed)
            head, size = _head_and_size(stream)
        if head.startswith(_ZIP):
            return _zip(zipfile.ZipFile(stream), name, packed)
        if _is_tar(head):
            return _tar(tarfile.open(fileobj=stream, mode="r:", tarinfo=_Header), name, size)
        member = Member(PurePosixPath(_ENDINGS.sub("", name)), size)
        return Tree(str(member.path), (member,), lambda _: _rewound(stream))


def is_archive(tree: Tree, member: Member) -> bool:
    """Whether a file of a tree is a zip, a tar or compressed by gzip, bzip2 or xz."""
    head = tree.head(member)
    return head.startswith((*_ZIP, *_COMPRESSED)) or _is_tar(head)


def _head_and_size(stream: IO[bytes]) -> tuple[bytes, int]:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(_HEAD)
    stream.seek(0)
    return head, size


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _rewound(stream: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    stream.seek(0)
    return contextlib.nullcontext(stream)  # the stream stays open, to be read again


def _folder(root: Path, name: str) -> Tree:
    places: dict[Member, Path] = {}
    seen: set[str] = set()
    # Links are followed: the folder is the user's own, and download caches are made of them.
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()  # a link back up would be walked for ever
            continue
        seen.add(real)
        for file in files:
            place = Path(folder) / file
            status = place.stat()
            relative = PurePosixPath(place.relative_to(root).as_posix())
            if stat.S_ISREG(status.st_mode) and not _is_clutter(relative):
                places[Member(relative, status.st_size)] = place
        if len(places) > MAX_FILES:
            raise hostile(name, f"more than {MAX_FILES:,} files")
    return Tree(name, _sorted(places), lambda member: places[member].open("rb"))


def _zip(archive: zipfile.ZipFile, name: str, packed: int) -> Tree:
    def entries() -> Iterator[tuple[str, int, zipfile.ZipInfo]]:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise hostile(name, f"{shown(info.filename)} is a link or device")
            if info.flag_bits & 0x1:
                hint = "unpack it with its password first, then give the folder"
                raise DataError(f"{name}: {shown(info.filename)} is encrypted", hint=hint)
            yield info.filename, info.file_size, info

    infos = _checked(name, entries())
    check_ratio(name, sum(member.size for member in infos), packed)
    return Tree(name, _sorted(infos), lambda member: archive.open(infos[member]))


def _tar(archive: tarfile.TarFile, name: str, size: int) -> Tree:
    def entries() -> Iterator[tuple[str, int, tarfile.TarInfo]]:
        for info in archive:
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise hostile(name, f"{shown(info.name)} is a link, a device or a sparse file")
            yield info.name, info.size, info

    infos = _checked(name, entries())
    stream = cast(IO[bytes], archive.fileobj)
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0") or archive.offset >= size:
        # tarfile takes a cut or a damaged header for the end; the real end is a block of zeros
        raise DataError(f"{name}: the archive ends too early, after {len(infos)} files", hint="download it again")
    # One stream, so one thread at a time.
    return Tree(name, _sorted(infos), lambda m: cast(IO[bytes], archive.extractfile(infos[m])), threading.Lock())


class _Header(tarfile.TarInfo):
    """Refuses an extended header that tarfile would take minutes to read, before it does."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED and info.size > MAX_EXTENSION:
            raise hostile("the archive", f"an extended header of {info.size >> 10} KiB")
        return info


def _checked(name: str, entries: Iterable[tuple[str, int, T]]) -> dict[Member, T]:
    """The files of an archive, whose entries are names, sizes unpacked and what reads them, once they are checked."""
    found: dict[PurePosixPath, tuple[Member, T]] = {}
    total = 0
    for raw, size, info in entries:
        path = PurePosixPath(raw.replace("\\", "/"))  # as some programs on Windows write it
        if path.is_absolute() or ".." in path.parts or "\0" in raw or re.match(r"[A-Za-z]:", raw):
            raise hostile(name, f"{raw!r} leads out of it")
        total += size
        if total > MAX_BYTES or len(found) >= MAX_FILES:
            raise hostile(name, f"it unpacks to more than {MAX_FILES:,} files or {MAX_BYTES >> 30} GiB")
        if path in found:
            raise hostile(name, f"{shown(raw)} is there twice")
        if not _is_clutter(path):
            found[path] = Member(path, size), info
    return dict(found.values())


def _decompressed(stream: IO[bytes], name: str, packed: int) -> IO[bytes]:
    """The content of a compressed file, in memory: in any other order, the members of such a tar are slow to read."""
    unpacked = io.BytesIO()
    while piece := stream.read(_PIECE):
        unpacked.write(piece)
        check_ratio(name, unpacked.tell(), packed)
        if unpacked.tell() > MAX_BYTES:
            raise hostile(name, f"it unpacks to more than {MAX_BYTES >> 30} GiB")
    return unpacked


def check_ratio(archive: str, size: int, packed: int) -> None:
    """Refuse a decompression bomb by the bytes of the whole archive: its members may share packed ones."""
    if size > 32 << 20 and size > MAX_RATIO * packed:
        raise hostile(archive, f"it unpacks to {size // packed} times its size: a decompression bomb")


def _is_clutter(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return hidden or path.name.lower() in ("thumbs.db", "desktop.ini")


def _sorted(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.path.parts))
