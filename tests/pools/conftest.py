"""A Slurm cluster for the tests that ask for one; they skip where there can be none."""

from collections.abc import Iterator

import pytest

from tests import slurm


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
    slurm_cluster.empty()
