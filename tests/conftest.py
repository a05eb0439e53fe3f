"""Every test gets a home and a data cache of its own; none can reach the user's files or the network."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.standin.server import StandIn

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FERSWEEP_HOME and FERSWEEP_CACHE below the test's own folder, which is also the working directory."""
    monkeypatch.setenv("FERSWEEP_HOME", str(tmp_path / ".fersweep"))
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_MODE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def standin() -> Iterator[StandIn]:
    """A W&B server on loopback."""
    with StandIn() as server:
        yield server


@pytest.fixture
def online(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A W&B server that this process and its children are logged in to."""
    for name, value in {**standin.environment, "WANDB_MODE": "online", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    _forget_wandb()
    yield standin
    _forget_wandb()


def _forget_wandb() -> None:
    # wandb reads its settings once a process, and its service holds on to the server of the test before.
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()


@pytest.fixture(scope="session")
def fer2013_zip() -> Path:
    """The real FER2013 image folders as a zip; a test that asks for it skips where there is none."""
    given = os.environ.get("FERSWEEP_FER2013_ZIP")
    path = Path(given) if given else REPOSITORY.parent / "shared" / "data" / "fer2013.zip"
    if not path.is_file():
        pytest.skip("the real FER2013 archive is not here: set FERSWEEP_FER2013_ZIP to its path to run this test")
    return path


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data cache that holds `tiny`: 140 training and 70 validation drawn faces, prepared from image folders."""
    from PIL import Image

    from fer_sweep.data.cache import prepare
    from fer_sweep.records import CLASSES

    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for code, name in enumerate(CLASSES):
        for split, prefix, count in (("train", "Training", 20), ("test", "PublicTest", 10)):
            target = folder / "faces" / split / name
            target.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
                pixels[6 * code : 6 * code + 6] //= 2  # a darker band shows the class through the noise
                Image.fromarray(pixels).save(target / f"{prefix}_{code}{number:04d}.png")
    cache = folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(cache))
        prepare(folder / "faces", "tiny")
    return cache


@pytest.fixture
def tiny_data(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a data set that trains in milliseconds."""
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))
    return "tiny"


@pytest.fixture
def one_core() -> Iterator[None]:
    """Let this process and its children run on a single core: thousands of tiny steps are slowest on contended ones."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)
