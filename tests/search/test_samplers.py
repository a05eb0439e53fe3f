"""The samplers that a person may ask for: each searches, repeats no configuration, and depends on its seed alone."""

import math
import statistics

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import InputError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.embedded import create_sweep
from fer_sweep.store.database import default_storage
from tests.search.conftest import refused

LR = {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0}
RANGES = {"lr": LR, "dropout": {"min": 0.0, "max": 0.6}, "hidden": {"values": [32, 64]}}
SPACE = {"model": {"value": "simple_cnn"}, "epochs": {"value": 1}, **RANGES}
PLAIN = {"method": "bayes", "metric": {"name": "val_loss", "goal": "minimize"}, "parameters": SPACE}
TWO = [{"name": "best_val_acc", "goal": "maximize"}, {"name": "train_val_gap", "goal": "minimize"}]
TRIALS = {"freeze_thaw": 24, "tpe": 36, "gp": 15, "cmaes": 36, "random": 12}
"""So many for each, the first ten of TPE's and the Gaussian process's drawn at random."""
COMPLETE, PRUNED = TrialOutcome(TrialState.COMPLETE), TrialOutcome(TrialState.PRUNED)


@pytest.fixture
def new_sweep(own_folders):
    """Creates a sweep of PLAIN, with changes."""

    def make(sweep_id, sampler, *, max_gap=None, seed=0, **changes):
        sweep = parse_sweep({key: value for key, value in {**PLAIN, **changes}.items() if value is not None})
        beginning = {"seed": seed, "sampler": sampler, "max_gap": max_gap}
        return create_sweep(sweep, sweep_id=sweep_id, storage=default_storage(), **beginning)

    return make


def loss(config):
    """Least at lr 1e-2 and dropout 0.3."""
    return (math.log10(config.lr) + 2) ** 2 + 20 * (config.dropout - 0.3) ** 2


def played(search, outcome=COMPLETE):
    """Take a trial, train its one epoch and end it; gives its configuration."""
    request = search.next_trial("cpu/0")
    search.report(request.trial_id, 1, {"val_loss": loss(request.config)})
    search.finish(request.trial_id, outcome)
    return request.config


@pytest.mark.parametrize("sampler", TRIALS)
def test_a_sampler_finds_better_configurations_than_its_first_ones_and_repeats_none(new_sweep, agents, sampler):
    for name in ("a", "b"):
        new_sweep(name, sampler)
    search, trials = agents("a"), range(TRIALS[sampler])
    found = [played(search) for _ in trials]
    assert len({config.model_dump_json() for config in found}) == len(trials)
    if sampler != "random":
        early, late = ([loss(config) for config in some] for some in (found[:10], found[-5:]))
        assert statistics.median(late) < 0.8 * statistics.median(early)
    if sampler != "freeze_thaw":  # an agent keeps what it has fitted, and another one fits anew
        assert [played(agents("b")) for _ in trials] == found


@pytest.mark.parametrize(("sampler", "told"), [("tpe", "PRUNED"), ("gp", "COMPLETE"), ("cmaes", "COMPLETE")])
def test_a_sampler_learns_from_pruned_trials(new_sweep, agents, sampler, told):
    new_sweep("a", sampler)
    search = agents("a")
    value = loss(played(search, PRUNED))
    played(search)
    seen = search._algorithm.proposer._study.get_trials(deepcopy=False)[0]
    assert (seen.state.name, seen.value) == (told, value)


def test_a_random_search_of_method_bayes_draws_what_method_random_does(new_sweep, agents):
    new_sweep("a", "random", seed=3)
    new_sweep("b", None, method="random", seed=3)
    searches = agents("a"), agents("b")
    drawn, expected = ([played(search) for _ in range(4)] for search in searches)
    assert drawn == expected


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_several_objectives_are_searched_by_the_samplers_that_can(new_sweep, agents, sampler):
    new_sweep("a", sampler, method="custom", metric=None, metrics=TWO, scheduler={"engine": "optuna"})
    search = agents("a")
    assert played(search) != played(search)


@pytest.mark.parametrize(
    ("sampler", "changes", "reason"),
    [
        ("tpe", {"method": "grid", "parameters": {"model": {"value": "vit"}}}, "method bayes.*has method grid"),
        ("random", {"method": "random"}, "method bayes.*has method random"),
        ("freeze_thaw", {"run_cap": 301}, "at most 300 trials"),
        ("freeze_thaw", {"metric": {"name": "macro_f1", "goal": "maximize"}}, "macro_f1 is not"),
        ("cmaes", {"method": "custom", "metric": None, "metrics": TWO, "scheduler": {"engine": "optuna"}}, "several"),
        ("cmaes", {"max_gap": 0.1}, "max_gap"),
        ("cmaes", {"parameters": {**SPACE, "lr": {"values": [1, 2]}}}, "two parameters with a range"),
        ("hyperopt", {}, "unknown sampler"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused(new_sweep, sampler, changes, reason):
    with refused(InputError, reason):
        new_sweep("a", sampler, **changes)


def test_a_sampler_beside_a_study_of_the_user_is_refused(new_sweep, tmp_path):
    scheduler = {"engine": "optuna", "source": str(tmp_path / "own.py"), "optimizer": "make"}
    with refused(InputError, "scheduler.source"):
        new_sweep("a", "gp", method="custom", scheduler=scheduler)
