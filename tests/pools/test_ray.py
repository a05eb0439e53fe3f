"""Agents on a real Ray of three nodes: what happens to actors there, and that no trial is lost or doubled by it."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.config.pool_file import RayPool, parse_pool
from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentCommand, Phase
from fer_sweep.pools.ray_agent import AgentActor
from fer_sweep.pools.ray_cluster import RayAgents
from tests.support.pool_stage import command, follow_readme, make, trials_of
from tests.support.processes import COMMAND, alive, descendants, fersweep, until, words_of
from tests.support.ray_nodes import GPUS, HEAD, Cluster, missing

pytestmark = [
    pytest.mark.usefixtures("tiny_data"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
AGENTS = Path(__file__).resolve().parents[2] / "agents"
EPOCHS = 5_000
"""More than any machine trains while a test looks on."""


def pool_of(**values: Any) -> RayAgents:
    pool = parse_pool({"kind": "ray", "address": "auto", **values})
    assert isinstance(pool, RayPool)
    return RayAgents(pool)


def history(sweep: str, trial: int = 0) -> list[int]:
    file = Path(".fersweep/sweeps") / sweep / "trials" / str(trial) / "history.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line)["epoch"] for line in lines if line.endswith("}")]


def log_of(agent: str) -> str:
    log = Path("logs") / f"ray-{os.getpid()}-{agent}.log"
    return log.read_text() if log.is_file() else ""


def processes_of(sweep: str) -> list[int]:
    """The agents of a sweep."""
    pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if f"\0agent\0{sweep}\0" in words_of(pid)]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def node_of(cluster: Cluster, pid: int) -> str:
    """The number of the node a process was started by."""
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (raylet,) = [line.partition("=")[2] for line in environment if line.startswith("RAY_RAYLET_PID=")]
    return cluster.number_of(int(raylet))


def test_trials_of_a_node_that_is_lost_are_gone_on_with_elsewhere_and_each_is_trained_once(
    ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERSWEEP_LEASE_S", "2")
    epochs, trials = 80, 3
    sweep = make(epochs, trials)
    pool = pool_of(gpus=GPUS)  # two of three nodes, so that there is one when a node goes
    agents = pool.start(command(sweep), 2)
    until(lambda: all(len(history(sweep, trial)) > 3 for trial in range(2)))
    places = {pid: node_of(ray_cluster, pid) for pid in processes_of(sweep)}
    assert len(set(places.values())) == 2
    pid, lost = next((pid, number) for pid, number in places.items() if number != HEAD)
    ray_cluster.lose(lost)
    until(lambda: not alive(pid))  # none works on for a cluster that has given it up
    until(lambda: all(state.has_ended for state in pool.states().values()))
    assert {state.phase for state in pool.states().values()} == {Phase.DONE}
    assert trials_of(sweep) == ["complete"] * trials
    for trial in range(trials):
        assert history(sweep, trial) == list(range(1, epochs + 1))
    logs = [log_of(agent) for agent in agents]
    assert any("start 2, on " in log for log in logs)
    assert any("(attempt 2)" in log for log in logs)
    ray_cluster.add(lost)


def test_no_more_agents_are_started_than_there_are_trials(ray_cluster: Cluster) -> None:
    sweep = make(epochs=1, trials=1)
    pool = pool_of(gpus=0.5)
    agents = pool.start(command(sweep), 4)
    until(lambda: all(state.has_ended for state in pool.states().values()))
    assert trials_of(sweep) == ["complete"]
    assert [bool(log_of(agent)) for agent in agents] == [True, False, False, False]
    assert pool.states()[agents[3]].note == "there was nothing left for it to do"


STUB = """\
#!/bin/bash
echo "gpus=$CUDA_VISIBLE_DEVICES cores=$FERSWEEP_CORES password=$PGPASSWORD other=$OTHER"
trap 'kill $!; exit 130' TERM
sleep 600 & wait
"""
"""An agent in little, which shows what it was given."""


def test_agents_see_the_gpus_that_ray_gives_them_and_the_variables_that_are_theirs(
    ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    monkeypatch.setenv("PGPASSWORD", "no-ones-business-but-theirs")
    monkeypatch.setenv("OTHER", "stays")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # this host's own
    nothing = AgentCommand("nosuchid", ("agent", "nosuchid"), Path("logs").absolute())

    def is_stubs(process: Path) -> bool:
        with contextlib.suppress(OSError):
            return process.joinpath("cwd").readlink() == tmp_path and "sleep" in words_of(int(process.name))
        return False

    def given(agents: int, **values: Any) -> list[str]:
        pool = pool_of(command=str(stub), **values)
        ids = pool.start(nothing, agents)
        until(lambda: all("gpus=" in log_of(agent) for agent in ids))
        for agent in ids:
            pool.stop(agent, grace_s=60)
            assert pool.states()[agent].phase is Phase.DONE
        found = [re.findall(r"gpus=(\S*) cores=(\d+) password=(\S+) other=$", log_of(agent), re.M) for agent in ids]
        assert [(cores, password) for ((_, cores, password),) in found] == [
            (str(values.get("cpus", 1)), "no-ones-business-but-theirs")
        ] * agents
        until(lambda: not [path for path in Path("/proc").glob("[0-9]*") if is_stubs(path)])
        shutil.rmtree("logs")
        return [gpus for ((gpus, _, _),) in found]

    shares = given(4, gpus=0.5)
    assert len(shares) == 4 and set(shares) <= {"0", "1"}  # numbers of a node
    assert {len(gpus.split(",")) for gpus in given(1, gpus=2)} == {2}
    assert given(1, gpus=0, cpus=3) == [""]
    session = [path for path in ray_cluster.folder.rglob("*") if path.is_file()]
    assert session and not [path for path in session if b"no-ones-business" in path.read_bytes()]


def test_what_no_node_has_is_said_and_can_be_ended(ray_cluster: Cluster) -> None:
    sweep = make(epochs=1)
    pool = pool_of(gpus=8, cpus=2)
    (agent,) = pool.start(command(sweep), 1)
    until(lambda: "no node has" in pool.states()[agent].note)
    state = pool.states()[agent]
    assert state.phase is Phase.WAITING
    assert state.note == "no node has 2 CPUs, 8 GPUs; the most that one has of each is 8 CPUs, 2 GPUs"
    pool.stop(agent, grace_s=60)
    assert pool.states()[agent].phase is Phase.DONE


def test_a_folder_or_a_program_that_a_node_does_not_have_is_named(ray_cluster: Cluster, tmp_path: Path) -> None:
    pool = pool_of(command="nosuchprogram")
    (agent,) = pool.start(command("nosuchid"), 1)
    until(lambda: pool.states()[agent].has_ended)
    assert pool.states()[agent].phase is Phase.FAILED
    assert "nosuchprogram cannot be started: No such file" in log_of(agent)


def test_an_agent_ends_with_its_actor_and_is_started_again_and_ends_with_what_speaks_to_ray(
    ray_cluster: Cluster,
) -> None:
    sweep = make(EPOCHS)
    pool = pool_of()
    (agent,) = pool.start(command(sweep), 1)
    until(lambda: len(history(sweep)) > 3)
    (first,) = processes_of(sweep)
    os.kill(parent_of(first), signal.SIGKILL)  # as Ray does where memory is short
    until(lambda: not alive(first))
    until(lambda: "trial 0 (attempt 2)" in log_of(agent))
    before = len(history(sweep))
    until(lambda: len(history(sweep)) > before > 3)
    assert history(sweep) == list(range(1, len(history(sweep)) + 1))

    (pid,) = processes_of(sweep)
    (driver,) = [child for child in descendants(os.getpid()) if "ray_driver" in words_of(child)]
    os.kill(driver, signal.SIGKILL)
    until(lambda: pool.states()[agent].has_ended)
    assert pool.states()[agent].phase is Phase.FAILED
    assert "what speaks to Ray ended with code -9" in pool.states()[agent].note
    until(lambda: not alive(pid))
    pool.stop(agent, grace_s=60)


def test_an_agent_whose_actor_does_not_answer_is_ended_all_the_same(ray_cluster: Cluster) -> None:
    sweep = make(EPOCHS)
    pool = pool_of()
    (agent,) = pool.start(command(sweep), 1)
    until(lambda: len(history(sweep)) > 0)
    (pid,) = processes_of(sweep)
    os.kill(parent_of(pid), signal.SIGSTOP)
    pool.stop(agent, grace_s=1)
    state = pool.states()[agent]
    assert (state.phase, "did not answer" in state.note) == (Phase.DONE, True)
    until(lambda: not alive(pid))


def test_a_log_that_cannot_be_written_is_named() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        AgentActor().start(["true"], {}, False, ".", "/dev/full", "agent 0")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_agents_end_with_the_command_that_started_them(
    end: signal.Signals, ray_cluster: Cluster, tmp_path: Path
) -> None:
    sweep = make(EPOCHS)
    Path("pool.yaml").write_text("kind: ray\naddress: auto\n")
    with (tmp_path / "said.txt").open("wb") as output:
        words = [*COMMAND, "agent", "--pool", "pool.yaml", "--gpus", "none", "--slots", "1"]
        following = subprocess.Popen(words, stdout=output, stderr=output, process_group=0)
    until(lambda: len(history(sweep)) > 0)
    (pid,) = processes_of(sweep)
    following.send_signal(end)
    assert following.wait(timeout=90) in (130, -signal.SIGKILL)
    until(lambda: not alive(pid))
    assert (Path(".fersweep/sweeps") / sweep / "trials" / "0" / "last.ckpt").is_file()
    assert trials_of(sweep) == ["preempted"]


def test_without_an_address_a_ray_of_this_host_is_started_and_ends_with_the_command(
    monkeypatch: pytest.MonkeyPatch, short_folder: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    sweep = make(epochs=1, trials=2)
    Path("pool.yaml").write_text("kind: ray\ngpus: 0\n")
    done = fersweep("agent", sweep, "--pool", "pool.yaml", "--json", "--gpus", "none", "--slots", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"sweep": sweep, "agents": {"0": "done"}, "interrupted": False}
    assert "note:" not in done.stderr  # SQLite will do
    assert trials_of(sweep) == ["complete"] * 2
    until(lambda: not [path for path in Path("/proc").glob("[0-9]*") if str(short_folder) in words_of(int(path.name))])

    Path("pool.yaml").write_text("kind: ray\ngpus: 64\n")
    more = make(epochs=1)
    refused = fersweep("agent", more, "--pool", "pool.yaml")
    assert refused.returncode == 1
    assert re.search(r"here no node has 1 CPU, 64 GPUs; the most that one has of each is \d+ CPU", refused.stderr)
    assert "gpus: 0 trains on CPU cores" in refused.stderr
    until(lambda: not [path for path in Path("/proc").glob("[0-9]*") if str(short_folder) in words_of(int(path.name))])


def test_a_ray_of_this_host_that_is_killed_ends_the_command_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, short_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    sweep = make(EPOCHS)
    Path("pool.yaml").write_text("kind: ray\n")
    said = tmp_path / "said.txt"
    with said.open("wb") as output:
        words = [*COMMAND, "agent", "--pool", "pool.yaml", "--gpus", "none", "--slots", "1"]
        following = subprocess.Popen(words, stdout=output, stderr=output, process_group=0)

    def of_ray() -> dict[int, str]:
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return {pid: words for pid in pids if str(short_folder) in (words := words_of(pid))}

    until(lambda: len(history(sweep)) > 0)
    (pid,) = processes_of(sweep)
    (raylet,) = [pid for pid, words in of_ray().items() if words.partition("\0")[0].endswith("/raylet")]
    os.kill(raylet, signal.SIGKILL)
    assert following.wait(timeout=90) == 1, said.read_text()
    assert "the Ray of this host has ended" in said.read_text()
    until(lambda: not alive(pid) and not of_ray())
    assert history(sweep) == list(range(1, len(history(sweep)) + 1))


def test_a_ray_that_is_not_there_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    address = f"127.0.0.1:{unused_port}"
    with pytest.raises(PoolError, match=f"no Ray answers at {address}: .*refused") as refused:
        pool_of(address=address).start(command("nosuchid"), 1)
    assert "ray status" in str(refused.value.hint)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(PoolError, match=f"no Ray answers at {address}: .*refused"):
        pool_of().start(command("nosuchid"), 1)


def test_news_that_are_cut_off_in_the_middle_end_the_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    news = r"""{"ready": true}\n{"states": {"0": ["""
    dies = f"import os; print('{news}', end='', flush=True); os.kill(os.getpid(), 9)"
    monkeypatch.setattr("fer_sweep.pools.ray_cluster._DRIVER", (sys.executable, "-c", dies))
    pool = pool_of()
    (agent,) = pool.start(command("nosuchid"), 1)
    until(lambda: pool.states()[agent].has_ended)
    assert pool.states()[agent].phase is Phase.FAILED
    assert "ended with code -9" in pool.states()[agent].note


def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    sweep = make(epochs=1)
    hides = "import sys; sys.modules['ray'] = None; sys.argv[0] = 'fersweep'; from fer_sweep.cli import main; main()"
    words = [COMMAND[0], "-c", hides, "agent", sweep, "--pool", str(AGENTS / "ray.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Ray is not installed here" in done.stderr and "pip install 'fersweep[ray]'" in done.stderr


def test_the_commands_of_the_readme_run_a_sweep_in_postgresql(
    ray_cluster: Cluster, postgres: str, tiny_data: str, tmp_path: Path
) -> None:
    shutil.copytree(AGENTS.parent / "sweeps", tmp_path / "sweeps")
    shutil.copytree(AGENTS, tmp_path / "agents")
    followed = follow_readme("## On a Ray cluster", postgres, tiny_data)
    assert "note:" not in followed
