"""Small data sets: drawn faces under the name `synthetic`, and an archive in the layout that people download."""

import io
import zipfile
from pathlib import Path

from PIL import Image

from fer_sweep.data import store, synthetic
from fer_sweep.data.dataset import Split, group_copies

SIZES = {Split.TRAIN: 140, Split.VAL: 70, Split.TEST: 70}


def prepare_synthetic() -> None:
    """Put few drawn faces into the cache, which is taken for all that fersweep draws: those take seconds."""
    images, labels, splits = synthetic.draw_dataset(sizes=SIZES)
    source = f"drawn by fersweep, version {synthetic.VERSION}"
    info = store.build_info(
        "synthetic", source, "drawn", images, labels, splits, official_split=False, notes=(), created=0.0
    )
    store.save(info, images, labels, splits, group_copies(images), replace=True)


def pack(faces: Path, target: Path) -> None:
    """Make a zip in the layout of the Kaggle data set out of image folders."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(faces.rglob("*.png")):
            archive.write(path, path.relative_to(faces))
            if path.name.startswith("PublicTest_"):  # the layout's test folder pools both test splits
                other = path.with_name(path.name.replace("PublicTest_", "PrivateTest_"))
                archive.writestr(str(other.relative_to(faces)), _upside_down(path))


def _upside_down(path: Path) -> bytes:
    """No copy of a face in the validation split."""
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(stream, "PNG")
    return stream.getvalue()
