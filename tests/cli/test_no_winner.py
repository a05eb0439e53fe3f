"""What best prints of sweeps whose results are scripted: no winner and why, and what further seeds came to."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fer_sweep.choosing import choose, chosen, winner_of, with_further_seeds

from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.files import trial_folder
from fer_sweep.records import TrialOutcome
from tests.cli.conftest import Shell
from tests.reports.test_sources import finish, made

Complete = Callable[..., TrialOutcome]


def test_best_ranks_collapsed_trials_and_says_that_none_wins(shell: Shell, tmp_path: Path, complete: Complete) -> None:
    entry = made(tmp_path, [complete(verdict="collapsed"), complete(verdict="collapsed")])
    code, out, err = shell("best")
    assert code == 3
    assert out.count("collapsed") == 2 and "winner: trial" not in out
    assert f"error: every trial collapsed: {entry.id}" in err and "with --trial" in err
    assert shell("best", "--json")[:2] == (3, "")


def test_a_collapsed_trial_is_chosen_only_by_name(tmp_path: Path, complete: Complete) -> None:
    entry = made(tmp_path, [complete(verdict="collapsed")])
    with pytest.raises(NothingToDo, match="every trial collapsed"):
        chosen(entry)
    assert chosen(entry, "0").record.trial_id == "0"


def test_sweeps_of_different_data_have_no_winner(tmp_path: Path, whole_data: str, complete: Complete) -> None:
    entries = [made(tmp_path, [complete()], data=data) for data in ("synthetic", whole_data)]
    choice = choose(entries)
    with pytest.raises(InputError, match="different data") as caught:
        winner_of(choice.overall, entries)
    assert caught.value.hint == "name sweeps of one data set"
    assert all(winner_of(choose([entry]).overall, [entry]) for entry in entries)


def test_best_gives_the_mean_over_further_seeds(shell: Shell, tmp_path: Path, complete: Complete) -> None:
    entry = made(tmp_path, [complete(best_val_acc=0.9)])
    trial_folder(entry.id, "0").mkdir(parents=True)
    assert f"next: fersweep confirm {entry.id}" in shell("best")[2]
    finish(with_further_seeds(entry, chosen(entry), 2), [complete(best_val_acc=0.5), complete(best_val_acc=0.6)])
    _, out, err = shell("best")
    assert "confirmed: mean over 2 further seeds 55.00 %" in " ".join(out.split())
    assert f"next: fersweep test {entry.id} --trial 0" in err
    assert shell.json("best")["confirmed"][f"{entry.id}/0"]["count"] == 2
