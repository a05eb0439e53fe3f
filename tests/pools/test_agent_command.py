"""``fersweep agent --pool`` as a process: what it starts, follows and says, and what Ctrl-C does to it."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fer_sweep.config.pool_file import parse_pool
from fer_sweep.pools import AgentCommand
from fer_sweep.pools.slurm import SlurmAgents
from tests.support.pool_stage import follow_readme, make
from tests.support.processes import COMMAND, alive, descendants, fersweep, until
from tests.support.slurm import Cluster

pytestmark = pytest.mark.usefixtures("tiny_data", "one_core")

AGENTS = Path(__file__).resolve().parents[2] / "agents"
ON_CPU = ("--gpus", "none", "--slots", "1")


def state_of(sweep: str) -> str:
    (trial,) = json.loads(fersweep("status", sweep, "--json").stdout)["trials"]
    return str(trial["state"])


def following(pool: str, said: Path) -> "subprocess.Popen[bytes]":
    with said.open("wb") as output:
        return subprocess.Popen(
            [*COMMAND, "agent", "--pool", pool, *ON_CPU], stdout=output, stderr=output, process_group=0
        )


def test_the_shipped_local_file_starts_an_agent_and_follows_it_to_its_end() -> None:
    sweep = make(epochs=1)
    done = fersweep("agent", sweep, "--pool", str(AGENTS / "local.yaml"), *ON_CPU, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"sweep": sweep, "agents": {"0": "done"}, "interrupted": False}
    assert f"next: fersweep best {sweep}" in done.stderr
    assert "agent 0: done" in done.stderr
    assert state_of(sweep) == "complete"
    # A second time there is nothing to do, and nothing is started for it.
    again = fersweep("agent", sweep, "--pool", str(AGENTS / "local.yaml"))
    assert (again.returncode, "0 to" in again.stderr) == (3, False)
    assert f"sweep {sweep} is finished" in again.stderr


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_agents_of_this_host_end_with_the_command_that_started_them(end: signal.Signals, tmp_path: Path) -> None:
    sweep = make(epochs=5000)
    folder = Path(".fersweep/sweeps") / sweep / "trials" / "0"
    command = following(str(AGENTS / "local.yaml"), tmp_path / "said.txt")
    until(lambda: (folder / "history.jsonl").is_file())
    family = descendants(command.pid)
    assert family
    command.send_signal(end)
    assert command.wait(timeout=90) in (130, -signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in family))
    assert (folder / "last.ckpt").is_file()
    assert state_of(sweep) == "preempted"


def test_what_cannot_be_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    sweep = make(epochs=1)
    (tmp_path / "pool.yaml").write_text("kind: slurm\npartitoin: gpu\n")
    wrong = fersweep("agent", sweep, "--pool", "pool.yaml")
    assert (wrong.returncode, "line 2: partitoin: no such key (did you mean partition?)" in wrong.stderr) == (2, True)
    alone = fersweep("agent", sweep, "--agents", "2")
    assert (alone.returncode, "--agents goes with --pool" in alone.stderr) == (2, True)
    mirrored = fersweep("agent", sweep, "--pool", str(AGENTS / "local.yaml"), "--mirror", "m")
    assert mirrored.returncode == 2


def test_without_slurm_it_says_where_to_run_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep = make(epochs=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = fersweep("agent", sweep, "--pool", str(AGENTS / "slurm.yaml"))
    assert done.returncode == 1
    assert "no sbatch here" in done.stderr and "login node" in done.stderr


def test_what_slurm_refuses_is_said(cluster: Cluster, tmp_path: Path) -> None:
    sweep = make(epochs=1)
    (tmp_path / "pool.yaml").write_text("kind: slurm\npartition: nosuch\n")
    done = fersweep("agent", sweep, "--pool", "pool.yaml")
    assert done.returncode == 1
    assert "nvalid partition" in done.stderr, done.stderr
    assert "sinfo" in done.stderr


def test_modules_and_a_container_stand_before_the_agent(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("module", "apptainer", "fersweep"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name}: $*"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    values = {"modules": ["cuda/12.4"], "container": "apptainer exec 'my image.sif'", "command": "fersweep"}
    pool = SlurmAgents(parse_pool({"kind": "slurm", **values}))  # type: ignore[arg-type]
    (agent,) = pool.start(AgentCommand("abc", ("agent", "abc", "--gpus=$(id)"), tmp_path / "100% logs"), 1)
    until(lambda: pool.states()[agent].has_ended)
    said = (tmp_path / "100% logs" / f"{agent}.log").read_text().splitlines()
    assert said[1:] == ["module: load cuda/12.4", "apptainer: exec my image.sif fersweep agent abc --gpus=$(id)"]


STUB = """\
#!/bin/bash
trap 'kill $!; echo > HERE/checkpoint; exit 130' TERM
echo > HERE/ready
sleep 600 & wait
"""
"""An agent in little, which is there in no time; what a real one does when it is told to end is seen elsewhere."""


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_slurms_jobs_alone_and_a_second_one_ends_them(
    times: int, cluster: Cluster, tmp_path: Path
) -> None:
    make(epochs=1)
    stub = tmp_path / "stub"
    stub.write_text(STUB.replace("HERE", str(tmp_path)))
    stub.chmod(0o755)
    (tmp_path / "pool.yaml").write_text(f"kind: slurm\ngres: gpu:1\ncpus: 1\ncommand: {stub}\n")
    said = tmp_path / "said.txt"
    command = following("pool.yaml", said)
    until((tmp_path / "ready").exists)
    command.send_signal(signal.SIGINT)
    until(lambda: "Ctrl-C again within" in said.read_text())
    if times == 2:
        command.send_signal(signal.SIGINT)
    assert command.wait(timeout=90) == 130
    left = cluster.ask("squeue", "--noheader", "--states=running", "--format=%i")
    if times == 1:
        assert left and f"scancel {left.partition('_')[0]}" in said.read_text()
    assert bool(left) == (times == 1)
    assert (tmp_path / "checkpoint").is_file() == (times == 2)


def test_the_commands_of_the_readme_run_a_sweep_in_postgresql(
    cluster: Cluster, postgres: str, tiny_data: str, tmp_path: Path
) -> None:
    shutil.copytree(AGENTS.parent / "sweeps", tmp_path / "sweeps")
    (tmp_path / "agents").mkdir()
    here = (AGENTS / "slurm.yaml").read_text().replace("cpus: 4", "cpus: 1")  # what a node of the tests has
    (tmp_path / "agents" / "slurm.yaml").write_text(here)
    followed = follow_readme("## On a Slurm cluster", postgres, tiny_data)
    assert "note:" not in followed  # nothing to warn of in a search that every node reaches
