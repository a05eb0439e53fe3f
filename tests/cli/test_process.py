"""The console script as a process: imports, signals, and what is left when it is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until, words_of

pytestmark = pytest.mark.usefixtures("one_core")

HEAVY = ("torch", "torchvision", "transformers", "wandb", "optuna", "numpy", "scipy", "pydantic", "rich", "sqlalchemy")
HEAVY += ("plotly", "jinja2", "optuna_dashboard")


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys; import fer_sweep.cli; print(' '.join(m for m in sys.modules if '.' not in m))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(found)


def test_an_agent_never_imports_torch_and_its_forks_never_run_its_main_module(tiny_data: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    assert fersweep("create", "sweep.yaml").returncode == 0
    code = (
        "import sys\n"
        "from fer_sweep.cli import main\n"
        "open('main-was-run', 'a').write('x')\n"
        "if __name__ == '__main__':\n"
        "    sys.argv = ['fersweep', 'agent', '--gpus', 'none']\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end.code\n"
        "    print('LOADED', *[m for m in ('torch', 'torchvision', 'transformers') if m in sys.modules])\n"
    )
    script = tmp_path / "agent.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "LOADED", done.stdout + done.stderr
    # A fork that ran the main module again would pay for its imports, and break when they change on disk.
    assert (tmp_path / "main-was-run").read_text() == "x"
    assert json.loads(fersweep("status", "--json").stdout)["trials"][0]["state"] == "complete"


@pytest.mark.parametrize("killed", ["agent", "group"])
def test_a_killed_agent_leaves_no_process_and_the_next_one_goes_on(killed: str, tiny_data: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "80"))
    sweep = fersweep("create", "sweep.yaml").stdout.strip()
    history = tmp_path / ".fersweep" / "sweeps" / sweep / "trials" / "0" / "history.jsonl"

    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.DEVNULL, process_group=0) as agent:
        family = {agent.pid}
        until(lambda: history.is_file() and history.read_text().count("\n") >= 3)
        family |= descendants(agent.pid)
        assert len(family) >= 3  # the agent, its forkserver and the trial
        if killed == "group":
            os.killpg(agent.pid, signal.SIGKILL)
        else:
            agent.kill()
    until(lambda: not any(alive(pid) for pid in family))

    again = fersweep("agent", "--gpus", "none")
    assert again.returncode == 0, again.stderr
    (trial,) = json.loads(fersweep("status", "--json").stdout)["trials"]
    assert trial["state"] == "complete"
    epochs = [json.loads(line)["epoch"] for line in history.read_text().splitlines()]
    assert epochs == list(range(1, 81))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_to_the_whole_group_checkpoints(number: signal.Signals, tiny_data: str, tmp_path: Path) -> None:
    # What scancel, `timeout` and a closed terminal do: agent, forkserver and trials all get it.
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "5000"))
    sweep = fersweep("create", "sweep.yaml").stdout.strip()
    folder = tmp_path / ".fersweep" / "sweeps" / sweep / "trials" / "0"
    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.DEVNULL, process_group=0) as agent:
        until(lambda: (folder / "history.jsonl").is_file() and (folder / "history.jsonl").read_text().count("\n") >= 2)
        family = {agent.pid} | descendants(agent.pid)
        os.killpg(agent.pid, number)
    assert agent.returncode == 130
    (trial,) = json.loads(fersweep("status", "--json").stdout)["trials"]
    assert trial["state"] == "preempted"
    assert (folder / "last.ckpt").is_file()
    until(lambda: not any(alive(pid) for pid in family))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_while_torch_is_imported_ends_cleanly(
    number: signal.Signals, tiny_data: str, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "3"))
    fersweep("create", "sweep.yaml")
    with subprocess.Popen(
        [*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
    ) as agent:
        until(lambda: any("forkserver" in words_of(pid) for pid in descendants(agent.pid)))
        family = {agent.pid} | descendants(agent.pid)
        os.killpg(agent.pid, number)
        assert agent.stderr is not None
        said = agent.stderr.read().decode()
    assert agent.returncode == 130, said
    assert "Traceback" not in said
    until(lambda: not any(alive(pid) for pid in family))
    assert json.loads(fersweep("status", "--json").stdout)["state"] in ("running", "finished")


def test_a_reader_that_leaves_does_not_end_the_sweep(tiny_data: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "20"))
    words = [*COMMAND, "run", "sweep.yaml", "--gpus", "none"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        said = run.stderr.read().decode()
    assert run.returncode == 0, said
    assert json.loads(fersweep("status", "--json").stdout)["trials"][0]["state"] == "complete"


def test_ctrl_c_in_training_by_hand_writes_a_checkpoint_to_go_on_from(tiny_data: str, tmp_path: Path) -> None:
    folder = tmp_path / "by-hand"
    words = ["train", "--model=simple_cnn", "--data=tiny", "--epochs=80", "--channels=4", "--hidden=8", "--device=cpu"]
    words += ["--batch-size=16", f"--folder={folder}"]
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True) as training:
        assert training.stderr is not None
        for line in training.stderr:
            if line.startswith("epoch 3/"):
                training.send_signal(signal.SIGINT)
                break
        rest = training.stderr.read()
    assert training.returncode == 130
    assert "next: fersweep train --config" in rest
    assert (folder / "last.ckpt").is_file()
    done = fersweep(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 80
    epochs = [json.loads(line)["epoch"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 81))
