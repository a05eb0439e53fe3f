"""The machine is gone; the next one resumes from the mirror."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from fer_sweep import api
from fer_sweep.errors import InputError, NothingToDo, StorageError
from fer_sweep.files import home
from fer_sweep.mirror.copying import Mirror
from fer_sweep.mirror.restoring import restore
from tests.support.scripted_starter import train_all
from tests.support.searches import find


@pytest.fixture
def move(monkeypatch, tmp_path):
    """Moves to another machine, whose home has this name instead of `.fersweep`."""
    return lambda name="next": monkeypatch.setenv("FERSWEEP_HOME", str(tmp_path / name))


def copy_home(folder):
    Mirror(folder, tell=print).copy()


def test_a_finished_sweep_is_whole_on_the_next_machine(write_sweep, folder, played_trials, move):
    sweep = api.run(write_sweep(), gpus="none", slots=1, mirror=folder)
    before, winner, former = sweep.trials(), sweep.best().overall.winner, Mirror(folder, tell=print)
    move()
    done = restore(folder)
    assert (done.sweeps, done.trials, done.going_on, done.set_aside) == ([sweep.id], 3, 0, None)
    again = api.sweep()
    assert again.trials() == before
    assert again.best().overall.winner == winner
    assert (home() / "sweeps" / sweep.id / "trials" / winner.record.trial_id / "result.json").is_file()
    move(".fersweep")  # the former machine, if it is not gone
    with pytest.raises(StorageError, match="restored to another home"):
        former.copy()
    with pytest.raises(InputError, match="this is the mirror of another home") as refused:
        Mirror(folder, tell=print)
    assert "fersweep restore" in refused.value.hint


def test_a_trial_that_was_running_resumes_from_its_copied_checkpoint(
    write_sweep, folder, played_trials, move, monkeypatch
):
    def copied_in_the_middle(trial):
        trial.begin()
        trial.train(5)
        copy_home(folder)
        played_trials.script = train_all
        return train_all(trial)

    played_trials.script = copied_in_the_middle
    sweep = api.create(write_sweep(trials=2, epochs=8)).id
    api.sweep(sweep).agent(gpus="none", slots=1, count=1)
    shutil.rmtree(home())  # the machine and its disk are gone, and nothing after the copy is known
    move()
    # Its leases are another host's here, of which nothing is known; without restoring they would last a minute.
    monkeypatch.setattr("fer_sweep.owners._host", lambda: "another-host/000000000000")
    done = restore(folder)
    assert (done.trials, done.going_on) == (1, 1)
    (record,) = api.sweep(sweep).trials()
    assert (record.attempt, str(record.state)) == (1, "running")
    trial = home() / "sweeps" / sweep / "trials" / "0"
    assert (trial / "last.ckpt").is_file()
    assert [row["epoch"] for row in find(sweep).reports("0")] == [1, 2, 3, 4, 5]
    with closing(sqlite3.connect(home() / "sweeps.db")) as raw:
        assert raw.execute("SELECT lease_until FROM fersweep_trials").fetchall() == [(0.0,)]

    api.sweep(sweep).agent(gpus="none", slots=1, mirror=folder)
    first, second = api.sweep(sweep).trials()
    assert (first.attempt, second.attempt) == (2, 1)
    assert (str(first.state), str(second.state)) == ("complete", "complete")
    epochs = [json.loads(line)["epoch"] for line in (trial / "history.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 9))
    assert first.result.epochs == 8
    assert (folder / "sweeps" / sweep / "trials" / "1" / "result.json").is_file()


def test_a_trial_begun_after_the_database_was_copied_is_dropped_and_proposed_again(
    write_sweep, folder, played_trials, move, monkeypatch
):
    sweep = api.create(write_sweep())
    sweep.agent(gpus="none", slots=1, count=1)
    copy_home(folder)
    trials = folder / "sweeps" / sweep.id / "trials"
    shutil.copytree(trials / "0", trials / "1")
    (trials / "1" / "marker").touch()  # another configuration's files than trial 1 will have
    (trials / "0" / ".last.ckpt.0123abcd").touch()  # of a copy that was killed
    move()
    with monkeypatch.context() as patch:
        patch.setattr("fer_sweep.mirror.restoring.write_mark", Mock(side_effect=StorageError("read-only")))
        restore(folder)
    with pytest.raises(InputError, match="this is the mirror of another home"):
        Mirror(folder, tell=print)
    restore(folder)  # again, now that it is writable: nothing is lost
    restored = home() / "sweeps" / sweep.id / "trials"
    assert [path.name for path in restored.iterdir()] == ["0"] and not list(restored.rglob(".*"))
    api.sweep().agent(gpus="none", slots=1, mirror=folder)
    assert [str(record.state) for record in api.sweep().trials()] == ["complete"] * 3
    assert not (trials / "1" / "marker").exists() and not list(trials.rglob(".*"))
    assert (trials / "1" / "config.json").read_bytes() != (trials / "0" / "config.json").read_bytes()


def test_a_home_with_other_or_newer_sweeps_is_kept_unless_forced_and_a_busy_one_always(
    shell, write_sweep, folder, played_trials
):
    sweep = api.create(write_sweep())
    sweep.agent(gpus="none", slots=1, count=1)
    copy_home(folder)
    mirrored = sweep.trials()
    restore(folder)  # the same: nothing would be lost
    sweep.agent(gpus="none", slots=1, count=1)
    code, _, err = shell("restore", str(folder))
    assert code == 2 and f": sweep {sweep.id}" in err and "--force" in err
    assert len(sweep.trials()) == 2
    other = api.create(write_sweep())
    with pytest.raises(InputError, match=other.id):
        restore(folder)
    code, out, err = shell("restore", str(folder), "--force", "--json")
    assert code == 0 and f"next: fersweep agent --mirror {folder}" in err
    assert sweep.trials() == mirrored
    assert (Path(json.loads(out)["set_aside"]) / "sweeps" / other.id / "sweep.json").is_file()
    with closing(find(sweep.id).search()) as search:
        search.next_trial("cpu0")
        with pytest.raises(InputError, match=f"an agent is running in .*{sweep.id}/1"):
            restore(folder, force=True)


DAMAGE = {
    "cut database": (lambda folder: os.truncate(folder / "sweeps.db", 10_000), StorageError, "damaged"),
    "other content": (lambda folder: (folder / "sweeps.db").write_bytes(b"none" * 999), StorageError, "damaged"),
    "no sweep": (lambda folder: (folder / "sweeps.db").unlink(), NothingToDo, "contains no sweep"),
    "mark": (lambda folder: (folder / "mirror.json").write_text("[1]"), StorageError, "cannot be read"),
    "other folder": (lambda folder: (folder / "mirror.json").unlink(), NothingToDo, "no mirror"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_mirror_is_refused_and_nothing_is_changed(name, write_sweep, folder, tmp_path, move):
    damage, error, words = DAMAGE[name]
    api.create(write_sweep())
    copy_home(folder)
    damage(folder)
    move()
    with pytest.raises(error, match=words):
        restore(folder)
    assert not home().exists()
    assert not list(tmp_path.glob(".*restoring*"))
