"""Small faces in the real format of every layout FER2013 comes in."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fer_sweep.data.synthetic import draw
from fer_sweep.records import CLASSES

USAGES = ("Training", "PublicTest", "PrivateTest")


class Faces:
    """Fourteen distinct faces a class: ten Training, two PublicTest, two PrivateTest."""

    def __init__(self) -> None:
        self.labels = np.tile(np.arange(7), 14).astype(np.int64)
        self.usages = np.repeat(np.array([0, 1, 2]), [70, 14, 14])
        self.images = draw(self.labels, np.random.default_rng(7))

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int, kind: str = "PNG") -> bytes:
        """Image number ``index`` as a file; PNG keeps every pixel."""
        return encode(self.images[index], kind)

    def picture(self, index: int) -> Image.Image:
        """Image number ``index``, not encoded."""
        return Image.fromarray(self.images[index])

    @staticmethod
    def encode(image: npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
        """A grey (H, W) or RGB (H, W, 3) array as an image file."""
        return encode(image, kind, **options)

    def csv(self, columns: str = "emotion,pixels,Usage", rows: Iterable[int] | None = None) -> str:
        """These faces as a CSV with the given header; a header's leading spaces are kept, as Kaggle writes them."""
        lines = [columns]
        for index in range(len(self)) if rows is None else rows:
            values = {
                "emotion": str(self.labels[index]),
                "pixels": " ".join(map(str, self.images[index].ravel())),
                "Usage": USAGES[self.usages[index]],
            }
            lines.append(",".join(values[name.strip()] for name in columns.split(",")))
        return "\n".join(lines) + "\n"

    def parquet(
        self,
        rows: Iterable[int],
        image_column: str,
        label_column: str,
        labels: Sequence[int | str] | npt.NDArray[np.int64],
        names: object = None,
        *,
        struct: bool = True,
    ) -> bytes:
        """Some of these faces as the `datasets` library writes them, with labels by index and their class names."""
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        rows = list(rows)
        images = [{"bytes": self.encoded(i), "path": None} if struct else self.encoded(i) for i in rows]
        plain = [value if isinstance(value := labels[i], str) else int(value) for i in rows]
        table = pa.table({image_column: images, label_column: plain})
        if names:
            features = {image_column: {"_type": "Image"}, label_column: {"names": names, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()

    def kaggle_files(self) -> dict[str, bytes]:
        """Kaggle's image folders, whose test folder pools both tests and whose file names keep the official split."""
        return {
            f"{'train' if usage == 0 else 'test'}/{CLASSES[label]}/{USAGES[usage]}_{1000 + i}.png": self.encoded(i)
            for i, (label, usage) in enumerate(zip(self.labels, self.usages, strict=True))
        }


def encode(image: npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture(scope="session")
def faces() -> Faces:
    return Faces()


@pytest.fixture(scope="session")
def pack() -> dict[str, Callable[[Path, dict[str, bytes]], Path]]:
    """How the same files may come: as a folder, a zip, a tar, a gzipped tar."""
    return {
        "folder": write_folder,
        "zip": write_zip,
        "tar": lambda path, files: write_tar(path, files, "w"),
        "tar.gz": write_tar,
    }
