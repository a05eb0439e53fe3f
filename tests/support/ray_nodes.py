"""A Ray cluster of the tests' own: three nodes with GPUs that are not there, all on this machine.

Ray's ``Cluster`` runs in a process of its own, this file as a program, which takes orders on stdin: what it leaves at
its end, threads, sockets and warnings, is none of the tests'.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.processes import alive, descendants, until

GPUS = 2
"""Of each node."""


def missing() -> str | None:
    """Why there can be no cluster here."""
    return None if importlib.util.find_spec("ray") else "Ray is not installed: pip install 'fersweep[ray]'"


class Cluster:
    """One that runs from the start; its nodes are known by the process ids of their raylets."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fersweep-ray-"))  # short: Ray's sockets lie in it
        self.environment = {"RAY_TMPDIR": str(self.folder), "RAY_USAGE_STATS_ENABLED": "0"}
        self._log = (self.folder / "cluster.log").open("wb")
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.support.ray_nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # A trial trained in this process on the CPU has hidden all GPUs from it, and Ray makes some up.
            env={**{n: v for n, v in os.environ.items() if n != "CUDA_VISIBLE_DEVICES"}, **self.environment},
        )
        try:
            self.head = self.add()
            self.add()
            self.add()
        except BaseException:
            self.close()
            raise

    def add(self) -> int:
        """Start a node and wait until it is one of the cluster's."""
        self.environment["RAY_ADDRESS"], raylet = self._order("add").split()
        return int(raylet)

    def lose(self, raylet: int) -> None:
        """What a cut does to a node: its raylet is gone at once, and the cluster's word with it."""
        self._order(str(raylet))

    def _order(self, line: str) -> str:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline().strip()
        assert answer, (self.folder / "cluster.log").read_text()
        return answer

    def close(self) -> None:
        """End everything that was started."""
        family = descendants(self._server.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.communicate(timeout=60)
        for pid in {self._server.pid, *family}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in family), 20)
        self._server.wait()
        self._log.close()
        shutil.rmtree(self.folder)


def node_of(pid: int) -> int:
    """The node that a process was started by."""
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (raylet,) = [line.partition("=")[2] for line in environment if line.startswith("RAY_RAYLET_PID=")]
    return int(raylet)


def main() -> None:
    from ray.cluster_utils import Cluster as Nodes

    # A node that says nothing is lost after a second rather than after a quarter of a minute.
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
    nodes, cluster = {}, Nodes()
    for line in sys.stdin:
        if line == "add\n":
            only_head = {} if nodes else {"include_dashboard": False, "_system_config": quick}
            node = cluster.add_node(num_cpus=8, num_gpus=GPUS, object_store_memory=80 * 2**20, **only_head)
            raylet = node.all_processes["raylet"][0].process.pid
            nodes[raylet] = node
            print(cluster.address, raylet, flush=True)
        else:
            cluster.remove_node(nodes.pop(int(line)), allow_graceful=False)
            print("gone", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
