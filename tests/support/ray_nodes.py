"""A Ray cluster of the tests' own: three nodes with GPUs that are not there, all on this machine.

Ray's ``Cluster`` runs in a process of its own, which takes orders on stdin: what it leaves behind at its end, threads,
sockets and warnings, is none of the tests'.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import alive, descendants, until

HEAD = "0"
"""The node that keeps the cluster together, and cannot be lost."""
NODES = (HEAD, "1", "2")
GPUS = 2
"""Of each node."""
_SERVE = """\
import sys
from ray.cluster_utils import Cluster
# A node that says nothing is lost after a second rather than after a quarter of a minute.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
cluster = Cluster()
nodes = {}
for line in sys.stdin:
    what, number = line.split()
    if what == "add":
        only_head = {} if nodes else {"include_dashboard": False, "_system_config": QUICK}
        nodes[number] = cluster.add_node(num_cpus=8, num_gpus=GPUS, object_store_memory=80 * 2**20, **only_head)
        print(cluster.address, nodes[number].all_processes["raylet"][0].process.pid, flush=True)
    else:
        cluster.remove_node(nodes.pop(number), allow_graceful=False)
        print("gone", flush=True)
cluster.shutdown()
"""


def missing() -> str | None:
    """Why there can be no cluster here."""
    return None if importlib.util.find_spec("ray") else "no Ray here: pip install 'fersweep[ray]'"


class Cluster:
    """One that runs from the start, and what a test wants to do to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fersweep-ray-"))  # short: Ray's sockets lie in it
        self.environment = {"RAY_TMPDIR": str(self.folder), "RAY_USAGE_STATS_ENABLED": "0"}
        self._raylets: dict[str, int] = {}
        """Process ids by the numbers of nodes."""
        self._log = (self.folder / "cluster.log").open("wb")
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVE.replace("GPUS", str(GPUS))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # A trial trained in this process on the CPU has hidden all GPUs from it, and Ray makes some up.
            env={**{n: v for n, v in os.environ.items() if n != "CUDA_VISIBLE_DEVICES"}, **self.environment},
        )
        self.address = ""
        try:
            for number in NODES:
                self.add(number)
        except BaseException:
            self.close()
            raise

    def add(self, number: str) -> None:
        """Start a node and wait until it is one of the cluster's."""
        self.address, raylet = self._order(f"add {number}").split()
        self._raylets[number] = int(raylet)

    def number_of(self, raylet: int) -> str:
        """The number of the node that this process keeps."""
        (found,) = [number for number, pid in self._raylets.items() if pid == raylet]
        return found

    def lose(self, number: str) -> None:
        """What a cut does to a node: its raylet is gone at once, and the cluster's word with it."""
        self._order(f"remove {number}")
        del self._raylets[number]

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
        with self._server, contextlib.suppress(BrokenPipeError):
            assert self._server.stdin is not None
            self._server.stdin.close()
            try:
                self._server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._server.kill()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in family), 20)
        self._log.close()
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster, while it is needed."""
    made = Cluster()
    try:
        yield made
    finally:
        made.close()
