"""Sources that are wrong, truncated, empty or hostile: one clear DataError, and nothing is left behind."""

import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.data import store
from fer_sweep.data.cache import list_datasets, prepare
from fer_sweep.data.ferplus import relabel
from fer_sweep.data.images import decode
from fer_sweep.data.layout import RawFaces
from fer_sweep.errors import DataError

unflaky = settings(derandomize=True, deadline=None, database=None, max_examples=150)


def refused(source, match):
    """Preparing it raises a DataError with a hint, and leaves no trace in the cache."""
    with pytest.raises(DataError, match=match) as caught:
        prepare(source)
    assert caught.value.hint
    assert list_datasets() == []
    if store.data_folder().exists():
        assert [path.name for path in store.data_folder().iterdir() if path.name != ".lock"] == []


@pytest.mark.parametrize(
    "name", ["../evil.png", "train/../../evil.png", "/etc/evil.png", "C:/evil.png", "a\\..\\b.png"]
)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out_of_the_archive(faces, pack, tmp_path, name, kind):
    source = pack[kind](tmp_path / "evil.bin", faces.kaggle_files() | {name: faces.encoded(0)})
    refused(source, "leads out of it")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path, kind):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        info = tarfile.TarInfo("train/angry/a.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refused(tmp_path / "evil.tar", "is a link, a device")


def test_a_link_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        info = zipfile.ZipInfo("train/angry/a.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "evil.zip", "is a link or device")


def test_a_zip_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/angry/a.png", bytes(40 << 20))
    refused(tmp_path / "bomb.zip", "a decompression bomb")


def test_a_zip_whose_members_are_small_bombs_each(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"train/angry/{number}.png", bytes(1 << 20))
    refused(tmp_path / "bomb.zip", "the archive unpacks to .* a decompression bomb")


def test_a_gzip_bomb(pack, tmp_path):
    source = pack["tar.gz"](tmp_path / "bomb.tar.gz", {"train/angry/a.png": bytes(40 << 20)})
    refused(source, "a decompression bomb")


def test_a_zip_that_lies_about_a_members_size(faces, pack, tmp_path):
    source = pack["zip"](tmp_path / "a.zip", faces.kaggle_files())
    content = bytearray(source.read_bytes())
    place = content.rfind(b"PK\x01\x02")  # the last entry of the directory; its unpacked size is 24 bytes on
    (size,) = struct.unpack_from("<I", content, place + 24)
    struct.pack_into("<I", content, place + 24, size - 100)
    source.write_bytes(content)
    refused(source, "cannot be read|promised|not a readable image")


def test_an_image_bomb(faces, pack, tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    refused(
        pack["zip"](tmp_path / "a.zip", faces.kaggle_files() | {"train/sad/Training_1.png": png}), r"Training_1\.png"
    )
    smaller = png.replace(chunk(b"IHDR", header), chunk(b"IHDR", struct.pack(">IIBBBBB", 5000, 5000, 8, 0, 0, 0, 0)))
    refused(pack["zip"](tmp_path / "b.zip", {"train/sad/a.png": smaller}), "5000x5000 pixels is refused")


def test_gif_with_a_huge_frame_on_a_small_screen_is_refused(faces, pack, tmp_path):
    for side, message in ((60_000, "not a readable image"), (5000, "5000x5000 pixels is refused")):
        frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08\0;"
        gif = b"GIF89a" + struct.pack("<HHBBB", 48, 48, 0, 0, 0) + frame
        refused(pack["zip"](tmp_path / f"{side}.zip", {"train/sad/a.gif": gif}), rf"train/sad/a\.gif: .*{message}")


def test_an_encrypted_zip(faces, pack, tmp_path):
    source = pack["zip"](tmp_path / "a.zip", faces.kaggle_files())
    content = bytearray(source.read_bytes())
    place = content.rfind(b"PK\x01\x02")
    content[place + 8] |= 1
    source.write_bytes(content)
    refused(source, "is encrypted")


def test_a_member_that_is_there_twice(faces, pack, tmp_path):
    source = pack["zip"](tmp_path / "a.zip", faces.kaggle_files())
    name = next(iter(faces.kaggle_files()))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(source, "a") as archive:
        archive.writestr(name, b"something else")
    refused(source, "is there twice")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_archives(faces, pack, tmp_path, kind, share):
    source = pack[kind](tmp_path / f"a.{kind}", faces.kaggle_files())
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    refused(source, r"a\.(zip|tar|tar\.gz)\b.*(cannot be read|ends too early|no data set)")


def test_a_tar_cut_between_two_members(faces, pack, tmp_path):
    # To tarfile this is a shorter archive, with nothing wrong.
    source = pack["tar"](tmp_path / "a.tar", faces.kaggle_files())
    with tarfile.open(source) as archive:
        place = archive.getmembers()[60].offset
    source.write_bytes(source.read_bytes()[:place])
    refused(source, "ends too early")


def test_a_tar_with_a_damaged_header_in_the_middle(faces, pack, tmp_path):
    source = pack["tar"](tmp_path / "a.tar", faces.kaggle_files())
    with tarfile.open(source) as archive:
        place = archive.getmembers()[60].offset
    content = bytearray(source.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    source.write_bytes(content)
    refused(source, "ends too early")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "an empty file in place of an image"),
        (b"<html>not found</html>", "not a readable image"),
        (b"GIF89a" + bytes(100), "not a readable image"),
    ],
)
def test_files_that_are_no_images_are_named(faces, pack, tmp_path, content, match):
    files = faces.kaggle_files() | {"train/sad/Training_77.jpg": content}
    refused(pack["zip"](tmp_path / "a.zip", files), f"train/sad/Training_77.jpg: {match}")


def test_a_truncated_image_is_named(faces, pack, tmp_path):
    files = faces.kaggle_files() | {"train/sad/Training_77.jpg": faces.encoded(0, "JPEG")[:-200]}
    refused(pack["folder"](tmp_path / "a", files), r"train/sad/Training_77\.jpg: not a readable image: .*truncated")


def test_sources_that_are_nothing(pack, tmp_path):
    refused(tmp_path / "none.zip", "no such file")
    (tmp_path / "empty.zip").write_bytes(b"")
    refused(tmp_path / "empty.zip", "is empty")
    refused(pack["zip"](tmp_path / "hollow.zip", {}), "it holds nothing")
    (tmp_path / "hollow").mkdir()
    refused(tmp_path / "hollow", "it holds nothing")
    refused(pack["zip"](tmp_path / "text.zip", {"readme.txt": b"hello"}), r"it holds readme\.txt")
    (tmp_path / "head.csv").write_text("emotion,pixels,Usage\n")
    refused(tmp_path / "head.csv", "a header and no rows")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "neither a file nor a folder")


def test_a_pipe_within_a_folder_is_passed_over(faces, pack, tmp_path):
    source = pack["folder"](tmp_path / "a", faces.kaggle_files())
    os.mkfifo(source / "train" / "angry" / "pipe.png")  # reading it would wait for ever
    assert prepare(source).total == len(faces)


def test_only_test_images_or_too_few_to_divide(faces, pack, tmp_path):
    files = faces.kaggle_files()
    tests = {path: content for path, content in files.items() if path.startswith("test")}
    refused(pack["zip"](tmp_path / "a.zip", tests), r"a\.zip: no training images")
    refused(pack["zip"](tmp_path / "b.zip", {"train/sad/a.png": faces.encoded(0)}), "too few")


def test_what_file_managers_leave_behind_is_passed_over(faces, pack, tmp_path):
    files = faces.kaggle_files()
    clutter = {f"__MACOSX/{path}": b"\0\5\26\7" for path in files}
    clutter |= {"train/.DS_Store": b"x", "train/sad/Thumbs.db": b"x", "train/sad/._Training_1.jpg": b"x"}
    assert prepare(pack["zip"](tmp_path / "a.zip", files | clutter)).total == len(faces)


def test_a_name_that_would_leave_the_cache_is_refused(faces, pack, tmp_path):
    source = pack["zip"](tmp_path / "a.zip", faces.kaggle_files())
    for name in ("../up", "a/b", ".hidden", "synthetic", "x" * 65):
        with pytest.raises(DataError):
            prepare(source, name)


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


STARTS = {
    "a.zip": [b"PK\x03\x04", b"PK\x05\x06"],
    "a.tar.gz": [b"\x1f\x8b\x08\x00"],
    "a.tar": [bytes(257) + b"ustar\x0000"],
    "a.csv": [b"", b"emotion,pixels,Usage\n", b"emotion,pixels,Usage\n0,"],
    "a.parquet": [b"PAR1"],
}


@pytest.mark.parametrize("name", STARTS)
def test_preparing_any_bytes_raises_nothing_but_a_data_error(tmp_path, name):
    @unflaky
    @given(st.sampled_from(STARTS[name]), st.binary(max_size=1500))
    def check(start, content):
        (tmp_path / name).write_bytes(start + content + (b"PAR1" if name == "a.parquet" else b""))
        with pytest.raises(DataError):
            prepare(tmp_path / name)

    check()
    assert list_datasets() == []


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "csv"])
def test_damaging_any_bytes_of_a_good_source_raises_nothing_but_a_data_error(faces, pack, tmp_path, kind):
    if kind == "csv":
        good = faces.csv(rows=range(0, 98, 9)).encode()
    else:
        good = pack[kind](tmp_path / "good", dict(list(faces.kaggle_files().items())[::7])).read_bytes()
    source = tmp_path / f"bad.{kind}"
    damage = st.lists(
        st.tuples(st.integers(0, len(good) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
    )

    @settings(unflaky, max_examples=60)
    @given(damage)
    def check(places):
        content = bytearray(good)
        for place, patch in places:
            content[place : place + len(patch)] = patch
        source.write_bytes(content)
        try:
            prepare(source, replace=True)
        except DataError as error:
            assert error.hint

    check()


def test_any_bytes_as_ferplus_labels_raise_nothing_but_a_data_error(tmp_path):
    import numpy as np

    faces = RawFaces(
        "CSV", np.zeros((2, 48, 48), np.uint8), np.zeros(2, np.int64), np.zeros(2, np.uint8), True, (), True
    )
    header = b"Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"

    @unflaky
    @given(st.sampled_from([b"", header, header + b"Training,,1,"]), st.binary(max_size=300))
    def check(start, content):
        (tmp_path / "labels.csv").write_bytes(start + content)
        with pytest.raises(DataError):
            relabel(faces, tmp_path / "labels.csv")

    check()


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    # Sparse: it takes no room on disk, and reading it would take 2 GiB of memory.
    folder = tmp_path / "faces" / "train" / "angry"
    folder.mkdir(parents=True)
    with (folder / "a.png").open("wb") as stream:
        stream.truncate(2 << 30)
    refused(tmp_path / "faces", "2048 MiB is too much for such a file")
    shutil.rmtree(tmp_path / "faces")


def test_a_zip_within_a_zip_within_a_zip_is_not_followed(faces, pack, tmp_path):
    inner = pack["zip"](tmp_path / "inner.zip", faces.kaggle_files()).read_bytes()
    middle = pack["zip"](tmp_path / "middle.zip", {"inner.zip": inner})
    assert prepare(middle).total == len(faces)
    outer = pack["zip"](tmp_path / "outer.zip", {"middle.zip": middle.read_bytes()})
    with pytest.raises(DataError, match="no data set, but archives"):
        prepare(outer, "other")


def test_a_stream_of_zeros_in_gzip_is_stopped_early(tmp_path):
    buffer = io.BytesIO()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(60):
        buffer.write(packer.compress(bytes(1 << 20)))
    buffer.write(packer.flush())
    (tmp_path / "zeros.csv.gz").write_bytes(buffer.getvalue())
    refused(tmp_path / "zeros.csv.gz", "a decompression bomb")
