"""The machine is gone; the next one goes on from the mirror."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep import api
from fer_sweep.errors import InputError, NothingToDo, StorageError
from fer_sweep.files import home
from fer_sweep.mirror.copying import Mirror
from fer_sweep.mirror.mark import check_mirror, read_mark
from fer_sweep.mirror.restoring import restore
from fer_sweep.search import registry
from tests.support.processes import COMMAND, SWEEP, descendants, fersweep, until

pytestmark = pytest.mark.usefixtures("one_core")


def move(monkeypatch: pytest.MonkeyPatch, to: Path) -> None:
    """A fresh machine: another home, with nothing in it."""
    monkeypatch.setenv("FERSWEEP_HOME", str(to))


def copy_home(folder: Path) -> None:
    with Mirror(folder, tell=print):
        pass


@pytest.fixture
def long_sweep(tiny_data: str, tmp_path: Path) -> str:
    """A trial of many epochs, then another."""
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "80").replace("run_cap: 1", "run_cap: 2"))
    return fersweep("create", "sweep.yaml").stdout.strip()


def test_a_finished_sweep_is_whole_on_the_next_machine(
    sweep_file: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert (home() / "sweeps" / sweep.id / "trials" / winner.record.trial_id / "best.safetensors").is_file()
    with pytest.raises(InputError, match="is the mirror of another home"):  # the former machine, if it is not gone
        move(monkeypatch, tmp_path / ".fersweep")
        check_mirror(drive / "m")


@pytest.fixture
def killed(long_sweep: str, drive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The sweep after its agent, with all it had started, was killed in the middle of its first trial."""
    # The mirror is copied without a rest, so that the kill finds it copying.
    code = (
        "import fer_sweep.mirror.copying as copying, sys\n"
        "from pathlib import Path\n"
        "init = copying.Mirror.__init__\n"
        "def eager(self, folder, *, tell):\n"
        "    init(self, folder, tell=tell, every_s=0.001, rest_s=0.0)\n"
        "copying.Mirror.__init__ = eager\n"
        "from fer_sweep.cli import main\n"
        "main()\n"
    )
    words = [COMMAND[0], "-c", code, "agent", "--gpus", "none", "--slots", "1", "--mirror", str(drive / "m")]
    history = drive / "m" / "sweeps" / long_sweep / "trials" / "0" / "history.jsonl"
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, process_group=0) as agent:
        until(lambda: (history.is_file() and history.read_text().count("\n") >= 5) or agent.poll() is not None)
        assert agent.poll() is None
        family = descendants(agent.pid)
        assert family
        os.killpg(agent.pid, signal.SIGKILL)
    yield long_sweep


def test_kill_9_while_it_copies_leaves_a_mirror_to_go_on_from_at_once(
    killed: str, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(home())  # the machine and its disk are gone
    # Its leases are another host's here, which nothing can be said of; without restoring they would last a minute.
    monkeypatch.setattr("fer_sweep.search.owners._host", lambda: "another-host/000000000000")
    move(monkeypatch, tmp_path / "next")
    done = restore(drive / "m")
    assert (done.trials, done.going_on) == (1, 1)
    with closing(registry.open_search(registry.find(killed))) as search:
        (record,) = search.records()
    assert (record.attempt, str(record.state)) == (1, "running")
    folder = home() / "sweeps" / killed / "trials" / "0"
    epochs = [json.loads(line)["epoch"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in registry.reports_of(registry.find(killed), "0")] == epochs
    assert (folder / "last.ckpt").is_file()

    with closing(sqlite3.connect(home() / "sweeps.db")) as raw:
        assert raw.execute("SELECT lease_until FROM fersweep_trials").fetchall() == [(0.0,)]
    api.sweep(killed).agent(gpus="none", slots=1, mirror=drive / "m")
    first, second = api.sweep(killed).trials()
    assert (first.attempt, second.attempt) == (2, 1)
    assert (str(first.state), str(second.state)) == ("complete", "complete")
    epochs = [json.loads(line)["epoch"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 81))
    assert first.result is not None and first.result.epochs == 80
    assert (drive / "m" / "sweeps" / killed / "trials" / "1" / "result.json").is_file()


def test_a_trial_begun_after_the_database_was_copied_is_left_out_and_proposed_anew(
    sweep_file: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = api.create(sweep_file)
    sweep.agent(gpus="none", slots=1, count=1)
    copy_home(drive / "m")
    trials = drive / "m" / "sweeps" / sweep.id / "trials"
    shutil.copytree(trials / "0", trials / "1")  # another configuration's files than trial 1 will have
    move(monkeypatch, tmp_path / "next")
    restore(drive / "m")
    assert [path.name for path in (home() / "sweeps" / sweep.id / "trials").iterdir()] == ["0"]
    api.sweep().agent(gpus="none", slots=1, mirror=drive / "m")
    assert [str(record.state) for record in api.sweep().trials()] == ["complete"] * 3
    assert (trials / "1" / "config.json").read_bytes() != (trials / "0" / "config.json").read_bytes()


def test_a_home_with_other_or_newer_sweeps_is_kept_unless_forced(sweep_file: Path, drive: Path, tmp_path: Path) -> None:
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


def test_a_home_an_agent_works_in_is_never_replaced(sweep_file: Path, drive: Path) -> None:
    sweep = api.create(sweep_file)
    copy_home(drive / "m")
    with closing(registry.open_search(sweep.entry)) as search:
        search.next_trial("cpu0")
        with pytest.raises(InputError, match=f"an agent works in .*{sweep.id}/0"):
            restore(drive / "m", force=True)


def test_what_is_no_mirror_is_said_to_be_none(drive: Path, tmp_path: Path) -> None:
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


def test_a_mirror_that_may_only_be_read_can_be_restored(
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
    check_mirror(drive / "m")  # where it may be written after all, it is this home's to go on with


def test_the_command_says_what_it_took_up_and_what_is_next(
    sweep_file: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = api.create(sweep_file)
    copy_home(drive / "m")
    move(monkeypatch, tmp_path / "next")
    done = fersweep("restore", str(drive / "m"))
    assert done.returncode == 0, done.stderr
    assert sweep.id in done.stdout
    assert f"next: fersweep agent --mirror {drive / 'm'}" in done.stderr
    assert json.loads(fersweep("status", "--json").stdout)["sweep"] == sweep.id
    assert fersweep("restore", str(drive)).returncode == 3
    move(monkeypatch, tmp_path / "third")
    fersweep("create", str(sweep_file))
    refused = fersweep("restore", str(drive / "m"))
    assert refused.returncode == 2
    assert "hint:" in refused.stderr
    assert json.loads(fersweep("restore", str(drive / "m"), "--force", "--json").stdout)["sweeps"] == [sweep.id]
