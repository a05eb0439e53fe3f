"""The batch script by itself: signals, exit codes and second tries, with the programs it calls put on the path."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from fer_sweep.config.pool_file import SlurmPool, parse_pool
from fer_sweep.pools import AgentCommand
from fer_sweep.pools.slurm import sbatch_words, script
from tests.support.processes import until

COMMAND = AgentCommand("abc", ("agent", "abc"), Path("/home/my lab/100%"))


def pool_of(**values: object) -> SlurmPool:
    pool = parse_pool({"kind": "slurm", "command": "fersweep", **values})
    assert isinstance(pool, SlurmPool)
    return pool


class Node:
    """What a job finds on a node: fersweep and scontrol, which write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.program("scontrol", "exit 0")

    def program(self, name: str, does: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f'#!/bin/bash\necho "{name} $*" >> "{self.folder}/calls"\n{does}\n')
        file.chmod(0o755)

    def start(self, **environment: str) -> "subprocess.Popen[bytes]":
        (self.folder / "job.sh").write_text(script(pool_of(), COMMAND))
        job = {"SLURM_JOB_ID": "78", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "1", "SLURMD_NODENAME": "n1"}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        words = ["bash", str(self.folder / "job.sh")]
        return subprocess.Popen(words, env={**os.environ, **job, "PATH": path, **environment})

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.is_file() else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


ONE_THAT_CHECKPOINTS = """
trap 'kill $!; sleep 0.2; echo checkpoint >> "$0.done"; exit 130' USR2 TERM
echo ready >> "$0.ready"
sleep 60 & wait
"""
ONE_THAT_FINISHES = """
trap 'echo >> "$0.heard"' USR2
echo ready >> "$0.ready"
while [ ! -e "$0.heard" ]; do sleep 0.05; done
exit CODE
"""


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)])
def test_signals_reach_the_agent_and_only_the_notice_queues_the_job_again(
    number: signal.Signals, requeued: bool, node: Node
) -> None:
    node.program("fersweep", ONE_THAT_CHECKPOINTS)
    job = node.start()
    until((node.folder / "bin" / "fersweep.ready").exists, 20)
    job.send_signal(number)
    code = job.wait(timeout=20)
    assert (node.folder / "bin" / "fersweep.done").is_file(), "the script did not wait for the checkpoint"
    assert node.calls() == ["fersweep agent abc", *(["scontrol requeue 78"] if requeued else [])]
    assert code == (130 if requeued else 0)


def test_a_notice_between_the_agents_start_and_the_note_of_its_number_is_passed_on(node: Node) -> None:
    node.program("fersweep", ONE_THAT_CHECKPOINTS)
    signals_itself = node.folder / "signals_itself.sh"
    signals_itself.write_text('set -o functrace\ntrap \'[ "$BASH_COMMAND" != "child=\\$!" ] || kill -USR2 $$\' DEBUG\n')
    job = node.start(BASH_ENV=str(signals_itself))
    try:
        assert job.wait(timeout=20) > 128
    finally:
        job.kill()
    assert node.calls()[-1] == "scontrol requeue 78"


@pytest.mark.parametrize(("code", "ends_with"), [(0, 0), (1, 1), (2, 2), (3, 0)])
def test_an_agent_that_comes_to_its_end_is_not_queued_again(code: int, ends_with: int, node: Node) -> None:
    # The notice comes, but the agent has finished by itself, or failed: another time would bring nothing.
    node.program("fersweep", ONE_THAT_FINISHES.replace("CODE", str(code)))
    job = node.start()
    until((node.folder / "bin" / "fersweep.ready").exists, 20)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(timeout=20) == ends_with
    assert node.calls() == ["fersweep agent abc"]


@pytest.mark.parametrize(
    ("restarts", "state", "tries"), [("0", "running", 1), ("1", "finished", 1), ("1", "running", 2)]
)
def test_started_again_with_nothing_to_do_it_waits_once_for_the_lease_of_a_lost_node(
    restarts: str, state: str, tries: int, node: Node
) -> None:
    node.program("fersweep", f'[ $1 = agent ] && exit 3\necho \'  "state": "{state}"\'')
    job = node.start(SLURM_RESTART_COUNT=restarts, FERSWEEP_LEASE_S="0.1")
    assert job.wait(timeout=20) == 0
    assert node.calls().count("fersweep agent abc") == tries


def test_what_the_file_says_is_what_sbatch_is_told() -> None:
    pool = pool_of(
        partition="gpu", account="lab", qos="low", gres="shard:2", cpus=4, memory="8G", time="1:00:00", at_once=2,
        sbatch=["--constraint=a100"],
    )  # fmt: skip
    words = sbatch_words(pool, COMMAND, 5)
    for expected in (
        "--array=0-4%2",
        "--partition=gpu",
        "--account=lab",
        "--qos=low",
        "--gres=shard:2",
        "--cpus-per-task=4",
        "--mem=8G",
        "--time=1:00:00",
        "--signal=B:USR2@120",
        "--requeue",
        "--open-mode=append",
        "--output=/home/my lab/100%%/%A_%a.log",
        "--constraint=a100",
    ):
        assert expected in words
    assert not [word for word in sbatch_words(pool_of(), COMMAND, 1) if "None" in word]
