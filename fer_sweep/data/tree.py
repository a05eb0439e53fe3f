"""A folder, an archive or a single file seen as one list of files, read in memory and never unpacked to disk.

Archives are untrusted: absolute names, `..`, links, encryption and decompression bombs are refused on opening,
before a byte of content is read.
"""

import contextlib
import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self

from fer_sweep.data.limits import check_amount, check_ratio, check_size, hostile, safe_path, shown
from fer_sweep.errors import DataError

MAX_DIRECTORY = 64 << 20
"""Bytes of a zip's own list of members. Python holds six times as much of it, before a member can be looked at."""
MAX_EXTENSION = 8 << 10
"""Bytes of one extended header in a tar, such as a long name. Python before 3.11.10 takes minutes for a megabyte of
digits there (CVE-2024-6232)."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP = b"\x1f\x8b"
_TAR_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_ZIP_TAIL = (64 << 10) + 200
"""Bytes at a zip's end that hold its last records, whatever comment follows them."""
_HEAD = 512
"""Bytes that tell an archive from another file."""


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
    opener: Callable[[Member], IO[bytes]]
    threads: bool = True
    """Whether ``read`` may be called from several threads; a tar is one stream."""

    def read(self, member: Member, *, limit: int | None = None) -> bytes:
        """The content of one file.

        Raises:
            DataError: It cannot be read, is longer than ``limit`` bytes, or not as long as the archive says.
        """
        if limit is not None and member.size > limit:
            raise hostile(self.label(member), f"{member.size >> 20} MiB is too much for such a file")
        with readable(self.label(member)), self.opener(member) as stream:
            content = stream.read(member.size + 1)
        if len(content) != member.size:
            raise DataError(
                f"{self.label(member)}: {member.size} bytes promised, {len(content)} or more found",
                hint="the file is truncated or damaged: download it again",
            )
        return content

    def head(self, member: Member, count: int) -> bytes:
        """The first bytes of one file."""
        with readable(self.label(member)), self.opener(member) as stream:
            return stream.read(count)

    @contextlib.contextmanager
    def open(self, member: Member) -> Iterator[IO[bytes]]:
        """Open one file for reading."""
        with readable(self.label(member)):
            stream = self.opener(member)
        with stream:
            yield stream

    def label(self, member: Member) -> str:
        """How messages name one file, on one line whatever its name."""
        return shown(self.name if str(member.path) == self.name else f"{self.name}: {member.path}")


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
    """Open a folder, a zip, a tar (gzipped or not) or any single file.

    Raises:
        DataError: It does not exist, is damaged, or is an archive that must not be trusted.
    """
    label = shown(path.name or str(path))
    with readable(label):  # a name too long, or a folder that may not be looked into
        exists, is_folder, is_file = path.exists(), path.is_dir(), path.is_file()
    if not exists:
        raise DataError(f"{label}: no such file or folder", hint=f"looked for {path.absolute()}")
    if is_folder:
        with readable(label):
            tree = _folder(path, label)
        yield tree
        return
    if not is_file:
        raise DataError(f"{label}: neither a file nor a folder", hint="give a folder, an archive, a CSV or a parquet")
    with readable(label):
        stream = path.open("rb")
        size = path.stat().st_size
    with stream, open_stream(stream, label, size) as tree:
        yield tree


@contextlib.contextmanager
def open_stream(stream: IO[bytes], name: str, size: int) -> Iterator[Tree]:
    """Open an archive, or a single file, that is already open for reading."""
    if size == 0:
        raise DataError(f"{name}: the file is empty", hint="download it again")
    with contextlib.ExitStack() as stack:
        with readable(name):
            head = stream.read(_HEAD)
            stream.seek(0)
            if head.startswith(_GZIP):
                stream = _unzipped(stream, name, size)
                head = stream.read(_HEAD)
                stream.seek(0)
            if head.startswith(_ZIP):
                _check_directory(stream, name)
                tree = _zip(stack.enter_context(zipfile.ZipFile(stream)), name, size)
            elif _is_tar_head(head):
                tree = _tar(stack.enter_context(tarfile.open(fileobj=stream, mode="r:", tarinfo=_Member)), stream, name)
            else:
                tree = _single(stream, name.removesuffix(".gz"), stream.seek(0, io.SEEK_END))
        yield tree


def is_archive(tree: Tree, member: Member) -> bool:
    """Whether a file of a tree is a zip, a tar or gzipped."""
    head = tree.head(member, _HEAD)
    return head.startswith((*_ZIP, _GZIP)) or _is_tar_head(head)


def is_tar(tree: Tree, member: Member) -> bool:
    """Whether a file of a tree is a tar that is not gzipped."""
    return _is_tar_head(tree.head(member, _HEAD))


def _folder(root: Path, name: str) -> Tree:
    members: list[Member] = []
    places: dict[PurePosixPath, Path] = {}
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
                members.append(Member(relative, status.st_size))
                places[relative] = place
        check_amount(name, len(members), 0)
    return Tree(name, _sorted(members), lambda member: places[member.path].open("rb"))


def _zip(archive: zipfile.ZipFile, name: str, packed: int) -> Tree:
    members: list[Member] = []
    infos: dict[PurePosixPath, zipfile.ZipInfo] = {}
    total = 0
    for info in archive.infolist():
        path = safe_path(info.filename, name)
        if info.is_dir():
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise hostile(name, f"{shown(info.filename)} is a link or device")
        if info.flag_bits & 0x1:
            hint = "unpack it with its password first, then give the folder"
            raise DataError(f"{name}: {shown(info.filename)} is encrypted", hint=hint)
        total += info.file_size
        check_size(name, info.filename, info.file_size)
        check_ratio(name, info.filename, info.file_size, info.compress_size)
        check_amount(name, len(members), total)
        if _is_clutter(path):
            continue
        if path in infos:
            raise hostile(name, f"{shown(info.filename)} is there twice")
        members.append(Member(path, info.file_size))
        infos[path] = info
    check_ratio(name, "the archive", total, packed)  # of the whole, since members may share packed bytes
    return Tree(name, _sorted(members), lambda member: archive.open(infos[member.path]))


def _tar(archive: tarfile.TarFile, stream: IO[bytes], name: str) -> Tree:
    members: list[Member] = []
    infos: dict[PurePosixPath, tarfile.TarInfo] = {}
    total = 0
    for info in archive:
        path = safe_path(info.name, name)
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise hostile(name, f"{shown(info.name)} is a link, a device or a sparse file")
        total += info.size
        check_size(name, info.name, info.size)
        check_amount(name, len(members), total)
        if _is_clutter(path):
            continue
        if path in infos:
            raise hostile(name, f"{shown(info.name)} is there twice")
        members.append(Member(path, info.size))
        infos[path] = info
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0") or archive.offset >= stream.seek(0, io.SEEK_END):
        # tarfile takes a cut or a damaged header for the end; the real end is a block of zeros
        raise DataError(f"{name}: the archive ends too early, after {len(members)} files", hint="download it again")

    def opener(member: Member) -> IO[bytes]:
        content = archive.extractfile(infos[member.path])
        if content is None:
            raise DataError(f"{name}: {shown(member.path)} is not a file", hint="pack the archive again")
        return content

    return Tree(name, _sorted(members), opener, threads=False)


def _single(stream: IO[bytes], name: str, size: int) -> Tree:
    def opener(_member: Member) -> IO[bytes]:
        stream.seek(0)
        return io.BufferedReader(_KeepOpen(stream))

    return Tree(name, (Member(PurePosixPath(name), size),), opener)


class _KeepOpen(io.RawIOBase):
    """Reads from a stream that outlives it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _is_tar_head(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _unzipped(stream: IO[bytes], name: str, packed: int) -> IO[bytes]:
    """The content of a gzip, in memory: members of a gzipped tar could else be read in its own order only."""
    unpacked = io.BytesIO()
    with gzip.GzipFile(fileobj=stream) as packed_stream:
        while chunk := packed_stream.read(1 << 20):
            unpacked.write(chunk)
            check_size(name, "it", unpacked.tell())
            check_ratio(name, "it", unpacked.tell(), packed)
    unpacked.seek(0)
    return unpacked


def _check_directory(stream: IO[bytes], name: str) -> None:
    """Refuse a zip whose list of members is huge, by the record at its end that says so."""
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - _ZIP_TAIL))
    tail = stream.read()
    stream.seek(0)
    stated = [
        int.from_bytes(tail[place + offset : place + offset + length], "little")
        for record, offset, length in ((b"PK\x05\x06", 12, 4), (b"PK\x06\x06", 40, 8))
        if (place := tail.rfind(record)) >= 0
    ]
    # Where both are there, the 32-bit one may be full of ones, and zipfile takes the other.
    if stated and stated[-1] > MAX_DIRECTORY:
        raise hostile(name, f"its list of members has {stated[-1] >> 20} MiB")


class _Member(tarfile.TarInfo):
    """Refuses what tarfile would take minutes and gigabytes to read, before it does."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _TAR_EXTENSIONS and info.size > MAX_EXTENSION:
            raise hostile("the archive", f"an extended header of {info.size >> 10} KiB")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise hostile("the archive", f"{shown(info.name)} is a sparse file")
        return info

    def _proc_gnusparse_10(self, *_: object) -> None:  # tarfile's own name: a map of any length before the content
        raise hostile("the archive", "it holds a sparse file")


def _is_clutter(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts) or path.name == "Thumbs.db"


def _sorted(members: list[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.path.parts))
