"""Real processes on one database: every trial once, an exact cap, and kill -9 in the middle."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, sweep_state

WORKER = """
import json, sys
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.optuna_embedded import OptunaSearch

search = OptunaSearch(sys.argv[1], storage=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
while request := search.next_trial("cpu/0"):
    for epoch in (1, 2):
        search.report(request.trial_id, epoch, {"val_loss": request.config.lr * epoch})
    search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
    print(json.dumps([request.trial_id, request.attempt, dict(request.parameters)]), flush=True)
assert "torch" not in sys.modules
search.close()
"""
HOLDER = """
import sys
from fer_sweep.search.optuna_embedded import OptunaSearch

search = OptunaSearch(sys.argv[1], storage=sys.argv[2])
request = search.next_trial("cpu/0")
search.report(request.trial_id, 1, {"val_loss": 1.0})
print(request.trial_id, flush=True)
sys.stdin.readline()
"""


def start(code: str, sweep_id: str, storage: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, sweep_id, storage],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def make(storage: str, sweep_id: str, method: str, run_cap: int, parameters: dict) -> None:
    settings = {"method": method, "metric": {"name": "val_loss"}, "run_cap": run_cap}
    sweep = parse_sweep({**settings, "parameters": {"model": {"value": "simple_cnn"}, **parameters}})
    create_sweep(sweep, sweep_id=sweep_id, storage=storage)


@pytest.mark.parametrize(("method", "workers", "cap"), [("random", 4, 60), ("grid", 2, 40), ("bayes", 3, 40)])
def test_processes_share_trials_each_once_and_to_the_exact_cap(storage, method, workers, cap):
    parameters = {"channels": {"min": 1, "max": 10}, "hidden": {"values": [16, 32, 64, 128, 256, 512, 1024]}}
    make(storage, "shared", method, cap, parameters)
    processes = [start(WORKER, "shared", storage) for _ in range(workers)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * workers
    done = [json.loads(line) for output in outputs for line in output.splitlines()]
    assert sorted(int(trial_id) for trial_id, _, _ in done) == list(range(cap))
    assert {attempt for _, attempt, _ in done} == {1}
    assert max(Counter(json.dumps(parameters, sort_keys=True) for _, _, parameters in done).values()) == 1
    assert sweep_state(storage, "shared") == "finished"

    alone = OptunaSearch("shared", storage=storage)
    records = alone.records()
    alone.close()
    assert [record.state for record in records] == [TrialState.COMPLETE] * cap
    if method != "bayes":  # that one learns from results in the order in which they come
        make(storage, "alone", method, cap, parameters)
        alone = OptunaSearch("alone", storage=storage)
        again = [dict(alone.next_trial("cpu/0").parameters) for _ in range(cap)]
        alone.close()
        assert again == [record.parameters for record in records]


def test_a_killed_agents_trial_goes_on_elsewhere_at_once(storage):
    make(storage, "killed", "random", 2, {"lr": {"min": 0.001, "max": 0.1}})
    survivor = OptunaSearch("killed", storage=storage)
    victim = start(HOLDER, "killed", storage)
    try:
        held = victim.stdout.readline().strip()
        other = survivor.next_trial("cpu/0")
        assert other.trial_id != held
        assert survivor.next_trial("cpu/1") is None, "the trial belongs to a living process"
        victim.send_signal(signal.SIGKILL)
        victim.wait(timeout=30)
    finally:
        victim.kill()
        victim.communicate()
    taken = survivor.next_trial("cpu/1")
    assert (taken.trial_id, taken.attempt) == (held, 2)
    survivor.finish(taken.trial_id, TrialOutcome(TrialState.COMPLETE))
    survivor.close()


def test_a_process_that_is_dead_but_not_yet_reaped_is_dead(storage):
    make(storage, "unreaped", "random", 1, {"lr": {"min": 0.001, "max": 0.1}})
    victim = start(HOLDER, "unreaped", storage)
    held = victim.stdout.readline().strip()
    victim.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, victim.pid, os.WEXITED | os.WNOWAIT)
    survivor = OptunaSearch("unreaped", storage=storage)
    taken = survivor.next_trial("cpu/0")
    assert (taken.trial_id, taken.attempt) == (held, 2)
    survivor.close()
    victim.communicate()


def test_a_closed_agents_trial_is_free_at_once(storage):
    make(storage, "closed", "random", 1, {"lr": {"min": 0.001, "max": 0.1}})
    first = OptunaSearch("closed", storage=storage)
    second = OptunaSearch("closed", storage=storage)
    held = first.next_trial("cpu/0")
    assert second.next_trial("cpu/0") is None
    first.close()
    assert (second.next_trial("cpu/0").trial_id, held.attempt) == (held.trial_id, 1)
    second.close()


def test_several_processes_may_create_the_first_sweep_of_a_home_together(storage):
    code = (
        "import sys\n"
        "from fer_sweep.config.sweep_file import parse_sweep\n"
        "from fer_sweep.search.storage import create_sweep\n"
        "sweep = parse_sweep({'method': 'random', 'parameters': {'lr': {'min': 0.1, 'max': 1.0}}})\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "create_sweep(sweep, sweep_id=sys.argv[1], storage=sys.argv[2])\n"
    )
    workers = [start(code, f"sweep{n}", storage) for n in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
