"""A fake Slurm for every test that asks for one; a real Slurm and a real Ray for those marked ``cluster``."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_socket

from tests.support import ray_nodes, slurm
from tests.support.documentation import REPOSITORY
from tests.support.fake_slurm import FakeSlurm
from tests.support.processes import SWEEP
from tests.support.shell import Shell


@pytest.fixture(autouse=True, scope="session")
def findable_support() -> Iterator[None]:
    """Processes that a test starts find tests.support; an empty part of the path would be the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))))
        yield


@pytest.fixture
def sweep(shell: Shell, tiny_data: str) -> str:
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    return str(shell.json("create", "sweep.yaml")["sweep"])


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    with closing(FakeSlurm(tmp_path / "slurm")) as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        yield cluster


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[slurm.Cluster]:
    if reason := slurm.missing():
        pytest.skip(reason)
    with closing(slurm.Cluster()) as cluster:
        yield cluster


@pytest.fixture
def real_slurm(slurm_cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[slurm.Cluster]:
    """The Slurm cluster, with no job on it, as the one that this process's commands speak to."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.configuration))
    yield slurm_cluster
    slurm_cluster.restore()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[ray_nodes.Cluster]:
    if reason := ray_nodes.missing():
        pytest.skip(reason)
    with ray_nodes.cluster() as cluster:
        yield cluster


@pytest.fixture
def real_ray(ray_cluster: ray_nodes.Cluster, monkeypatch: pytest.MonkeyPatch) -> ray_nodes.Cluster:
    """The Ray cluster, as the one that ``address: auto`` means; no agent outlives the pool that started it."""
    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    host = ray_cluster.environment["RAY_ADDRESS"].partition(":")[0]
    pytest_socket.socket_allow_hosts(["127.0.0.1", host], allow_unix_socket=True)
    return ray_cluster
