"""Every reader of untrusted input, each as a function of bytes, with seeds to begin from.

A reader may give a result or raise one of ``fer_sweep.errors``; anything else is a finding, as are a hang and memory
beyond the bound. Some write to the working directory. ``python -m tests.fuzz`` feeds them what coverage suggests, and
``test_readers`` damaged seeds. A finding becomes a seed here, or a case in the reader's own tests.
"""

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from fer_sweep.config.binding import bind
from fer_sweep.config.sweep_file import load_sweep_file
from fer_sweep.data.cache import prepare
from fer_sweep.data.dataset import RawFaces
from fer_sweep.data.images import decode
from fer_sweep.data.sources.csv_rows import relabel
from fer_sweep.errors import DataError, FersweepError
from tests.support.faces import Faces, tar_bytes

REPOSITORY = Path(__file__).resolve().parents[2]
GREY = (np.arange(48 * 48) % 256).astype(np.uint8).reshape(48, 48)
FACES = Faces(np.stack([GREY, GREY.T, 255 - GREY, GREY // 2]), np.zeros(4, np.int64), np.array([0, 1, 0, 0]))
"""Of one class, and enough of them to take a validation split from."""


def accepts(name: str, content: bytes) -> bool:
    """Whether the reader of this name accepts the content; raises only what is a finding."""
    read, _ = READERS[name]
    try:
        read(content)
    except FersweepError as error:
        assert str(error), "an error with nothing to say"
        assert error.hint or not isinstance(error, DataError), "an error without a hint"
        return False
    return True


def sweep_file(content: bytes) -> None:
    Path("sweep.yaml").write_bytes(content)
    sweep, lines = load_sweep_file(Path("sweep.yaml"))
    bind(sweep, source="f", lines=lines)
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
"""


def sweep_seeds() -> list[bytes]:
    shipped = [path.read_bytes() for path in sorted((REPOSITORY / "sweeps").glob("*.yaml"))]
    odd = ["? |-\n  block\n: >+\n  folded\n--- %TAG ! x\n", "\ufeffmethod: random\n"]
    return [*shipped, *(text.encode() for text in (FORMS, *odd))]


def data(content: bytes, name: str = "x") -> None:
    """A source of any layout: archives, tables and images by what is in them."""
    Path(name).write_bytes(content)
    prepare(Path(name), replace=True)


def image(content: bytes) -> None:
    found, _ = decode(content, "x")
    assert found.shape == (48, 48)


def ferplus(content: bytes) -> None:
    Path("labels.csv").write_bytes(content)
    rows = RawFaces("CSV", FACES.images[:2], FACES.labels[:2], np.zeros(2, np.uint8), True, keeps_csv_rows=True)
    relabel(rows, Path("labels.csv"))


def zipped(parts: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def csv_seeds() -> list[bytes]:
    votes = (
        b"Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
        b"Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\nTraining,,0,0,0,0,0,0,0,0,0,10\n"
    )
    tables = [FACES.csv(columns, range(2)) for columns in ("emotion,pixels,Usage", "Usage, emotion, pixels")]
    windows = "\ufeff" + FACES.csv("pixels,emotion", range(2)).replace("\n", "\r\n")
    return [votes, *(text.encode() for text in (*tables, windows))]


def archive_seeds() -> list[bytes]:
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    seeds = [tarfile.TarInfo(f"{'d' * 120}/train/sad/a.png").tobuf(tarfile.GNU_FORMAT) + bytes(1024)]
    for parts in (FACES.files(), FACES.shard(range(4), folder="train/"), {"fer2013.csv": csv_seeds()[1]}):
        seeds += [zipped(parts, method) for method in methods]
        seeds += [tar_bytes(parts), tar_bytes({f"{'d' * 120}/{name}": part for name, part in parts.items()}, "w:gz")]
    return [*seeds, zipped({"inner.zip": zipped(FACES.files())})]


def parquet_seeds() -> list[bytes]:
    return [FACES.parquet(), FACES.parquet(labels=["happy"] * 3 + ["x"], columns=("jpg", "cls"), struct=False)]


def image_seeds() -> list[bytes]:
    modes = {
        "PNG": ("L", "P", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "BMP": ("L", "1"), "PPM": ("L", "RGB", "1"),
        "WEBP": ("RGB", "RGBA"), "GIF": ("L", "P"), "TIFF": ("L", "RGB", "F", "I", "I;16"), "AVIF": ("L", "RGBA"),
        "JPEG2000": ("L", "RGB", "I;16"), "PCX": ("1", "L", "RGB"), "SGI": ("L", "RGB"), "QOI": ("RGB", "RGBA"),
    }  # fmt: skip
    buffers = [(io.BytesIO(), kind, mode) for kind, names in modes.items() for mode in names]
    for buffer, kind, mode in buffers:
        Image.fromarray(GREY[:20]).convert(mode).save(buffer, kind)
    return [buffer.getvalue() for buffer, _, _ in buffers]


READERS: Mapping[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "sweep_file": (sweep_file, sweep_seeds),
    "csv": (lambda content: data(content, "fer2013.csv"), csv_seeds),
    "archive": (data, archive_seeds),
    "parquet": (lambda content: data(content, "x.parquet"), parquet_seeds),
    "image": (image, image_seeds),
    "ferplus": (ferplus, csv_seeds),
}
"""By name what reads, and what makes the seeds."""
