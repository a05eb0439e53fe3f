"""Sources that are damaged, truncated or hostile: one DataError with a hint, and nothing is left in the cache."""

import io
import os
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.data.cache import prepare
from fer_sweep.data.images import decode
from fer_sweep.errors import DataError
from tests.data.conftest import refused
from tests.support.faces import PACK, Faces, png_of_size, tar_bytes, write_folder, write_zip

unflaky = settings(derandomize=True, deadline=None, database=None, max_examples=150)


def tar_of(kind: bytes) -> bytes:
    """A tar with one member that is a link or a device."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("train/angry/a.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def good_zip(faces: Faces) -> bytes:
    return zip_of(*faces.files().items())


def patched(content: bytes, place: int, value: bytes) -> bytes:
    return content[:place] + value + content[place + len(value) :]


def last_entry_patched(faces: Faces, offset: int, layout: str, change: Callable[[int], int]) -> bytes:
    """A zip with another number in the last entry of its directory."""
    content = good_zip(faces)
    place = content.rfind(b"PK\x01\x02") + offset
    (value,) = struct.unpack_from(layout, content, place)
    return patched(content, place, struct.pack(layout, change(value)))


def header_of(faces: Faces) -> tuple[bytes, int]:
    """A tar, and where the header of a member in its middle begins."""
    content = tar_bytes(faces.files())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return content, archive.getmembers()[60].offset


def cut_tar(faces: Faces) -> bytes:
    """A tar that ends between two members: to tarfile a shorter archive, with nothing wrong."""
    content, place = header_of(faces)
    return content[:place]


def gif(side: int) -> bytes:
    """A huge frame on a small screen."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 48, 48, 0, 0, 0) + frame


def zeros(mebibytes: int) -> bytes:
    """Gzipped."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(mebibytes)] + [packer.flush()])


A = "train/angry/a.png"
FILES: Mapping[str, tuple[Callable[[Faces], bytes], str]] = {
    **{
        f"tar with a member of type {kind!r}": (lambda f, kind=kind: tar_of(kind), "is a link, a device")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    },
    "link in a zip": (
        lambda f: zip_of((A, b"/etc/passwd"), mode=stat.S_IFLNK | 0o777),
        "is a link or device",
    ),
    "bomb": (lambda f: zip_of((A, bytes(40 << 20))), "a decompression bomb"),
    "many small bombs": (
        lambda f: zip_of(*((f"train/angry/{i}.png", bytes(1 << 20)) for i in range(40))),
        "the archive unpacks to .* a decompression bomb",
    ),
    "gzipped bomb": (lambda f: tar_bytes({A: bytes(40 << 20)}, "w:gz"), "a decompression bomb"),
    "gzipped zeros": (lambda f: zeros(60), "a decompression bomb"),
    "wrong size in a zip": (
        lambda f: last_entry_patched(f, 24, "<I", lambda size: size - 100),
        "cannot be read|promised|not a readable image",
    ),
    "encrypted zip": (lambda f: last_entry_patched(f, 8, "B", lambda flags: flags | 1), "is encrypted"),
    "member twice": (lambda f: zip_of(*f.files().items(), (next(iter(f.files())), b"other")), "is there twice"),
    "tar cut between two members": (cut_tar, "ends too early"),
    "tar with a damaged header": (lambda f: patched(*header_of(f), b"\xff" * 8), "ends too early"),
    "empty file": (lambda f: b"", "is empty"),
    "empty zip": (lambda f: zip_of(), "it holds nothing"),
    "other content": (lambda f: zip_of(("readme.txt", b"hello")), r"it holds readme\.txt"),
    "CSV header alone": (lambda f: b"emotion,pixels,Usage\n", "a header and no rows"),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_file_is_refused(name, faces, tmp_path):
    content, match = FILES[name]
    suffix = "csv" if name.startswith(("CSV", "gzipped zeros")) else "bin"
    (tmp_path / f"a.{suffix}").write_bytes(content(faces))
    refused(tmp_path / f"a.{suffix}", match)


@pytest.mark.parametrize("name", ["../evil.png", "train/../../evil.png", "/etc/evil.png", "C:/e.png", "a\\..\\b.png"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out_of_the_archive_are_refused(name, kind, faces, tmp_path):
    refused(PACK[kind](tmp_path / "evil.bin", {A: faces.encoded(0), name: faces.encoded(0)}), "leads out of it")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_archive_is_refused(faces, tmp_path, kind, share):
    source = PACK[kind](tmp_path / f"a.{kind}", faces.files())
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    refused(source, r"a\.(zip|tar|tar\.gz)\b.*(cannot be read|ends too early|no data set)")


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("a.jpg", "an empty file in place of an image"),
        ("b.jpg", "not a readable image"),
        ("c.jpg", "not a readable image: .*truncated"),
        ("d.gif", "not a readable image"),
        ("60000.png", ""),
        ("5000.png", "5000x5000 pixels is refused"),
        ("60000.gif", "not a readable image"),
        ("5000.gif", "5000x5000 pixels is refused"),
    ],
)
def test_file_that_is_no_image_is_named(file, match, faces, tmp_path):
    contents = {
        "a.jpg": b"",
        "b.jpg": b"<html>not found</html>",
        "c.jpg": faces.encoded(0, "JPEG")[:-200],
        "d.gif": b"GIF89a" + bytes(100),
        **{f"{side}.png": png_of_size(side) for side in (60_000, 5000)},
        **{f"{side}.gif": gif(side) for side in (60_000, 5000)},
    }
    files = {A: faces.encoded(0), f"train/sad/{file}": contents[file]}
    refused(write_folder(tmp_path / "a", files), rf"train/sad/{file}: .*{match}")


def test_huge_file_is_refused_before_it_is_read(tmp_path):
    file = write_folder(tmp_path / "faces", {A: b""}) / A
    os.truncate(file, 2 << 30)  # sparse: no room on disk, and reading it would take 2 GiB of memory
    refused(tmp_path / "faces", "2048 MiB is too much for such a file")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "it holds nothing"),
        (os.mkfifo, "neither a file nor a folder"),
    ],
)
def test_path_that_holds_no_source_is_refused(make, match, tmp_path):
    make(tmp_path / "a.zip")
    refused(tmp_path / "a.zip", match)


def test_pipe_within_a_folder_is_passed_over(faces, tmp_path):
    source = write_folder(tmp_path / "a", faces.files())
    os.mkfifo(source / "train" / "angry" / "pipe.png")  # reading it would block
    assert prepare(source).total == len(faces)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "synthetic", "x" * 65])
def test_name_that_would_leave_the_cache_is_refused(name, faces, tmp_path):
    refused(write_zip(tmp_path / "a.zip", faces.files()), "cannot name a data set|the drawn faces' own", name=name)


@unflaky
@given(st.binary(max_size=3000))
def test_decoding_any_bytes_raises_nothing_but_a_data_error(content):
    starts = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", b"P5 48 48 255 ", b"RIFF    WEBPVP8 ")
    starts += (b"GIF89a0\0000\0\0\0\0,", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08")
    for start in (b"", *starts):
        try:
            image, _ = decode(start + content, "x")
        except DataError:
            continue
        assert image.shape == (48, 48)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "csv", "parquet"])
def test_damaging_any_bytes_of_a_source_raises_nothing_but_a_data_error(kind, faces, tmp_path):
    if kind in ("csv", "parquet"):
        rows = range(0, 98, 9)
        good = faces.csv(rows=rows).encode() if kind == "csv" else faces.parquet(rows)
    else:
        good = PACK[kind](tmp_path / "good", dict(list(faces.files().items())[::7])).read_bytes()
    places = st.tuples(st.integers(0, len(good) - 1), st.binary(min_size=1, max_size=8))

    @settings(unflaky, max_examples=60)
    @given(st.lists(places, min_size=1, max_size=4))
    def check(damage):
        content = bytearray(good)
        for place, patch in damage:
            content[place : place + len(patch)] = patch
        (tmp_path / f"bad.{kind}").write_bytes(content)
        try:
            prepare(tmp_path / f"bad.{kind}", replace=True)
        except DataError as error:
            assert error.hint

    check()
