"""A Slurm cluster of the tests' own: a controller and two nodes, all on this machine, in a temporary folder."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import psutil

from tests.support.processes import alive, own_core, until

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "setpriv", "taskset")
NODES = ("n1", "n2")
_CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={folder}/munge.socket
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
SchedulerParameters=sched_interval=2,sched_min_interval=100000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmdTimeout=10
MessageTimeout=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here."""
    if programs := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"no Slurm here ({', '.join(programs)} missing): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "Slurm's daemons start jobs as other users: only root can run them here"


class Cluster:
    """One that runs from the start, and what a test wants to do to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fersweep-slurm-"))
        self.configuration = self.folder / "slurm.conf"
        self._environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self._start()
            stack.pop_all()

    def _start(self) -> None:
        for name in ("state", "spool", "spool/n1", "spool/n2"):
            (self.folder / name).mkdir()
        words = {"folder": self.folder, "host": socket.gethostname().partition(".")[0], "ports": _free_ports(3)}
        self.configuration.write_text(_CONFIGURATION.format_map(words))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        places = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{name}={self.folder / place}" for name, place in places.items()]
        self._daemon("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        until((self.folder / "munge.socket").exists, 20)
        self._daemon("slurmctld", "slurmctld", "-D")
        self._start_nodes()

    def _daemon(self, name: str, *words: str) -> None:
        words = ("setpriv", "--pdeathsig=TERM", *words)  # whatever ends the tests ends it too
        environment = {**self._environment, "SLURMD_NODENAME": name}  # its jobs have the same
        with (self.folder / f"{name}.log").open("ab") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self._daemons[name] = subprocess.Popen(words, env=environment, **streams)

    def _start_nodes(self) -> None:
        """Start those nodes that are not there, and wait until jobs may run on them."""
        core = str(own_core())  # for all jobs: thousands of tiny steps are slowest on contended ones
        for node in NODES:
            if node not in self._daemons:
                self._daemon(node, "taskset", "--cpu-list", core, "slurmd", "-D", "-N", node)
                until(lambda node=node: self.ask("sinfo", "--noheader", f"--nodes={node}", "--format=%T") == "idle", 60)

    def lose_node(self, node: str) -> None:
        """What a power failure does to a node: its daemon and all that runs on it are gone at once."""
        self._daemons[node].kill()
        self._daemons.pop(node).wait()
        self._kill(node)

    def ask(self, *words: str) -> str:
        """What one of Slurm's commands prints; nothing if it fails."""
        return subprocess.run(words, capture_output=True, text=True, env=self._environment).stdout.strip()

    def node_of(self, agent: str) -> str:
        """The node that an agent runs on; empty while it runs on none."""
        return self.ask("squeue", "--noheader", "--array", f"--jobs={agent}", "--states=running", "--format=%N")

    def restore(self) -> None:
        """End every job, and have the nodes that were lost again."""
        self.ask("scancel", "--quiet", "--user=root")
        until(lambda: not self.ask("squeue", "--noheader"), 60)
        self._start_nodes()

    def close(self) -> None:
        """End everything that was started, jobs included."""
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        self._kill()
        shutil.rmtree(self.folder)

    def _kill(self, node: str | None = None) -> None:
        """Kill this cluster's processes, or those of one node, and wait for their end."""
        killed = []
        for pid in set(psutil.pids()) - {os.getpid()}:
            with contextlib.suppress(OSError):
                # Not psutil's environ(), which ends at the hole that slurmstepd leaves when it sets its title.
                own = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
                if f"SLURM_CONF={self.configuration}" in own and (node is None or f"SLURMD_NODENAME={node}" in own):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
        until(lambda: not any(alive(pid) for pid in killed), 20)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [taken.getsockname()[1] for taken in sockets]
