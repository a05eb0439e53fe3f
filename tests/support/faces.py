"""Small sets of faces, and the files that FER2013 comes in: image folders, CSV, parquet, archives of them."""

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fer_sweep.data import store, synthetic
from fer_sweep.data.cache import prepare
from fer_sweep.data.dataset import FaceDataset, RawFaces, Split
from fer_sweep.records import CLASSES

USAGES = ("Training", "PublicTest", "PrivateTest")
NAME = "{usage}_{number}.png"


@dataclass(frozen=True, eq=False)
class Faces:
    """Images (N, 48, 48), their classes, and their official splits as indices of USAGES."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    usages: npt.NDArray[np.int64]

    @classmethod
    def drawn(cls) -> "Faces":
        """Fourteen distinct faces of each class: ten Training, two PublicTest, two PrivateTest."""
        labels = np.tile(np.arange(7), 14).astype(np.int64)
        return cls(synthetic.draw(labels, np.random.default_rng(7)), labels, np.repeat(np.arange(3), [70, 14, 14]))

    @classmethod
    def banded(cls, train: int = 20, val: int = 10, test: int = 0, seed: int = 0) -> "Faces":
        """Noise with a darker band at the height of the class; so many of each class in a split."""
        labels = np.repeat(np.arange(7), train + val + test)
        usages = np.tile(np.repeat([0, 1, 2], [train, val, test]), 7)
        images = np.random.default_rng(seed).integers(0, 256, (len(labels), 48, 48), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[6 * label : 6 * label + 6] //= 2
        return cls(images, labels, usages)

    @classmethod
    def barred(cls, sizes: Sequence[int], copies_at: int) -> "Faces":
        """Noise with a bright bar at the height of the class, which any network learns; ``sizes`` images a split.

        The seven images from index ``copies_at`` are copies of the first seven.
        """
        count = sum(sizes)
        labels, images = np.arange(count) % 7, np.random.default_rng(0).integers(0, 120, (count, 48, 48))
        for image, label in zip(images, labels, strict=True):
            image[6 * label + 2 : 6 * label + 8] += 100
        images[copies_at : copies_at + 7] = images[:7]
        return cls(images.astype(np.uint8), labels, np.repeat(np.arange(len(sizes)), sizes))

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, usage: int) -> list[int]:
        """The indices of a split."""
        return np.flatnonzero(self.usages == usage).tolist()

    def by_pixels(self, rows: Iterable[int]) -> dict[bytes, int]:
        """Labels by the bytes of their image, whatever the order."""
        return labels_by_pixels(self.images, self.labels, rows)

    def encoded(self, index: int, kind: str = "PNG", **options: Any) -> bytes:
        """Image number ``index`` as a file; PNG keeps every pixel."""
        return encode(self.images[index], kind, **options) if options or kind != "PNG" else self._pngs[index]

    @cached_property
    def _pngs(self) -> list[bytes]:
        return [encode(image) for image in self.images]

    def files(
        self, splits: Sequence[str] = ("train", "test", "test"), name: str = NAME, kind: str = "PNG", **options: Any
    ) -> "Files":
        """Image folders, as Kaggle has them: the test folder pools both tests, and file names keep the official split.

        ``splits`` are the folders in place of Training, PublicTest and PrivateTest.
        """
        found: Files = {}
        for i, (label, usage) in enumerate(zip(self.labels, self.usages, strict=True)):
            file = name.format(usage=USAGES[usage], number=1000 + i)
            found[f"{splits[usage]}/{CLASSES[label]}/{file}"] = self.encoded(i, kind, **options)
        return found

    def csv(self, columns: str = "emotion,pixels,Usage", rows: Iterable[int] | None = None) -> str:
        """A CSV with the given header; a header's leading spaces are kept, as Kaggle writes them."""
        lines = [columns]
        for index in range(len(self)) if rows is None else rows:
            pixels = " ".join(map(str, self.images[index].ravel()))
            values = {"emotion": str(self.labels[index]), "pixels": pixels, "Usage": USAGES[self.usages[index]]}
            lines.append(",".join(values[name.strip()] for name in columns.split(",")))
        return "\n".join(lines) + "\n"

    def parquet(
        self,
        rows: Iterable[int] | None = None,
        labels: Sequence[int | str] | None = None,
        names: object = None,
        *,
        columns: tuple[str, str] = ("image", "label"),
        struct: bool = True,
    ) -> bytes:
        """Some of these faces as the `datasets` library writes them, with labels by index and their class names."""
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        rows = list(range(len(self)) if rows is None else rows)
        image_column, label_column = columns
        images = [{"bytes": self.encoded(i), "path": None} if struct else self.encoded(i) for i in rows]
        values = self.labels.tolist() if labels is None else labels
        table = pa.table({image_column: images, label_column: [values[i] for i in rows]})
        if names:
            features = {image_column: {"_type": "Image"}, label_column: {"names": names, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()

    def shard(self, rows: Iterable[int], labels: Sequence[int] | None = None, folder: str = "") -> "Files":
        """The files of a WebDataset tar."""
        found: Files = {}
        for i in rows:
            label = self.labels[i] if labels is None else labels[i]
            found |= {f"{folder}{i:07}.png": self.encoded(i), f"{folder}{i:07}.cls": str(label).encode()}
        return found

    def prepared(self, folder: Path, name: str, source: str = "fer2013.csv") -> Path:
        """A data cache below ``folder`` that holds these faces, prepared from a CSV or from image folders."""
        if source.endswith(".csv"):
            (folder / source).write_text(self.csv())
        else:
            write_folder(folder / source, self.files())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FERSWEEP_CACHE", str(folder / "cache"))
            prepare(folder / source, name)
        return folder / "cache"


def prepare_synthetic() -> None:
    """Put 280 drawn faces into the cache in place of the 6,144 that fersweep draws, which take seconds."""
    drawn = synthetic.draw_dataset(sizes={Split.TRAIN: 140, Split.VAL: 70, Split.TEST: 70})
    source = f"drawn by fersweep, version {synthetic.VERSION}"
    store.save(FaceDataset.of("synthetic", source, RawFaces("drawn", *drawn)), replace=True)


Files = dict[str, bytes]
"""Contents by path."""


def labels_by_pixels(images: npt.NDArray[Any], labels: npt.NDArray[Any], rows: Iterable[int]) -> dict[bytes, int]:
    return {images[i].tobytes(): int(labels[i]) for i in rows}


def encode(image: npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """A grey (H, W) or RGB (H, W, 3) array as an image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_size(side: int) -> bytes:
    """A small file that says it is a huge image."""
    small = encode(np.zeros((1, 1), np.uint8))
    head = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
    return small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_bytes(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    path.write_bytes(tar_bytes(files, mode))
    return path


PACK = {"folder": write_folder, "zip": write_zip, "tar": write_tar} | {
    f"tar.{kind}": partial(write_tar, mode=f"w:{kind}") for kind in ("gz", "bz2", "xz")
}
"""How the same files may come."""
