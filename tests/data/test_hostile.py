"""Sources that are damaged, truncated or hostile: one DataError with a hint, and nothing is left in the cache.

Damage at random places is in ``fuzz/test_readers.py``.
"""

import io
import os
import stat
import struct
import tarfile
import zlib

import pytest

from fer_sweep.data.cache import prepare
from tests.data.conftest import refused
from tests.support.faces import PACK, tar_bytes, write_folder, write_zip

A, B = "train/angry/a.png", "train/angry/b.png"
FLAGS, SIZE, MODE = 8, 24, 40
"""Places in a zip's entry for a member: its flags, its size unpacked and the Unix mode of the file."""


def zipped(files):
    buffer = io.BytesIO()
    write_zip(buffer, files)
    return buffer.getvalue()


def zip_with(field, value):
    """A zip with other bytes in the entry for its only member."""
    content = zipped({A: bytes(1000)})
    place = content.rfind(b"PK\x01\x02") + field
    return content[:place] + value + content[place + len(value) :]


def tar_of(kind):
    """A tar with one member that is a link or a device."""
    info = tarfile.TarInfo(A)
    info.type, info.linkname = kind, "/etc/passwd"
    return info.tobuf() + bytes(1024)


XZ_OF_A_GIGABYTE = (
    b"\xfd7zXZ\0\0\4\xe6\xd6\xb4\x46"  # what begins an xz file, with its checksum
    + (block := b"\2\0\x21\1\x24\0\0\0")  # one LZMA2 filter, whose dictionary has 1 GiB
    + zlib.crc32(block).to_bytes(4, "little")
    + bytes(64)
)
TAR = tar_bytes({A: bytes(1000), B: bytes(1000)})
SECOND_HEADER = TAR.find(B.encode())
FILES = {
    **{
        f"tar with a member of type {kind!r}": (tar_of(kind), "is a link, a device")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    },
    "link in a zip": (zip_with(MODE, struct.pack("<H", stat.S_IFLNK | 0o777)), "is a link or device"),
    "encrypted zip": (zip_with(FLAGS, b"\1\0"), r"a\.png is encrypted"),
    "wrong size in a zip": (zip_with(SIZE, struct.pack("<I", 900)), "cannot be read"),
    "member twice": (zipped({A: b"1", B: b"2"}).replace(B.encode(), A.encode()), "is there twice"),
    "bomb": (zipped({A: bytes(40 << 20)}), "it unpacks to .* a decompression bomb"),
    "many small bombs": (
        zipped({f"train/angry/{i}.png": bytes(1 << 20) for i in range(40)}),
        "it unpacks to .* a decompression bomb",
    ),
    **{
        f"{kind} bomb": (tar_bytes({A: bytes(40 << 20)}, f"w:{kind}"), "it unpacks to .* a decompression bomb")
        for kind in ("gz", "bz2", "xz")
    },
    "xz that takes a gigabyte to read": (XZ_OF_A_GIGABYTE, "cannot be read: Memory usage limit exceeded"),
    "xz that is cut within its header": (XZ_OF_A_GIGABYTE[:8], "cannot be read: it ends too early"),
    # To tarfile both are shorter archives with nothing wrong.
    "tar cut between two members": (TAR[:SECOND_HEADER], "ends too early"),
    "tar with a damaged header": (TAR[:SECOND_HEADER] + b"\xff" * 8 + TAR[SECOND_HEADER + 8 :], "ends too early"),
    "empty file": (b"", "is empty"),
    "empty zip": (zipped({}), "it holds nothing"),
    "other content": (zipped({"readme.txt": b"hello"}), r"it holds readme\.txt"),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_file_is_refused(name, tmp_path):
    content, match = FILES[name]
    (tmp_path / "a.bin").write_bytes(content)
    refused(tmp_path / "a.bin", match)


@pytest.mark.parametrize("name", ["../evil.png", "train/../../evil.png", "/etc/evil.png", "C:/e.png", "a\\..\\b.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_of_the_archive_are_refused(name, kind, tmp_path):
    refused(PACK[kind](tmp_path / "evil.bin", {A: b"1", name: b"2"}), "leads out of it")


def test_archive_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_sweep.data.tree.MAX_FILES", 1)
    refused(write_zip(tmp_path / "a.zip", {A: b"1", B: b"2"}), "more than 1 files")


@pytest.mark.parametrize("kind", [kind for kind in PACK if kind != "folder"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_archive_is_refused(faces, tmp_path, kind, share):
    source = PACK[kind](tmp_path / f"a.{kind}", faces.files())
    os.truncate(source, int(source.stat().st_size * share))
    refused(source, r"a\.(zip|tar).*(cannot be read|ends too early|no data set)")


def test_image_that_cannot_be_read_is_named_and_a_huge_one_not_read(tmp_path):
    source = write_folder(tmp_path / "a", {A: b"<html>not found</html>"})
    refused(source, r"train/angry/a\.png: not an image but an HTML page", "login")
    os.truncate(source / A, 2 << 30)  # sparse: no room on disk, and reading it would take 2 GiB of memory
    refused(source, "2048 MiB is too much for such a file")


def test_pipes_are_neither_opened_nor_a_source(faces, tmp_path):
    source = write_folder(tmp_path / "a", faces.files())
    os.mkfifo(source / "train" / "angry" / "pipe.png")  # reading it would block
    assert prepare(source).total == len(faces)
    refused(source / "train" / "angry" / "pipe.png", "neither a file nor a folder")


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "synthetic", "x" * 65])
def test_name_that_would_leave_the_cache_is_refused(name, faces, tmp_path):
    refused(write_zip(tmp_path / "a.zip", faces.files()), "cannot name a data set|the drawn faces' own", name=name)
