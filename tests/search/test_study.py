"""What Optuna learns from: values, failures, gaps, several objectives, and users' own studies and spaces."""

import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import InputError, StorageError
from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.search.embedded import create_sweep
from fer_sweep.store.database import database_path, default_storage
from fer_sweep.store.trials import Ledger
from tests.support.searches import database_at, state_in, sweep_ids

LR = {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0}
SPACE = {"model": {"value": "simple_cnn"}, "lr": LR, "dropout": {"distribution": "beta", "a": 2, "b": 2}}
LOSS = {"name": "val_loss", "goal": "minimize"}
ACCURACY = {"name": "best_val_acc", "goal": "maximize"}
TWO = [ACCURACY, {"name": "train_val_gap", "goal": "minimize"}]
FAILED = TrialOutcome(TrialState.FAILED, reason="out of memory")
PREEMPTED = TrialOutcome(TrialState.PREEMPTED)
PRUNED = TrialOutcome(TrialState.PRUNED)


@pytest.fixture
def sweep_of(agents):
    """Creates a sweep `s` and opens an agent of it: a TPE search of SPACE for the least loss, with changes."""

    def make(sweep_id="s", *, seed=0, max_gap=None, **changes):
        plain = {"method": "bayes", "metric": LOSS, "parameters": SPACE, **changes}
        sweep = parse_sweep({key: value for key, value in plain.items() if value is not None})
        is_own = sweep.scheduler is not None and sweep.scheduler.source is not None
        sampler = "tpe" if sweep.method in ("bayes", "custom") and not is_own else None
        beginning = {"seed": seed, "max_gap": max_gap, "sampler": sampler}
        create_sweep(sweep, sweep_id=sweep_id, storage=default_storage(), **beginning)
        return agents(sweep_id)

    return make


def loss(config):
    """Least at lr 1e-2 and dropout 0.3."""
    return (math.log10(config.lr) + 2) ** 2 + 20 * (config.dropout - 0.3) ** 2


def in_study(search, number):
    """What Optuna is told of a trial, after the next proposal."""
    proposer = search._algorithm.proposer
    return proposer._study.get_trials(deepcopy=False)[proposer._mirror[number]]


def finish(search, request, value):
    answer = search.report(request.trial_id, 1, {"val_loss": value})
    search.finish(request.trial_id, PRUNED if answer else TrialOutcome(TrialState.COMPLETE))
    return answer


@pytest.mark.parametrize("others", [1000, 10])
def test_tpe_beats_random_search_on_a_quadratic_and_prints_nothing(sweep_of, others, monkeypatch, capfd):
    monkeypatch.setattr("fer_sweep.search.samplers._MOST_OTHERS", others)
    regrets = {"bayes": [], "random": []}
    for method, found in regrets.items():
        for seed in range(2):
            search = sweep_of(f"{method}{seed}", method=method, seed=seed)
            losses = []
            for _ in range(36):
                request = search.next_trial("cpu/0")
                losses.append(loss(request.config))
                finish(search, request, losses[-1])
            found.append(sum(losses[18:]) / 18)
    assert all(bayes < random for bayes, random in zip(regrets["bayes"], regrets["random"], strict=True)), regrets
    assert sum(regrets["bayes"]) < 0.6 * sum(regrets["random"]), regrets
    assert capfd.readouterr() == ("", "")


def test_constants_are_no_parameters_and_other_forms_are_searched_over_the_unit_interval(sweep_of):
    parameters = {
        **SPACE,
        "epochs": {"values": [3]},
        "optimizer": {"values": ["adamw", "sgd"]},
        "batch_size": {"values": [16, 32], "probabilities": [1 - 1e-9, 1e-9]},
        "hidden": {"distribution": "q_uniform", "min": 16, "max": 64, "q": 16},
        "channels": {"min": 4, "max": 8},
    }
    search = sweep_of(parameters=parameters)
    configs = [search.next_trial("cpu/0").config for _ in range(20)]
    params = in_study(search, 0).params
    assert params.keys() == {"lr", "dropout", "optimizer", "batch_size", "hidden", "channels"}
    assert all(params[name] == getattr(configs[0], name) for name in ("lr", "channels", "optimizer"))
    assert 0 <= params["hidden"] <= 1
    assert configs[0].hidden in (16, 32, 48, 64)
    assert {config.batch_size for config in configs} == {16}, "the first draws have the given probabilities"


def test_max_gap_is_a_constraint_that_steers_the_search(sweep_of, result):
    """The gap of these trials is half their accuracy, and both rise with the learning rate."""
    search, gaps = sweep_of(metric=ACCURACY, max_gap=0.15), []
    for _ in range(50):
        request = search.next_trial("cpu/0")
        gaps.append((math.log10(request.config.lr) + 5) / 10)
        outcome = result(best_val_acc=2 * gaps[-1], train_val_gap=gaps[-1])
        search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, outcome))
    feasible = [gap for gap in gaps[25:] if gap <= 0.15]
    assert len(feasible) >= 13, "at least half, where the prior gives three tenths"
    assert max(feasible) > 0.13, "and close to the limit, where accuracy is best"

    failed, pruned = search.next_trial("cpu/0"), search.next_trial("cpu/1")
    search.finish(failed.trial_id, FAILED)
    search.report(pruned.trial_id, 1, {"best_val_acc": 0.3, "train_val_gap": 0.25})
    search.finish(pruned.trial_id, PRUNED)
    search.next_trial("cpu/0")
    told = [in_study(search, number).constraints["train_val_gap"] for number in (0, 50, 51)]
    assert told == pytest.approx([gaps[0] - 0.15, 1.0, 0.1]), "a failed trial counts as far beyond the gap"


def test_failed_trial_counts_as_the_worst_so_far_and_a_pruned_one_with_its_history(sweep_of):
    search = sweep_of()
    first, good, bad, failed, pruned, preempted = [search.next_trial("cpu/0") for _ in range(6)]
    search.finish(first.trial_id, FAILED)
    finish(search, good, 2.0)
    finish(search, bad, 5.0)
    search.report(failed.trial_id, 1, {"val_loss": 0.1})
    search.finish(failed.trial_id, FAILED)
    for epoch, value in enumerate((3.0, 2.0), start=1):
        search.report(pruned.trial_id, epoch, {"val_loss": value})
    search.finish(pruned.trial_id, PRUNED)
    search.finish(preempted.trial_id, PREEMPTED)
    assert search.next_trial("cpu/0").attempt == 2
    search.next_trial("cpu/1")
    told = [in_study(search, number) for number in range(6)]
    assert [trial.state.name for trial in told] == ["FAIL", *["COMPLETE"] * 3, "PRUNED", "RUNNING"]
    assert [trial.value for trial in told[1:4]] == [2.0, 5.0, 5.0]
    assert told[4].intermediate_values == {1: 3.0, 2: 2.0}


@pytest.mark.parametrize(
    "rule",
    [{"scheduler": {"engine": "optuna"}}, {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2}}],
)
def test_several_objectives_are_pruned_by_the_first_and_all_told_through_a_restart(sweep_of, agents, result, rule):
    search = sweep_of(method="custom", metric=None, metrics=TWO, **rule)
    values = [[0.6, 0.3], [0.5, 0.1], [0.4, 0.2], [0.3, 0.1]]
    for accuracy, gap in values:
        request = search.next_trial("cpu/0")
        for epoch in (1, 2, 3):
            answer = search.report(request.trial_id, epoch, {"best_val_acc": accuracy, "train_val_gap": gap})
        outcome = TrialOutcome(TrialState.COMPLETE, result(best_val_acc=accuracy, train_val_gap=gap))
        search.finish(request.trial_id, PRUNED if answer else outcome)
        assert answer is None or accuracy < 0.6
    assert answer is StopReason.PRUNED
    search.close()
    search = agents("s")
    search.finish(search.next_trial("cpu/0").trial_id, FAILED)
    search.next_trial("cpu/0")
    assert [in_study(search, number).values for number in range(5)] == [*values, [0.3, 0.3]], "the worst of each"


def test_proposal_that_could_not_be_stored_is_forgotten(sweep_of, agents):
    search, other = sweep_of(), agents("s", owner="other")
    requests = [search.next_trial("cpu/0") for _ in range(13)]
    for request in requests[:12]:
        finish(search, request, loss(request.config))
    with closing(sqlite3.connect(database_path(default_storage()))) as raw:
        raw.execute("CREATE TRIGGER full BEFORE INSERT ON fersweep_trials BEGIN SELECT RAISE(ABORT, 'no room'); END")
        with pytest.raises(StorageError, match="no room"):
            search.next_trial("cpu/0")
        forgotten = in_study(search, 13).params
        raw.execute("DROP TRIGGER full")
    finish(search, requests[12], 0.0)
    theirs, ours = other.next_trial("cpu/0"), search.next_trial("cpu/0")
    assert (theirs.trial_id, ours.trial_id) == ("13", "14")
    assert theirs.config.lr != forgotten["lr"], "the other agent knew more when it proposed trial 13"
    assert [in_study(search, number).params["lr"] for number in (13, 14)] == [theirs.config.lr, ours.config.lr]


def test_requeued_failure_is_forgotten_by_the_study_of_every_agent(sweep_of, agents):
    one, two = sweep_of(), agents("s", owner="two")
    first, second = one.next_trial("cpu/0"), one.next_trial("cpu/1")
    finish(one, first, 3.0)
    one.finish(second.trial_id, FAILED)
    for search in (one, two):
        search.next_trial("cpu/2")
        assert in_study(search, 1).value == 3.0, "as bad as the worst"
    with database_at().transaction(write=True) as connection:
        Ledger(connection, "s").requeue(1)
    finish(one, one.next_trial("cpu/1"), 1.0)
    for search in (one, two):
        search.next_trial("cpu/2")
        assert in_study(search, 1).value == 1.0


TWO_BY_TWO = {"model": {"value": "simple_cnn"}, "channels": {"values": [8, 16]}, "hidden": {"values": [32, 64]}}


@pytest.fixture
def own(own_folders, sweep_of):
    """Creates a sweep of a function in `own.py`, which is a copy of own_searches.py."""
    shutil.copy(Path(__file__).with_name("own_searches.py"), own_folders / "own.py")

    def make(parameters=None, **scheduler):
        given = {"engine": "optuna", "source": "own.py", **scheduler}
        return sweep_of(method="custom", parameters=parameters, scheduler=given)

    return make


def test_conditional_space_is_searched_to_its_end_and_the_sweep_file_wins(own, agents, own_folders, monkeypatch):
    search = own({"epochs": {"value": 2}, "lr": {"value": 0.5}}, search_space="space")
    monkeypatch.chdir(own_folders.parent)  # an agent may be started elsewhere
    drawn = []
    for number in range(5):
        if number == 3:
            search.close()
            search = agents("s")
        request = search.next_trial("cpu/0")
        drawn.append((request.config.model, request.parameters.get("depth")))
        assert (request.config.epochs, request.config.lr) == (2, 0.5)
        assert request.config.augment.shift == request.parameters["augment.shift"] == 0.25
        finish(search, request, 1.0)
    assert sorted(drawn, key=str) == [("simple_cnn", None), *(("vit", depth) for depth in (1, 2, 3, 4))]
    assert search.records()[0].parameters.keys() >= {"model", "lr", "epochs", "augment.shift"}
    assert search.next_trial("cpu/0") is None
    assert state_in(default_storage(), "s") == "finished"


def test_grid_sampler_is_walked_by_two_agents_and_then_exhausted(own, agents):
    one, two = own(TWO_BY_TWO, optimizer="grid"), agents("s", owner="two")
    seen = []
    for search in (one, two, one, two):
        request = search.next_trial("cpu/0")
        seen.append((request.config.channels, request.config.hidden))
        finish(search, request, 1.0)
    assert sorted(seen) == [(8, 32), (8, 64), (16, 32), (16, 64)]
    assert one.next_trial("cpu/0") is two.next_trial("cpu/0") is None


def test_sampler_that_keeps_its_state_in_trials_continues_after_restarts(own, agents):
    search = own(SPACE, optimizer="genetic")
    for number in range(12):
        if number % 3 == 2:
            search.close()
            search = agents("s")
        request = search.next_trial("cpu/0")
        finish(search, request, loss(request.config))
    generations = {in_study(search, number).system_attrs.get("NSGAIISampler:generation") for number in range(12)}
    assert generations == {0, 1, 2}


def test_enqueued_trials_pruner_and_terminator_of_a_study_are_used(own):
    search = own(TWO_BY_TWO, optimizer="queued")
    first, second = search.next_trial("cpu/0"), search.next_trial("cpu/1")
    assert (first.config.channels, first.config.hidden) == (16, 64)
    assert (second.config.channels, second.config.hidden) == (8, 32)
    assert finish(search, first, 99.0) is StopReason.PRUNED
    assert finish(search, second, 1.0) is None
    for _ in range(2):
        finish(search, search.next_trial("cpu/0"), 2.0)
    assert search.next_trial("cpu/0") is None, "the terminator has had its three trials"


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"source": "nowhere.py", "search_space": "space"}, "there is no file"),
        ({"search_space": "spcae"}, "no function spcae"),
        ({"optimizer": "optuna"}, "no function optuna"),
        ({"search_space": "nothing"}, "gave NoneType, not a dictionary"),
        ({"optimizer": "nothing"}, "gave NoneType, not an optuna.Study"),
        ({"search_space": "failing"}, r"own\.py, line \d+: failing\(\) failed: KeyError: 'what'"),
        ({"optimizer": "wrong_grid"}, r"the sampler of wrong_grid\(\) failed: ValueError"),
        ({"optimizer": "upward"}, "has the directions"),
        ({"source": "broken.py", "search_space": "space"}, r"broken\.py, line 2: cannot be run: SyntaxError"),
        ({"search_space": "untrainable"}, "did you mean channels"),
    ],
)
def test_error_in_the_file_of_a_user_is_reported_when_the_sweep_is_created(own, own_folders, scheduler, message):
    (own_folders / "broken.py").write_text("x = 1\ndef (:\n")
    with pytest.raises(InputError, match=message) as caught:
        own(TWO_BY_TWO, **scheduler)
    assert caught.value.hint
    assert sweep_ids(default_storage()) == []
