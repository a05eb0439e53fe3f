"""A Ray cluster of the tests' own: three nodes with GPUs that are not there, all on this machine."""

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

GPUS = 2
"""Of each node."""


def missing() -> str | None:
    """Why there can be no cluster here."""
    return None if importlib.util.find_spec("ray") else "Ray is not installed: pip install 'fersweep[ray]'"


class Cluster:
    """One that runs from the start; its nodes are known by the process ids of their raylets."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.folder = folder
        self._cluster = cluster
        self._nodes: dict[int, Any] = {}
        # A node that says nothing is lost after a second rather than after a quarter of a minute.
        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
        self.head = self.add(include_dashboard=False, _system_config=quick)
        self.add()
        self.add()
        self.environment = {"RAY_TMPDIR": str(folder), "RAY_ADDRESS": cluster.address}

    def add(self, **options: Any) -> int:
        """Start a node and wait until it is one of the cluster's."""
        node = self._cluster.add_node(num_cpus=8, num_gpus=GPUS, object_store_memory=80 * 2**20, **options)
        raylet: int = node.all_processes["raylet"][0].process.pid
        self._nodes[raylet] = node
        return raylet

    def lose(self, raylet: int) -> None:
        """What a cut does to a node: its raylet is gone at once, and the cluster's word with it."""
        self._cluster.remove_node(self._nodes.pop(raylet), allow_graceful=False)


def node_of(pid: int) -> int:
    """The node that a process was started by."""
    return int(psutil.Process(pid).environ()["RAY_RAYLET_PID"])


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster, while it is needed."""
    from ray.cluster_utils import Cluster as Nodes

    short = tempfile.TemporaryDirectory(prefix="fersweep-ray-")  # as Ray's sockets lie in it
    with short as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # of a trial trained here; Ray makes some GPUs up
        nodes = Nodes()
        try:
            yield Cluster(nodes, Path(folder))
        finally:
            nodes.shutdown()
