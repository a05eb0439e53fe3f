"""Sources that are damaged, truncated or hostile: one DataError with a hint, and nothing is left in the cache.

Damage at random places is in ``fuzz/test_readers.py``.
"""

import io
import os
import stat
import struct
import tarfile
import zlib

import numpy as np
import pytest

from fer_sweep.data.cache import prepare
from fer_sweep.data.memory import bounded_memory
from fer_sweep.errors import DataError
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


def tar_with_large_header(kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 4 << 20
    member = tarfile.TarInfo("train/angry/a.png")
    return header.tobuf() + b"1" * (4 << 20) + member.tobuf() + bytes(1024)


def sparse_tar(kind, **headers):
    info = tarfile.TarInfo("train/angry/a.png")
    info.type, info.pax_headers = kind, {f"GNU.sparse.{name}": value for name, value in headers.items()}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


HEADING = b"emotion,pixels,Usage\n"
MAX_LINE = "line 2: over 65,536 characters"


def endless_row():
    return HEADING + b"," * (30 << 20)


def endless_row_packed():
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(endless_row()) + packer.flush()


def one_value_repeated_by_its_number():
    """A parquet file of 10 kB whose rows would take 20 GB."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = 20_000
    images = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([b"\xff\xd8" + bytes(1 << 20)]))
    table = pa.table({"jpg": images, "cls": pa.array([0] * rows)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
    content = sink.getvalue().to_pybytes()
    assert len(content) < 10_000
    return content


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
    # To tarfile both are shorter archives with nothing wrong.
    "tar cut between two members": (TAR[:SECOND_HEADER], "ends too early"),
    "tar with a damaged header": (TAR[:SECOND_HEADER] + b"\xff" * 8 + TAR[SECOND_HEADER + 8 :], "ends too early"),
    **{
        f"tar with a large header of type {kind!r}": (tar_with_large_header(kind), "header of 4096 K")
        for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
    },
    "sparse tar": (sparse_tar(tarfile.GNUTYPE_SPARSE), "sparse"),
    "sparse tar by its extended header": (
        sparse_tar(tarfile.REGTYPE, major="1", minor="0", name="x", realsize="9"),
        "cannot be read",
    ),
    "empty file": (b"", "is empty"),
    "empty zip": (zipped({}), "it holds nothing"),
    "other content": (zipped({"readme.txt": b"hello"}), r"it holds readme\.txt"),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_file_is_refused(name, tmp_path):
    content, match = FILES[name]
    (tmp_path / "a.bin").write_bytes(content)
    refused(tmp_path / "a.bin", match)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", endless_row, MAX_LINE),
        ("a.csv.gz", endless_row_packed, MAX_LINE),
        ("a.csv", lambda: HEADING + b'"\n",' * (1 << 20), "line 2: only 1 columns"),
        ("a.parquet", one_value_repeated_by_its_number, "a decompression bomb"),
    ],
)
def test_table_that_would_take_all_memory_or_time_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content())
    refused(tmp_path / name, message)


def test_source_is_refused_when_reading_it_takes_too_much_memory(monkeypatch):
    monkeypatch.setattr("fer_sweep.data.memory.MAX_MEMORY", 128 << 20)
    with pytest.raises(DataError, match=r"a\.parquet: refused: reading it takes over"), bounded_memory("a.parquet"):
        np.empty(1 << 30, np.uint8)  # more than could be freed meanwhile; never touched
    np.empty(1 << 30, np.uint8)


def test_name_in_an_archive_is_shown_without_control_characters(tmp_path):
    hostile = {"train/angry/line\nhint: run me \x1b[31m\u202e.png": b"no image"}
    with pytest.raises(DataError) as caught:
        prepare(write_zip(tmp_path / "a.zip", hostile))
    assert str(caught.value).isprintable()


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
