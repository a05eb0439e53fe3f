"""The machine is gone; the next one resumes from the mirror."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep import api
from fer_sweep.errors import InputError, NothingToDo, StorageError
from fer_sweep.files import home
from fer_sweep.mirror.copying import Mirror
from fer_sweep.mirror.mark import check_mirror, read_mark
from fer_sweep.mirror.restoring import restore
from fer_sweep.records import TrialOutcome
from fer_sweep.search import registry
from tests.support.processes import SWEEP, descendants, until
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter, train_all
from tests.support.shell import Shell


def move(monkeypatch: pytest.MonkeyPatch, to: Path) -> None:
    """A fresh machine: another home, with nothing in it."""
    monkeypatch.setenv("FERSWEEP_HOME", str(to))


def copy_home(folder: Path) -> None:
    Mirror(folder, tell=print).copy()


def epochs_of(trial: Path) -> Sequence[int]:
    return [json.loads(line)["epoch"] for line in (trial / "history.jsonl").read_text().splitlines()]


def test_a_finished_sweep_is_whole_on_the_next_machine(
    sweep_file: Path, drive: Path, tmp_path: Path, played_trials: ScriptedStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = api.run(sweep_file, gpus="none", slots=1, mirror=drive / "m")
    before, winner = sweep.trials(), sweep.best().overall.winner
    move(monkeypatch, tmp_path / "next")
    done = restore(drive / "m")
    assert (done.sweeps, done.trials, done.going_on, done.set_aside) == ([sweep.id], 3, 0, None)
    again = api.sweep()
    assert again.trials() == before
    assert again.best().overall.winner == winner
    assert winner is not None
    assert (home() / "sweeps" / sweep.id / "trials" / winner.record.trial_id / "result.json").is_file()
    move(monkeypatch, tmp_path / ".fersweep")  # the former machine, if it is not gone
    with pytest.raises(InputError, match="is the mirror of another home"):
        check_mirror(drive / "m")


def test_a_trial_that_was_running_resumes_from_its_copied_checkpoint(
    tiny_data: str, drive: Path, tmp_path: Path, played_trials: ScriptedStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied_in_the_middle(trial: PlayedTrial) -> TrialOutcome:
        trial.begin()
        trial.train(5)
        copy_home(drive / "m")
        played_trials.script = train_all
        return train_all(trial)

    played_trials.script = copied_in_the_middle
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "8").replace("run_cap: 1", "run_cap: 2"))
    sweep = api.create(tmp_path / "sweep.yaml")
    sweep.agent(gpus="none", slots=1, count=1)
    shutil.rmtree(home())  # the machine and its disk are gone, and nothing after the copy is known
    resumes_after_restoring(sweep.id, drive, tmp_path, monkeypatch, epochs=8)


@pytest.mark.process
@pytest.mark.usefixtures("one_core")
def test_kill_9_while_the_mirror_is_copied_leaves_one_to_resume_from(
    tiny_data: str, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "80").replace("run_cap: 1", "run_cap: 2"))
    sweep = api.create(tmp_path / "sweep.yaml").id
    words = [sys.executable, "-m", "tests.support.eager_mirror", "agent", "--gpus=none", "--slots=1"]
    history = drive / "m" / "sweeps" / sweep / "trials" / "0" / "history.jsonl"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    with subprocess.Popen([*words, f"--mirror={drive / 'm'}"], stdout=subprocess.DEVNULL, process_group=0) as agent:
        until(lambda: (history.is_file() and history.read_text().count("\n") >= 5) or agent.poll() is not None)
        assert agent.poll() is None
        assert descendants(agent.pid)
        os.killpg(agent.pid, signal.SIGKILL)
    shutil.rmtree(home())
    resumes_after_restoring(sweep, drive, tmp_path, monkeypatch, epochs=80)


def resumes_after_restoring(
    sweep: str, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, epochs: int
) -> None:
    # Its leases are another host's here, of which nothing is known; without restoring they would last a minute.
    monkeypatch.setattr("fer_sweep.owners._host", lambda: "another-host/000000000000")
    move(monkeypatch, tmp_path / "next")
    done = restore(drive / "m")
    assert (done.trials, done.going_on) == (1, 1)
    (record,) = api.sweep(sweep).trials()
    assert (record.attempt, str(record.state)) == (1, "running")
    folder = home() / "sweeps" / sweep / "trials" / "0"
    assert [row["epoch"] for row in registry.reports_of(registry.find(sweep), "0")] == epochs_of(folder)
    assert 0 < len(epochs_of(folder)) < epochs
    assert (folder / "last.ckpt").is_file()
    with closing(sqlite3.connect(home() / "sweeps.db")) as raw:
        assert raw.execute("SELECT lease_until FROM fersweep_trials").fetchall() == [(0.0,)]

    api.sweep(sweep).agent(gpus="none", slots=1, mirror=drive / "m")
    first, second = api.sweep(sweep).trials()
    assert (first.attempt, second.attempt) == (2, 1)
    assert (str(first.state), str(second.state)) == ("complete", "complete")
    assert epochs_of(folder) == list(range(1, epochs + 1))
    assert first.result is not None and first.result.epochs == epochs
    assert (drive / "m" / "sweeps" / sweep / "trials" / "1" / "result.json").is_file()


def test_a_trial_begun_after_the_database_was_copied_is_dropped_and_proposed_again(
    sweep_file: Path, drive: Path, tmp_path: Path, played_trials: ScriptedStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = api.create(sweep_file)
    sweep.agent(gpus="none", slots=1, count=1)
    copy_home(drive / "m")
    trials = drive / "m" / "sweeps" / sweep.id / "trials"
    shutil.copytree(trials / "0", trials / "1")
    (trials / "1" / "marker").touch()  # another configuration's files than trial 1 will have
    move(monkeypatch, tmp_path / "next")
    restore(drive / "m")
    assert [path.name for path in (home() / "sweeps" / sweep.id / "trials").iterdir()] == ["0"]
    api.sweep().agent(gpus="none", slots=1, mirror=drive / "m")
    assert [str(record.state) for record in api.sweep().trials()] == ["complete"] * 3
    assert not (trials / "1" / "marker").exists()
    assert (trials / "1" / "config.json").read_bytes() != (trials / "0" / "config.json").read_bytes()


def test_a_home_with_other_or_newer_sweeps_is_kept_unless_forced(
    sweep_file: Path, drive: Path, tmp_path: Path, played_trials: ScriptedStarter
) -> None:
    sweep = api.create(sweep_file)
    sweep.agent(gpus="none", slots=1, count=1)
    copy_home(drive / "m")
    mirrored = sweep.trials()
    restore(drive / "m")  # the same: nothing would be lost
    sweep.agent(gpus="none", slots=1, count=1)
    with pytest.raises(InputError, match=f"lacks: sweep {sweep.id}") as refused:
        restore(drive / "m")
    assert "--force" in str(refused.value.hint)
    assert len(sweep.trials()) == 2
    other = api.create(sweep_file)
    with pytest.raises(InputError, match=other.id):
        restore(drive / "m")
    done = restore(drive / "m", force=True)
    assert sweep.trials() == mirrored
    assert done.set_aside is not None
    assert (done.set_aside / "sweeps" / other.id / "sweep.json").is_file()
    assert not list(tmp_path.glob(".*restoring*"))


def test_a_home_that_an_agent_works_in_is_never_replaced(sweep_file: Path, drive: Path) -> None:
    sweep = api.create(sweep_file)
    copy_home(drive / "m")
    with closing(registry.open_search(sweep.entry)) as search:
        search.next_trial("cpu0")
        with pytest.raises(InputError, match=f"an agent works in .*{sweep.id}/0"):
            restore(drive / "m", force=True)


def test_a_folder_that_is_no_mirror_is_refused(drive: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="no mirror"):
        restore(tmp_path / "nowhere")
    copy_home(drive / "m")
    with pytest.raises(NothingToDo, match="holds no sweep"):
        restore(drive / "m")
    (drive / "m" / "mirror.json").write_text("[1]")
    with pytest.raises(StorageError, match="cannot be read"):
        restore(drive / "m")


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_database_is_refused_and_nothing_is_changed(
    damage: str, sweep_file: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create(sweep_file)
    copy_home(drive / "m")
    database = drive / "m" / "sweeps.db"
    database.write_bytes(database.read_bytes()[:10_000] if damage == "cut" else b"no database at all " * 100)
    move(monkeypatch, tmp_path / "next")
    with pytest.raises(StorageError, match="damaged"):
        restore(drive / "m")
    assert not home().exists()
    assert not list(tmp_path.glob(".*restoring*"))


def test_a_read_only_mirror_can_be_restored(
    sweep_file: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = api.create(sweep_file)
    copy_home(drive / "m")
    name = read_mark(drive / "m").home

    def refuse(*_: object, **__: object) -> None:
        raise StorageError("read-only file system")

    monkeypatch.setattr("fer_sweep.mirror.restoring.write_mark", refuse)
    move(monkeypatch, tmp_path / "next")
    assert restore(drive / "m").sweeps == [sweep.id]
    assert read_mark(drive / "m").home == name
    check_mirror(drive / "m")  # should it be writable after all, this home may continue it


def test_the_command_prints_what_it_restored_and_what_is_next(
    shell: Shell, sweep_file: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = api.create(sweep_file)
    copy_home(drive / "m")
    move(monkeypatch, tmp_path / "next")
    code, out, err = shell("restore", str(drive / "m"))
    assert code == 0, err
    assert sweep.id in out
    assert f"next: fersweep agent --mirror {drive / 'm'}" in err
    assert shell.json("status")["sweep"] == sweep.id
    assert shell("restore", str(drive))[0] == 3
    move(monkeypatch, tmp_path / "third")
    shell("create", str(sweep_file))
    code, _, err = shell("restore", str(drive / "m"))
    assert code == 2
    assert "hint:" in err
    assert shell.json("restore", str(drive / "m"), "--force")["sweeps"] == [sweep.id]
