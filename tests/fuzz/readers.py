"""Every reader of what somebody else may have written, each as a function of bytes, with seeds to begin from.

A reader may give a result or raise one of ``fer_sweep.errors``; anything else is a finding, as are a hang and memory
beyond the bound. ``python -m tests.fuzz`` feeds them what coverage suggests, and ``test_readers`` damaged seeds. A
finding becomes a seed here, or a case in the reader's own tests.
"""

import io
import os
import pickle
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_with_lines
from fer_sweep.config.trial import parse_trial
from fer_sweep.data import cache as data_cache
from fer_sweep.data.ferplus import relabel
from fer_sweep.data.images import decode
from fer_sweep.data.layout import RawFaces
from fer_sweep.data.memory import bounded_memory
from fer_sweep.data.tree import open_stream
from fer_sweep.errors import CheckpointError, DataError, FersweepError
from fer_sweep.records import CLASSES

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Reader:
    """One reader."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    longest: int = 65_536
    """Bytes of an input that the fuzzer makes."""


def accepts(reader: Reader, content: bytes) -> bool:
    """Whether the reader accepts the content; raises only what is a finding."""
    try:
        reader.read(content)
    except FersweepError as error:
        assert str(error), "an error with nothing to say"
        return False
    return True


@cache
def folder() -> Path:
    """A folder of this process for readers that want a path, in memory where there is such a place."""
    return Path(tempfile.mkdtemp(prefix="fersweep-fuzz-", dir=os.environ.get("TMPDIR") or memory()))


def memory() -> Path | None:
    """The folder of files in memory, where there is one."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


def forget() -> None:
    """Remove the folder."""
    if folder.cache_info().currsize:
        shutil.rmtree(folder(), ignore_errors=True)


# Sweep files


def sweep_file(content: bytes) -> None:
    path = folder() / "sweep.yaml"
    path.write_bytes(content)
    sweep, lines = load_with_lines(path)
    bind(sweep, Space.from_sweep(sweep, source="f", lines=lines), source="f", lines=lines)
    yaml.safe_dump(sweep.to_plain(), sort_keys=False).encode()


FORMS = """\
method: grid
parameters:
  a: {distribution: q_log_uniform_values, min: 1, max: 0x10, q: 2}
  b: {distribution: q_normal, mu: 1:30, sigma: 0b1, q: 1e-3}
  c: {distribution: q_beta, a: .5, b: 1_000}
  d: &d {distribution: categorical_w_probabilities, values: [1, "x", null, [1]], probabilities: [.2, .2, .2, .4]}
  e: {<<: *d, values: !!str yes}
  f: {parameters: {g: {min: 1, max: 3}}}
metric: {name: val_acc, goal: maximize, target: 1e3, impute: best}
early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 3.5, strict: true}
command: ["${env}", "${interpreter}", "${args_json}"]
"""


def sweep_seeds() -> list[bytes]:
    shipped = [path.read_bytes() for path in sorted((REPOSITORY / "sweeps").glob("*.yaml"))]
    odd = ["? |-\n  block\n: >+\n  folded\n--- %TAG ! x\n", "\ufeffmethod: random\n"]
    return [*shipped, *(text.encode() for text in (FORMS, *odd))]


# Data sets


def data(content: bytes, name: str = "x") -> None:
    """A source of any layout: archives, tables and images by what is in them."""
    with bounded_memory(), open_stream(io.BytesIO(content), name, len(content)) as tree:
        try:
            data_cache._read(tree, lambda what, done, total: None)
        except MemoryError:
            raise DataError("too much memory") from None


def image(content: bytes) -> None:
    found, _ = decode(content, "x")
    assert found.shape == (48, 48)


def ferplus(content: bytes) -> None:
    path = folder() / "labels.csv"
    path.write_bytes(content)
    images = np.zeros((2, 48, 48), np.uint8)
    faces = RawFaces("CSV", images, np.zeros(2, np.int64), np.zeros(2, np.uint8), True, (), keeps_csv_rows=True)
    relabel(faces, path)


def encoded(kind: str = "PNG", mode: str = "L", size: int = 48) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.arange(size * size, dtype=np.uint32).reshape(size, size).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def zipped(parts: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def tarred(parts: Mapping[str, bytes], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, part in parts.items():
            info = tarfile.TarInfo(name if form == tarfile.USTAR_FORMAT else f"{'d' * 120}/{name}")
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
    return buffer.getvalue()


def csv_seeds() -> list[bytes]:
    pixels = " ".join(["7", "255", "31"] * 768).encode()
    return [
        b"emotion,pixels,Usage\n0," + pixels + b",Training\n3," + pixels + b",PublicTest\n",
        b'emotion, Usage, pixels\n"6", Training, "' + pixels + b'"\n',
        b"\xef\xbb\xbfpixels,emotion\r\n" + pixels + b",1\r\n",
        b"Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
        b"Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\nTraining,,0,0,0,0,0,0,0,0,0,10\n",
    ]


def archive_seeds() -> list[bytes]:
    files = {f"{split}/{name}/Training_1.png": encoded() for split in ("train", "test") for name in CLASSES[:2]}
    shard = {"train/s1.jpg": encoded("JPEG"), "train/s1.cls": b"3", "train/s2.png": encoded(), "train/s2.cls": b"0"}
    seeds = []
    for parts in (files, shard, {"fer2013.csv": csv_seeds()[0]}):
        methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        seeds += [zipped(parts, method) for method in methods]
        seeds += [tarred(parts, form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return [*seeds, zipped({"inner.zip": seeds[0]}), packer.compress(seeds[-1]) + packer.flush()]


def parquet_seeds() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def written(columns: Mapping[str, list[Any]], compression: str) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer, compression=compression, store_schema=compression != "zstd")
        return buffer.getvalue()

    rows = [encoded()] * 3
    tables = (
        {"image": [{"bytes": row, "path": "x"} for row in rows], "label": [0, 1, 2]},
        {"jpg": rows, "cls": ["happy", "sad", "x"]},
    )
    return [written(table, compression) for table in tables for compression in ("none", "snappy", "zstd", "gzip")]


def image_seeds() -> list[bytes]:
    modes = {
        "PNG": ("L", "P", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "BMP": ("L", "1"), "PPM": ("L", "RGB", "1"),
        "WEBP": ("RGB", "RGBA"), "GIF": ("L", "P"), "TIFF": ("L", "RGB", "F", "I", "I;16"),
    }  # fmt: skip
    return [encoded(kind, mode, size) for kind, names in modes.items() for mode in names for size in (48, 20)]


# Checkpoints


def checkpoint(content: bytes) -> None:
    """The archive of a checkpoint, or the pickle in an archive that is sound; its checksum is always right."""
    checkpoints, parts = saved()
    if not content.startswith(b"PK"):
        content = zipped(parts | {"archive/data.pkl": content})
    (folder() / "last.ckpt").write_bytes(b"fersweep-checkpoint-1 %08x\n" % zlib.crc32(content) + content)
    if checkpoints.load() is None:
        raise CheckpointError("passed over")


@cache
def saved() -> tuple[Any, dict[str, bytes]]:
    """Checkpoints in our folder, and the members of a good one."""
    import torch

    from fer_sweep.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(folder(), parse_trial({"model": "simple_cnn"}), "data")
    checkpoints.save({"model": {"weight": torch.zeros(3, 4)}, "history": [{"epoch": 1, "val_acc": 0.5}], "best": None})
    content = (folder() / "last.ckpt").read_bytes().partition(b"\n")[2]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return checkpoints, {name: archive.read(name) for name in archive.namelist()}


def checkpoint_seeds() -> list[bytes]:
    _, parts = saved()
    foreign = pickle.dumps({"owner": {"config": "", "data": ""}, "state": {}}, 2)
    return [parts["archive/data.pkl"], zipped(parts), foreign]


READERS = {
    "sweep_file": Reader(sweep_file, sweep_seeds, 16_384),
    "csv": Reader(lambda content: data(content, "fer2013.csv"), csv_seeds, 32_768),
    "archive": Reader(data, archive_seeds, 32_768),
    "parquet": Reader(lambda content: data(content, "x.parquet"), parquet_seeds, 16_384),
    "image": Reader(image, image_seeds, 8192),
    "ferplus": Reader(ferplus, csv_seeds, 4096),
    "checkpoint": Reader(checkpoint, checkpoint_seeds),
}
