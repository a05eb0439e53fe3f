"""Commands on a sweep with paused trials, which no agent trains at the moment."""

import json
from pathlib import Path

import pytest

from fer_sweep.errors import InputError
from fer_sweep.records import TrialState
from fer_sweep.sweeps import steering
from fer_sweep.sweeps.choosing import choose
from fer_sweep.sweeps.steering import Limit
from tests.support.searches import create, find, pause_trials

LR = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}
FIXED = {"model": {"value": "simple_cnn"}, "data": {"value": "synthetic"}, "epochs": {"value": 6}}
RULE = {"type": "hyperband", "min_iter": 1}


def write(**changes):
    plain = {"method": "bayes", "metric": {"name": "best_val_acc", "goal": "maximize"}, "run_cap": 5}
    Path("sweep.yaml").write_text(json.dumps({**plain, "parameters": {**FIXED, "lr": LR}, **changes}, indent=1))
    return Path("sweep.yaml")


@pytest.fixture
def paused(own_folders, monkeypatch):
    """A sweep of at most five trials, of which two have had one turn of two epochs."""
    monkeypatch.chdir(own_folders)
    sweep = create(write(), sampler=None)
    pause_trials(sweep)
    assert states(sweep) == ["paused", "paused"]
    return sweep


def states(sweep):
    return [record.state for record in sweep.trials()]


def test_status_says_what_searches_and_how_many_trials_are_paused(paused, shell):
    _, out, _ = shell("status", paused.id)
    assert "3 trials left, 2 paused: at most" in out
    assert "search: freeze-thaw; 2 paused" in out
    assert shell.json("status", paused.id)["sampler"] == "freeze_thaw"
    assert shell.json("list")[0]["sampler"] == "freeze_thaw"


def test_a_paused_trial_can_win_provisionally_and_the_choice_says_so(paused):
    (caveat,) = (caveat.message for caveat in choose([paused]).caveats if caveat.kind == "pruned")
    assert "is paused after epoch 2, and no complete trial can win: the winner is provisional" in caveat


@pytest.mark.parametrize(("state", "leads_on"), [("running", "fersweep agent"), ("stopped", "fersweep resume")])
def test_a_paused_trial_is_not_extended_and_the_hint_leads_on(paused, state, leads_on):
    paused.set_state(state)
    with pytest.raises(InputError, match=r"trial 0 .* is paused") as caught:
        steering.extend(paused, "0", Limit(9))
    assert f"{leads_on} {paused.id}" in caught.value.hint


def test_a_higher_cap_and_another_space_leave_trials_paused(paused):
    assert steering.resume(paused, count=Limit(2, is_more=True)) == ["run_cap: 5 -> 7"]
    steering.edit(paused, write(parameters={**FIXED, "lr": LR, "channels": {"values": [8, 16]}}), constants={})
    assert states(paused) == ["paused", "paused"]
    pause_trials(paused, 1)
    assert set(paused.trials()[-1].parameters) == {"model", "data", "epochs", "lr", "channels"}


@pytest.mark.parametrize("by", ["edit", "resume"])
def test_paused_trials_end_with_their_results_where_another_search_follows(paused, by):
    if by == "edit":
        lines = steering.edit(paused, write(early_terminate=RULE), constants={})
        after = "TPE with hyperband"
    else:
        lines, after = steering.resume(paused, count=Limit(400)), "TPE"
    assert list(lines[-2:]) == [
        f"search: freeze-thaw -> {after}",
        "2 paused trials pruned: only freeze-thaw resumes them",
    ]
    assert paused.searched_by == after
    assert [(record.state, record.result.epochs) for record in paused.trials()] == [(TrialState.PRUNED, 2)] * 2


def test_a_cancelled_sweep_has_no_paused_trials(paused):
    paused.set_state("cancelled")
    trial = paused.trials()[0]
    assert (trial.state, trial.reason) == ("pruned", "paused, and the sweep was cancelled")
    assert trial.result is not None and trial.ended_at is not None


def test_a_sampler_that_was_asked_for_is_kept_and_limits_what_the_sweep_may_become(own_folders, monkeypatch, shell):
    monkeypatch.chdir(own_folders)
    notes = []
    sweep = create(write(early_terminate=RULE), sampler="freeze_thaw", note=notes.append)
    assert notes == ["early_terminate of the file is not used: freeze-thaw pauses trials, and stops none"]
    with pytest.raises(InputError, match="at most 300 trials"):
        steering.resume(sweep, count=Limit(400))
    assert find(sweep.id).searched_by == "freeze-thaw"
    _, out, _ = shell("create", "sweep.yaml", "--sampler", "gp", "--max-gap", "0.2")
    assert find(out.strip()).searched_by == "Gaussian process with hyperband"
