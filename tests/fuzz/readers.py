"""Every reader of what somebody else may have written, each as a function of bytes, with seeds to begin from.

A reader may give a result or raise one of ``fer_sweep.errors``; anything else is a finding, as are a hang and memory
beyond the bound. ``python -m tests.fuzz`` feeds them what coverage suggests; ``test_readers`` seeds and past findings.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fer_sweep.config.arguments import parse_arguments
from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_with_lines, parse_sweep
from fer_sweep.config.sweep_yaml import parse_document
from fer_sweep.config.trial import flatten, parse_trial
from fer_sweep.data import cache as data_cache
from fer_sweep.data import store
from fer_sweep.data.ferplus import relabel
from fer_sweep.data.images import decode
from fer_sweep.data.layout import RawFaces
from fer_sweep.data.memory import bounded_memory
from fer_sweep.data.tree import open_stream
from fer_sweep.errors import CheckpointError, ConfigError, DataError, FersweepError

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@dataclass(frozen=True)
class Reader:
    """One reader."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    longest: int = 65_536
    """Bytes of an input that the fuzzer makes."""


def never_surprised(reader: Reader, content: bytes) -> bool:
    """Whether the reader takes the content; raises only what is a finding."""
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


def yaml_text(content: bytes) -> None:
    """The first part of it, which is faster."""
    document = parse_document(content.decode(errors="replace"), source="f")
    yaml.safe_dump(document.data).encode()


def space(content: bytes) -> None:
    """A sweep as the database holds it, and whatever its space can then be asked."""
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError):
        return
    sweep = parse_sweep(plain)
    found = Space.from_sweep(sweep)
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = found.sample(rng)
        json.dumps(values)
        found.key(values)
        found.contains(values)
        with contextlib.suppress(ConfigError):
            parse_trial(values)
    found.size()
    for rule in filter(None, [sweep.early_terminate]):
        assert len(rule.bands) <= 100
    next(found.grid(), None)
    found.grid_size()


def words(content: bytes) -> None:
    """Options of fersweep train, one a line, and a value of --set."""
    text = content.decode(errors="replace")
    with contextlib.suppress(FersweepError):
        parse_document(text, source="--set")
    parse_trial(flatten(parse_arguments(text.split("\n"))))


def sweep_seeds() -> list[bytes]:
    shipped = [path.read_bytes() for path in sorted((REPOSITORY / "sweeps").glob("*.yaml"))]
    forms = b"""\
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
    return [*shipped, forms, b"? |-\n  block\n: >+\n  folded\n--- %TAG ! x\n", "\ufeffmethod: random\n".encode()]


def space_seeds() -> list[bytes]:
    seeds = [json.dumps(yaml.safe_load(content), default=str).encode() for content in sweep_seeds()[:-3]]
    forms = (
        {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
        {"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 4},
        {"distribution": "log_normal", "mu": 0, "sigma": 1},
        {"distribution": "q_log_normal", "mu": 0, "sigma": 1, "q": 2},
        {"distribution": "beta", "a": 2, "b": 3},
        {"distribution": "q_beta", "a": 2, "b": 3, "q": 0.1},
        {"distribution": "normal", "mu": 0, "sigma": 1},
        {"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 1},
        {"values": [1, 2.0, "x", None, True, [1], {"a": 1}]},
        {"values": [1, 2], "probabilities": [0.25, 0.75]},
        {"parameters": {"c": {"min": 1, "max": 9}, "d.e": {"value": 3}}},
    )
    seeds += [
        json.dumps({"method": "random", "parameters": {"a": form, "b": {"min": 0, "max": 1}}}).encode()
        for form in forms
    ]
    return seeds


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


def arrays(content: bytes) -> None:
    """A prepared data set: its description and one array of its cache, damaged together."""
    which, rest = content[:1], content[1:]
    info, whole = prepared()
    names = ("images", "labels", "splits", "groups")
    description, _, array = rest.partition(b"\0\0")
    target = store.data_folder() / info.fingerprint
    for key in names:
        (target / f"{key}.npy").write_bytes(whole[key])
    (target / "seal.json").unlink(missing_ok=True)
    if which < b"\x80":
        (target / f"{names[which[0] % 4] if which else 'images'}.npy").write_bytes(array or rest)
        data_cache.open_dataset(info.name)
        return
    path = store.data_folder() / "other.json"
    path.write_bytes(description)
    try:
        data_cache.open_dataset("other")
        data_cache.list_datasets()
    finally:
        path.unlink()


def prepared() -> tuple[Any, dict[str, bytes]]:
    """A small data set in a cache of our own, and the bytes of its arrays."""
    os.environ["FERSWEEP_CACHE"] = str(folder() / "cache")
    return _prepared()


@cache
def _prepared() -> tuple[Any, dict[str, bytes]]:
    rows = ["emotion,pixels,Usage"]
    for number in range(21):
        usage = ("Training", "PublicTest", "PrivateTest")[number // 7]
        rows.append(f"{number % 7},{' '.join([str(number * 9)] * 2304)},{usage}")
    path = folder() / "tiny.csv"
    path.write_text("\n".join(rows) + "\n")
    info = data_cache.prepare(path, "tiny")
    target = store.data_folder() / info.fingerprint
    return info, {key: (target / f"{key}.npy").read_bytes() for key in ("images", "labels", "splits", "groups")}


def encoded(kind: str = "PNG", mode: str = "L", size: int = 48) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.arange(size * size, dtype=np.uint32).reshape(size, size).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def csv_seeds() -> list[bytes]:
    pixels = " ".join(["7", "255", "31"] * 768).encode()
    return [
        b"emotion,pixels,Usage\n0," + pixels + b",Training\n3," + pixels + b",PublicTest\n",
        b'emotion, Usage, pixels\n"6", Training, "' + pixels + b'"\n',
        b"pixels\n" + pixels + b"\n",
        b"\xef\xbb\xbfpixels,emotion\r\n" + pixels + b",1\r\n",
        b"Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
        b"Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\nTraining,,0,0,0,0,0,0,0,0,0,10\n",
    ]


def archive_seeds() -> list[bytes]:
    import tarfile

    files = {f"{split}/{name}/Training_1.png": encoded() for split in ("train", "test") for name in CLASSES[:2]}
    shard = {"train/s1.jpg": encoded("JPEG"), "train/s1.cls": b"3", "train/s2.png": encoded(), "train/s2.cls": b"0"}
    seeds = []
    for content in (files, shard, {"fer2013.csv": csv_seeds()[0]}):
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", method) as archive:
                for name, member in content.items():
                    archive.writestr(name, member)
            seeds.append(buffer.getvalue())
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
                for name, member in content.items():
                    info = tarfile.TarInfo(name if form == tarfile.USTAR_FORMAT else f"{'d' * 120}/{name}")
                    info.size = len(member)
                    tar.addfile(info, io.BytesIO(member))
            seeds.append(buffer.getvalue())
    with zipfile.ZipFile(nested := io.BytesIO(), "w") as archive:
        archive.writestr("inner.zip", seeds[0])
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return [*seeds, nested.getvalue(), packer.compress(seeds[-1]) + packer.flush()]


def parquet_seeds() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds = []
    rows = [encoded()] * 3
    for columns in (
        {"image": [{"bytes": row, "path": "x"} for row in rows], "label": [0, 1, 2]},
        {"jpg": rows, "cls": [0, 1, 6]},
        {"jpg": rows, "cls": ["happy", "sad", "x"]},
    ):
        for compression in ("none", "snappy", "zstd", "gzip"):
            buffer = io.BytesIO()
            pq.write_table(pa.table(columns), buffer, compression=compression, store_schema=compression != "zstd")
            seeds.append(buffer.getvalue())
    return seeds


def image_seeds() -> list[bytes]:
    kinds = [
        ("PNG", "L"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("JPEG", "L"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
    ]
    kinds += [("BMP", "L"), ("BMP", "1"), ("PPM", "L"), ("PPM", "RGB"), ("PPM", "1"), ("WEBP", "RGB"), ("WEBP", "RGBA")]
    kinds += [
        ("GIF", "L"),
        ("GIF", "P"),
        ("TIFF", "L"),
        ("TIFF", "RGB"),
        ("TIFF", "F"),
        ("TIFF", "I"),
        ("TIFF", "I;16"),
    ]
    kinds += [("PNG", "I;16")]
    return [encoded(kind, mode, size) for kind, mode in kinds for size in (48, 20)]


def array_seeds() -> list[bytes]:
    info, whole = prepared()
    seeds = [bytes([number]) + b"\0\0" + whole[key][:5000] for number, key in enumerate(whole)]
    other = info.model_copy(update={"name": "other"}).model_dump_json().encode()
    return [*seeds, b"\xff" + other, b"\xff" + other.replace(b'"train"', b'"trainx"')]


# A trial's own folder


def history(content: bytes) -> None:
    from fer_sweep.training.history import read_history

    path = folder() / "history.jsonl"
    path.write_bytes(content)
    rows = read_history(path)
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))


def claim(content: bytes) -> None:
    """config.json and result.json of a trial, and the small notes, divided by two zeros."""
    from fer_sweep.agent.probe import Load, best, remembered
    from fer_sweep.files import read_object
    from fer_sweep.reports.wandb_views import _remembered
    from fer_sweep.training.trial import claim_folder

    parts = [*content.split(b"\0\0"), b"", b"", b"", b""]
    place = folder() / "trial"
    place.mkdir(exist_ok=True)
    for name, part in zip(("views.json", "slots.json", "result.json", "config.json"), parts, strict=False):
        (place / name).unlink(missing_ok=True)
        if part:
            (place / name).write_bytes(part)
    read_object(place / "views.json")
    _remembered(place)
    best(remembered(place / "slots.json", "key", lambda: [Load(1, 1.0, 1.0)]), room_mb=100.0)
    claim_folder(parse_trial({"model": "simple_cnn"}), place)


@cache
def trial() -> Any:
    """A small training that has done two epochs, and what its checkpoint holds."""
    import torch

    from fer_sweep.training.loop import train
    from fer_sweep.training.trial import start

    torch.set_num_threads(1)
    prepared()
    values = {"model": "simple_cnn", "data": "tiny", "epochs": 3, "channels": 1, "hidden": 7, "batch_size": 4}
    place = folder() / "trained"
    shutil.rmtree(place, ignore_errors=True)
    config = parse_trial(values | {"ema_decay": 0.5})
    seen: list[int] = []
    from fer_sweep.records import StopReason

    train(
        config,
        place,
        on_epoch=lambda row: seen.append(1),
        stop=lambda: StopReason.PREEMPTED if len(seen) == 2 else None,
    )
    (place / "previous.ckpt").unlink(missing_ok=True)  # or a bad last.ckpt would be passed over for it
    return start(config, place, torch.device("cpu"))


def checkpoint(content: bytes) -> None:
    """A checkpoint whose checksum is right whatever it holds."""
    from fer_sweep.files import LAST_CHECKPOINT

    last = trial().folder / LAST_CHECKPOINT
    last.write_bytes(b"fersweep-checkpoint-1 %08x\n" % zlib.crc32(content) + content)
    if trial().checkpoints.load() is None:
        raise CheckpointError("passed over")
    trial().restore()


def checkpoint_pickle(content: bytes) -> None:
    """The same, the archive sound and only its pickle and its storages arbitrary."""
    buffer = io.BytesIO()
    parts = dict(saved_parts())
    parts["archive/data.pkl"] = content
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    checkpoint(buffer.getvalue())


@cache
def saved_parts() -> dict[str, bytes]:
    """Members of a good checkpoint."""
    place = trial().folder
    content = (place / "last.ckpt").read_bytes().partition(b"\n")[2]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def checkpoint_seeds() -> list[bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, part in saved_parts().items():
            archive.writestr(name, part)
    return [buffer.getvalue()]


def pickle_seeds() -> list[bytes]:
    return [saved_parts()["archive/data.pkl"], pickle.dumps({"owner": {"config": "", "data": ""}, "state": {}}, 2)]


def history_seeds() -> list[bytes]:
    row = {"epoch": 1, "val_acc": 0.5, "lr": 1e-3}
    good = json.dumps(row).encode() + b"\n" + json.dumps(row | {"epoch": 2}).encode() + b"\n"
    return [good, good[:-3], b'{"epoch": 1, "a": NaN}\n{"epoch": 2, "b": -Infinity}\n', b"\n", b"[" * 2000 + b"\n"]


def claim_seeds() -> list[bytes]:
    config = parse_trial({"model": "simple_cnn"}).model_dump_json().encode()
    result = {
        "best_val_acc": 0.5,
        "best_epoch": 1,
        "train_acc": 0.6,
        "train_val_gap": 0.1,
        "val_acc_clean": 0.5,
        "macro_f1": 0.4,
        "per_class_recall": [0.5] * 7,
        "confusion_matrix": [[1] * 7] * 7,
        "epochs": 1,
        "parameters": 1000,
        "seconds": 1.0,
        "images_per_second": 1000.0,
        "peak_memory_mb": 100.0,
        "precision": "fp32",
        "verdict": "balanced",
    }
    views = {"views": [{"server": "s", "project": "p", "sweeps": ["a"], "report": None, "workspace": "w"}]}
    import platform

    slots = {f"{platform.node()}: key": [{"slots": 1, "images_per_second": 2.0, "memory_mb": 3.0}]}
    notes = [json.dumps(note).encode() for note in (views, slots, result)]
    whole = b"\0\0".join([*notes, config])
    # No slots are the best where the throughput is below zero.
    return [whole, *(whole.replace(b'second": 2.0', b'second": ' + odd) for odd in (b"-2.0", b"NaN", b"1e999"))]


READERS = {
    "sweep_file": Reader(sweep_file, sweep_seeds, 16_384),
    "yaml": Reader(yaml_text, sweep_seeds, 8192),
    "space": Reader(space, space_seeds, 16_384),
    "words": Reader(
        words, lambda: [b"--lr\n0.1\n--augment={'shift': 0.1}\n--flip", b"--model=vit\n--drop-val-copies"], 4096
    ),
    "csv": Reader(lambda content: data(content, "fer2013.csv"), csv_seeds, 32_768),
    "archive": Reader(data, archive_seeds, 32_768),
    "parquet": Reader(lambda content: data(content, "x.parquet"), parquet_seeds, 16_384),
    "image": Reader(image, image_seeds, 8192),
    "ferplus": Reader(ferplus, csv_seeds, 4096),
    "arrays": Reader(arrays, array_seeds, 16_384),
    "history": Reader(history, history_seeds, 8192),
    "notes": Reader(claim, claim_seeds, 8192),
    "checkpoint": Reader(checkpoint, checkpoint_seeds, 65_536),
    "checkpoint_pickle": Reader(checkpoint_pickle, pickle_seeds, 16_384),
}


def past_findings() -> Iterator[tuple[str, bytes]]:
    """What fuzzing has found, made small: the reader and the input."""
    deep = b"[" * 100_000
    yield "sweep_file", b"method: 0x" + b"f" * 5000
    yield "sweep_file", b"a: 1" + b":1" * 300 + b".5"
    yield "sweep_file", b'method: random\nname: "\\ud800"\nparameters: {model: {value: vit}}\n'
    yield "notes", b"\0\0".join([deep] * 4)
    yield "notes", b"\0\0".join([b"[]"] * 4)
    yield "history", deep + b"\n"
    yield "history", b"\xff\n"
    yield "arrays", b"\xff" + json.dumps({"name": "other", "counts": {}}).encode()
    yield "arrays", b"\x02\0\0\x93NUMPY\x01\0v\0" + b"{'descr': '|u1', 'shape': (21,".ljust(118)
    yield "checkpoint_pickle", b"\x80\x02cbuiltins\nbytearray\n" + b"J" + struct.pack("<i", 2**30) + b"\x85R."
    yield "checkpoint_pickle", pickle.dumps([1], 2)
    yield "checkpoint_pickle", pickle.dumps({"owner": 3, "state": {}}, 2)
