"""What the tests of training share: a small data set, prepared once."""

from pathlib import Path

import numpy as np
import pytest

from fer_sweep.data.cache import prepare


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the data set `tiny`: 70 training and 21 validation images, of which 7 are copies."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    labels = np.arange(98) % 7
    # A bright bar whose height is the class, in noise: a network of any size learns it.
    images = rng.integers(0, 120, (98, 48, 48))
    for image, label in zip(images, labels, strict=True):
        image[6 * label + 2 : 6 * label + 8, :] += 100
    images[70:77] = images[:7]
    usage = ["Training"] * 70 + ["PublicTest"] * 21 + ["PrivateTest"] * 7
    lines = [
        f"{label},{' '.join(map(str, image.ravel()))},{split}"
        for label, image, split in zip(labels, images, usage, strict=True)
    ]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines, ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(folder / "cache"))
        prepare(folder / "fer2013.csv", "tiny")
    return folder / "cache"


@pytest.fixture(autouse=True)
def tiny_data(own_folders: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here finds `tiny` prepared."""
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """Every training here takes a few tiny steps."""
