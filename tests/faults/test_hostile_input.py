"""What somebody else may have written is refused by name: no traceback, no hang, no unbounded memory.

Here: data sets, and names that become paths. Sweep files are in config/test_sweep_yaml.py, checkpoints and a trial's
files in training/, weights in models/, printed text in cli/test_hostile_text.py, more archives in data/test_hostile.py.
"""

import json
import resource
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fer_sweep.search.entries import known

from fer_sweep.data.cache import list_datasets, open_dataset, prepare
from fer_sweep.data.memory import bounded_memory
from fer_sweep.data.store import data_folder
from fer_sweep.errors import DataError, InputError, StorageError
from fer_sweep.files import sweep_folder, trial_folder


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    with bounded_memory(2 << 30):
        yield


def tar_with_header(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, len(body)
    member = tarfile.TarInfo("train/angry/a.png")
    blocks = header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    return blocks + member.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


def pax_pair(name: str, value: str) -> bytes:
    rest = f" {name}={value}\n".encode()
    return str(len(rest) + 2).encode() + rest


def sparse_tar() -> bytes:
    pairs = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": "9"}
    return tar_with_header(b"".join(pax_pair(name, value) for name, value in pairs.items()))


def old_sparse_tar() -> bytes:
    info = tarfile.TarInfo("train/angry/a.png")
    info.type = tarfile.GNUTYPE_SPARSE
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def zip_with_millions_of_members() -> bytes:
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    entries = entry * 1_500_000
    end = struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(entries), len(local), 0)
    return local + entries + b"PK\x05\x06" + end


ENDLESS_ROW = b"emotion,pixels,Usage\n" + b"," * (30 << 20)
MAX_LINE = "line 2: over 65,536 characters"


def gzipped(content: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()


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


SOURCES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    **{
        f"tar header {kind!r}": ("a.tar", lambda kind=kind: tar_with_header(b"1" * (4 << 20), kind), "header of 4096 K")
        for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
    },
    "sparse tar": ("a.tar", sparse_tar, "sparse"),
    "old sparse tar": ("a.tar", old_sparse_tar, "sparse"),
    "zip directory": ("a.zip", zip_with_millions_of_members, "its list of members has 67 MiB"),
    "endless row": ("a.csv", lambda: ENDLESS_ROW, MAX_LINE),
    "endless row, packed": ("a.csv.gz", lambda: gzipped(ENDLESS_ROW), MAX_LINE),
    "row over many lines": (
        "a.csv",
        lambda: b"emotion,pixels,Usage\n" + b'"\n",' * (1 << 20),
        "line 2: only 1 columns",
    ),
    "parquet dictionary": ("a.parquet", one_value_repeated_by_its_number, "a.parquet"),
}


@pytest.mark.parametrize(("name", "content", "message"), SOURCES.values(), ids=SOURCES)
def test_source_that_would_take_all_memory_or_time_is_refused(
    name: str, content: Callable[[], bytes], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content())
    with pytest.raises(DataError, match=message) as caught:
        prepare(tmp_path / name)
    assert caught.value.hint
    assert list_datasets() == []


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "a\0b"])
def test_path_that_no_system_accepts_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"no such file|cannot be read"):
        prepare(Path(name))


@pytest.mark.parametrize("name", ["line\nhint: run me.png", "red\x1b[31m.png", "hide\u202e.png"])
def test_name_in_an_archive_is_shown_without_control_characters(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"train/angry/{name}", b"no image")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "a.zip")
    assert str(caught.value).isprintable()


def test_memory_bound_holds_in_all_threads_and_ends_with_its_block() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    failures: list[BaseException] = []

    def take() -> None:
        try:
            np.empty(1 << 30, np.uint8)  # more than could be freed meanwhile; never touched
        except MemoryError as error:
            failures.append(error)

    with bounded_memory(128 << 20):
        take()
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert len(failures) == 2
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    take()
    assert len(failures) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: json.dumps(plain | {"fingerprint": "../../../../etc"}),
        lambda plain: json.dumps(plain | {"name": "other"}),
        lambda plain: json.dumps(plain | {"counts": {}}),
        lambda plain: json.dumps(plain | {"counts": plain["counts"] | {"train": {"angry": -1}}}),
        lambda plain: json.dumps([plain]),
        lambda plain: "[" * 100_000,
        lambda plain: "\ud800".encode("utf-16", "surrogatepass").decode("latin1"),
    ],
    ids=["path", "name", "no counts", "negative", "list", "deep", "not text"],
)
def test_forged_description_of_a_data_set_is_refused(change: Callable[[Any], str], whole_data: str) -> None:
    path = data_folder() / f"{whole_data}.json"
    path.write_text(change(json.loads(path.read_bytes())))
    for read in (lambda: open_dataset(whole_data), list_datasets):
        with pytest.raises(DataError) as caught:
            read()
        assert caught.value.hint


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc", "", "a\n", ".hidden", "x" * 200, "\x1b[31m", "a\0"])
def test_id_that_would_lead_elsewhere_is_refused(name: str) -> None:
    for act in (lambda: sweep_folder(name), lambda: trial_folder("abc", name), lambda: trial_folder(name, "0")):
        with pytest.raises(InputError, match="cannot be an id") as caught:
            act()
        assert caught.value.hint


@pytest.mark.parametrize(
    "change", [{"id": "../../abc"}, {"id": 7}, {"created": "yesterday"}, {"url": {"a": 1}}], ids=str
)
def test_forged_entry_of_a_sweep_is_refused(change: dict[str, Any]) -> None:
    path = sweep_folder("abc") / "sweep.json"
    path.parent.mkdir(parents=True)
    good = {"id": "abc", "search": "optuna", "storage": None, "name": None, "created": 1.0}
    path.write_text(json.dumps(good | change))
    with pytest.raises(StorageError, match=r"sweep\.json cannot be read") as caught:
        known()
    assert caught.value.hint
