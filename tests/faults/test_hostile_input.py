"""What somebody else may have written is refused by name: no traceback, no hang, no unbounded memory.

Here: data sets, and names that become paths. Sweep files are in config/test_sweep_yaml.py, checkpoints and a trial's
files in training/, weights in models/, printed text in cli/test_printing.py, more archives in data/test_hostile.py.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer_sweep.data.cache import list_datasets, prepare
from fer_sweep.data.memory import bounded_memory
from fer_sweep.errors import DataError, InputError
from fer_sweep.files import sweep_folder, trial_folder


def tar_with_large_header(kind: bytes) -> bytes:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 4 << 20
    member = tarfile.TarInfo("train/angry/a.png")
    return header.tobuf() + b"1" * (4 << 20) + member.tobuf() + bytes(1024)


def sparse_tar(kind: bytes, **headers: str) -> bytes:
    info = tarfile.TarInfo("train/angry/a.png")
    info.type, info.pax_headers = kind, {f"GNU.sparse.{name}": value for name, value in headers.items()}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


HEADING = b"emotion,pixels,Usage\n"
MAX_LINE = "line 2: over 65,536 characters"


def endless_row() -> bytes:
    return HEADING + b"," * (30 << 20)


def endless_row_packed() -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(endless_row()) + packer.flush()


def one_value_repeated_by_its_number() -> bytes:
    """A parquet file of 10 kB whose rows would take 20 GB."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = 20_000
    images = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([b"\xff\xd8" + bytes(1 << 20)]))
    table = pa.table({"jpg": images, "cls": pa.array([0] * rows)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
    content: bytes = sink.getvalue().to_pybytes()
    assert len(content) < 10_000
    return content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(
            ("a.tar", lambda kind=kind: tar_with_large_header(kind), "header of 4096 K")
            for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
        ),
        ("a.tar", lambda: sparse_tar(tarfile.REGTYPE, major="1", minor="0", name="x", realsize="9"), "cannot be read"),
        ("a.tar", lambda: sparse_tar(tarfile.GNUTYPE_SPARSE), "sparse"),
        ("a.csv", endless_row, MAX_LINE),
        ("a.csv.gz", endless_row_packed, MAX_LINE),
        ("a.csv", lambda: HEADING + b'"\n",' * (1 << 20), "line 2: only 1 columns"),
        ("a.parquet", one_value_repeated_by_its_number, "a decompression bomb"),
    ],
)
def test_source_that_would_take_all_memory_or_time_is_refused(
    name: str, content: Callable[[], bytes], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content())
    with pytest.raises(DataError, match=message) as caught:
        prepare(tmp_path / name)
    assert caught.value.hint
    assert list_datasets() == []


def test_name_in_an_archive_is_shown_without_control_characters(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train/angry/line\nhint: run me \x1b[31m\u202e.png", b"no image")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "a.zip")
    assert str(caught.value).isprintable()


def test_source_is_refused_when_reading_it_takes_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.data.memory.MAX_MEMORY", 128 << 20)
    with pytest.raises(DataError, match="a.parquet: refused: reading it takes over"), bounded_memory("a.parquet"):
        np.empty(1 << 30, np.uint8)  # more than could be freed meanwhile; never touched
    np.empty(1 << 30, np.uint8)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc", "", "a\n", ".hidden", "x" * 200, "\x1b[31m", "a\0"])
def test_id_that_would_lead_elsewhere_is_refused(name: str) -> None:
    for act in (lambda: sweep_folder(name), lambda: trial_folder("abc", name), lambda: trial_folder(name, "0")):
        with pytest.raises(InputError, match="invalid id") as caught:
            act()
        assert caught.value.hint
