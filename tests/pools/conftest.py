"""A Slurm and a Ray cluster for the tests that ask for one; they skip where there can be none."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ray_nodes, slurm


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[slurm.Cluster]:
    """A cluster of two nodes."""
    if reason := slurm.missing():
        pytest.skip(reason)
    cluster = slurm.Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(slurm_cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[slurm.Cluster]:
    """The cluster, with no job on it, as the one that this process's commands speak to."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.configuration))
    yield slurm_cluster
    slurm_cluster.restore()


@pytest.fixture(scope="session")
def ray_nodes_here() -> Iterator[ray_nodes.Cluster]:
    """A Ray of three nodes."""
    if reason := ray_nodes.missing():
        pytest.skip(reason)
    with ray_nodes.cluster() as cluster:
        yield cluster


@pytest.fixture
def ray_cluster(ray_nodes_here: ray_nodes.Cluster, monkeypatch: pytest.MonkeyPatch) -> ray_nodes.Cluster:
    """The Ray cluster, as the one that ``address: auto`` means; no agent outlives the pool that started it."""
    for name, value in {**ray_nodes_here.environment, "RAY_ADDRESS": ray_nodes_here.address}.items():
        monkeypatch.setenv(name, value)
    return ray_nodes_here


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket."""
    folder = Path(tempfile.mkdtemp(prefix="fersweep-ray-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def unused_port() -> int:
    """A port of this host at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
