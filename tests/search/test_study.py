"""What Optuna learns from: values, failures, gaps, several objectives, and users' own studies and spaces."""

import math
import sqlite3
import textwrap

import optuna
import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import ConfigError, InputError, StorageError
from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.search.database import database_path, default_storage
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep, list_sweeps, load_sweep, sweep_state

LR = {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0}
SPACE = {"model": {"value": "simple_cnn"}, "lr": LR, "dropout": {"distribution": "beta", "a": 2, "b": 2}}
LOSS = {"name": "val_loss", "goal": "minimize"}
TWO = [{"name": "best_val_acc", "goal": "maximize"}, {"name": "train_val_gap", "goal": "minimize"}]


def open_sweep(sweep_id: str, *, seed: int = 0, max_gap: float | None = None, **settings) -> OptunaSearch:
    create_sweep(parse_sweep(settings), sweep_id=sweep_id, storage=default_storage(), seed=seed, max_gap=max_gap)
    return OptunaSearch(sweep_id, storage=default_storage())


def loss(config) -> float:
    """Least at lr 1e-2 and dropout 0.3."""
    return (math.log10(config.lr) + 2) ** 2 + 20 * (config.dropout - 0.3) ** 2


def in_study(search: OptunaSearch, number: int) -> optuna.trial.FrozenTrial:
    """What Optuna is told of a trial, after the next proposal."""
    return search._study._frozen(search._study._mirror[number])


def finish(search: OptunaSearch, request, value: float) -> StopReason | None:
    said = search.report(request.trial_id, 1, {"val_loss": value})
    search.finish(request.trial_id, TrialOutcome(TrialState.PRUNED if said else TrialState.COMPLETE))
    return said


@pytest.mark.parametrize("others", [1000, 10])
def test_tpe_beats_random_search_on_a_quadratic(others: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fer_sweep.search.axes._MOST_OTHERS", others)
    regrets: dict[str, list[float]] = {"bayes": [], "random": []}
    for method, found in regrets.items():
        for seed in range(4):
            search = open_sweep(f"{method}{seed}", method=method, metric=LOSS, parameters=SPACE, seed=seed)
            losses = []
            for _ in range(40):
                request = search.next_trial("cpu/0")
                losses.append(loss(request.config))
                search.report(request.trial_id, 1, {"val_loss": losses[-1]})
                search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
            found.append(sum(losses[20:]) / 20)
            search.close()
    assert all(bayes < random for bayes, random in zip(regrets["bayes"], regrets["random"], strict=True)), regrets
    assert sum(regrets["bayes"]) < 0.6 * sum(regrets["random"]), regrets


def test_agents_learn_from_each_others_trials():
    one = open_sweep("shared", method="bayes", metric=LOSS, parameters=SPACE)
    other = OptunaSearch("shared", storage=default_storage(), owner="other")
    late = []
    for number in range(40):
        search = (one, other)[number % 2]
        request = search.next_trial("cpu/0")
        search.report(request.trial_id, 1, {"val_loss": loss(request.config)})
        search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
        late.append(loss(request.config))
    one.next_trial("cpu/0")
    values = [in_study(one, number).value for number in range(40)]
    assert values == late
    one.close()
    other.close()


def test_constants_are_no_parameters_and_other_forms_are_searched_over_the_unit_interval():
    parameters = {
        **SPACE,
        "epochs": {"values": [3]},
        "optimizer": {"values": ["adamw", "sgd"]},
        "hidden": {"distribution": "q_uniform", "min": 16, "max": 64, "q": 16},
        "channels": {"min": 4, "max": 8},
    }
    search = open_sweep("forms", method="bayes", metric=LOSS, parameters=parameters)
    request = search.next_trial("cpu/0")
    frozen = in_study(search, 0)
    assert frozen.params.keys() == {"lr", "dropout", "optimizer", "hidden", "channels"}
    assert frozen.params["lr"] == request.config.lr
    assert frozen.params["channels"] == request.config.channels
    assert frozen.params["optimizer"] == request.config.optimizer
    assert 0 <= frozen.params["hidden"] <= 1
    assert request.config.hidden in (16, 32, 48, 64)
    search.close()


def test_the_first_draws_of_bayes_follow_the_given_probabilities():
    parameters = {**SPACE, "optimizer": {"values": ["adamw", "sgd"], "probabilities": [1.0, 0.0]}}
    search = open_sweep("weighted", method="bayes", metric=LOSS, parameters=parameters)
    assert {search.next_trial("cpu/0").config.optimizer for _ in range(30)} == {"adamw"}
    search.close()


def test_a_failed_trial_counts_as_the_worst_so_far_and_none_as_nothing():
    search = open_sweep("failing", method="bayes", metric=LOSS, parameters=SPACE)
    requests = [search.next_trial("cpu/0") for _ in range(4)]
    failed = TrialOutcome(TrialState.FAILED, reason="out of memory")
    search.finish(requests[0].trial_id, failed)
    for request, value in zip(requests[1:3], (2.0, 5.0), strict=True):
        search.report(request.trial_id, 1, {"val_loss": value})
        search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
    search.report(requests[3].trial_id, 1, {"val_loss": 0.1})
    search.finish(requests[3].trial_id, failed)
    search.next_trial("cpu/0")
    assert in_study(search, 0).state is optuna.trial.TrialState.FAIL
    assert [in_study(search, n).value for n in (1, 2, 3)] == [2.0, 5.0, 5.0]
    search.close()


def test_a_pruned_trial_is_told_with_its_history():
    search = open_sweep("pruned", method="bayes", metric=LOSS, parameters=SPACE)
    request = search.next_trial("cpu/0")
    for epoch, value in enumerate((3.0, 2.0), start=1):
        search.report(request.trial_id, epoch, {"val_loss": value})
    search.finish(request.trial_id, TrialOutcome(TrialState.PRUNED))
    search.next_trial("cpu/0")
    told = in_study(search, 0)
    assert (told.state, told.intermediate_values) == (optuna.trial.TrialState.PRUNED, {1: 3.0, 2: 2.0})
    search.close()


def test_a_running_and_a_preempted_trial_stay_running_for_the_sampler():
    search = open_sweep("open", method="bayes", metric=LOSS, parameters=SPACE)
    first = search.next_trial("cpu/0")
    search.finish(first.trial_id, TrialOutcome(TrialState.PREEMPTED))
    assert search.next_trial("cpu/0").attempt == 2
    search.next_trial("cpu/1")
    assert in_study(search, 0).state is optuna.trial.TrialState.RUNNING
    search.close()


def gaps_of(search: OptunaSearch, result) -> list[float]:
    """Fifty trials whose gap is half their accuracy, both rising with the learning rate."""
    gaps = []
    for _ in range(50):
        request = search.next_trial("cpu/0")
        accuracy = (math.log10(request.config.lr) + 5) / 5
        gaps.append(accuracy / 2)
        outcome = result(best_val_acc=accuracy, train_val_gap=gaps[-1])
        search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, outcome))
    search.next_trial("cpu/0")
    return gaps


def test_max_gap_is_a_constraint_that_steers_the_search(result):
    settings = {"method": "bayes", "metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": SPACE}
    limited, free = open_sweep("limited", **settings, max_gap=0.15), open_sweep("free", **settings)
    gaps = gaps_of(limited, result)
    assert in_study(limited, 0).constraints == {"train_val_gap": pytest.approx(gaps[0] - 0.15)}
    feasible = [gap for gap in gaps[25:] if gap <= 0.15]
    assert len(feasible) >= 13, "at least half, where the prior gives three tenths"
    assert max(feasible) > 0.13, "and close to the limit, where accuracy is best"
    assert sum(gap <= 0.15 for gap in gaps_of(free, result)[25:]) <= 5
    assert in_study(free, 0).constraints == {}
    limited.close()
    free.close()


def test_a_trial_that_failed_counts_as_far_beyond_the_gap():
    metric = {"name": "best_val_acc", "goal": "maximize"}
    search = open_sweep("gapless", method="bayes", metric=metric, parameters=SPACE, max_gap=0.15)
    failed, pruned = search.next_trial("cpu/0"), search.next_trial("cpu/1")
    search.finish(failed.trial_id, TrialOutcome(TrialState.FAILED, reason="diverged"))
    search.report(pruned.trial_id, 1, {"best_val_acc": 0.3, "train_val_gap": 0.25})
    search.finish(pruned.trial_id, TrialOutcome(TrialState.PRUNED))
    search.next_trial("cpu/0")
    assert in_study(search, 0).constraints == {"train_val_gap": 1.0}
    assert in_study(search, 1).constraints == {"train_val_gap": pytest.approx(0.1)}
    search.close()


def test_several_objectives_are_all_told_and_the_search_goes_on_after_a_restart(result):
    settings = {"method": "custom", "scheduler": {"engine": "optuna"}, "metrics": TWO, "parameters": SPACE}
    search = open_sweep("two", **settings)
    fronts = []
    for number in range(30):
        if number == 15:
            search.close()
            search = OptunaSearch("two", storage=default_storage())
        request = search.next_trial("cpu/0")
        accuracy, gap = 1 - abs(request.config.dropout - 0.2), abs(request.config.dropout - 0.5)
        fronts.append([accuracy, gap])
        if number == 3:
            search.report(request.trial_id, 1, {"best_val_acc": accuracy, "train_val_gap": gap})
            search.finish(request.trial_id, TrialOutcome(TrialState.PRUNED))
        elif number == 4:
            search.finish(request.trial_id, TrialOutcome(TrialState.FAILED, reason="diverged"))
        else:
            outcome = result(best_val_acc=accuracy, train_val_gap=gap)
            search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, outcome))
    search.next_trial("cpu/0")
    told = [in_study(search, number).values for number in range(30)]
    worst = [min(a for a, _ in fronts[:4]), max(g for _, g in fronts[:4])]
    assert told == [*fronts[:4], worst, *fronts[5:]]
    search.close()


def test_several_objectives_beside_a_scheduler_are_pruned_by_the_first_too():
    search = open_sweep("engine", method="custom", metrics=TWO, scheduler={"engine": "optuna"}, parameters=SPACE)
    said = []
    for accuracy in (0.6, 0.5, 0.4, 0.3):
        request = search.next_trial("cpu/0")
        for epoch in (1, 2, 3):
            answer = search.report(request.trial_id, epoch, {"best_val_acc": accuracy, "train_val_gap": 0.1})
        said.append(answer)
        search.finish(request.trial_id, TrialOutcome(TrialState.PRUNED if answer else TrialState.COMPLETE))
    assert said[0] is None
    assert said[-1] is StopReason.PRUNED


def test_several_objectives_are_pruned_by_the_first():
    rule = {"type": "hyperband", "min_iter": 1, "eta": 2}
    search = open_sweep("both", method="custom", metrics=TWO, early_terminate=rule, parameters=SPACE)
    said = []
    for accuracy, gap in ((0.5, 0.1), (0.6, 0.1), (0.4, 0.0)):
        request = search.next_trial("cpu/0")
        said.append(search.report(request.trial_id, 1, {"best_val_acc": accuracy, "train_val_gap": gap}))
        search.finish(request.trial_id, TrialOutcome(TrialState.PRUNED if said[-1] else TrialState.COMPLETE))
    assert said == [None, None, StopReason.PRUNED]
    search.next_trial("cpu/0")
    assert in_study(search, 2).values == [0.4, 0.0]
    search.close()


def test_a_proposal_that_could_not_be_stored_is_forgotten():
    search = open_sweep("undone", method="bayes", metric=LOSS, parameters=SPACE)
    other = OptunaSearch("undone", storage=default_storage(), owner="other")
    requests = [search.next_trial("cpu/0") for _ in range(13)]
    for request in requests[:12]:
        finish(search, request, loss(request.config))
    raw = sqlite3.connect(database_path(default_storage()))
    raw.execute("CREATE TRIGGER full BEFORE INSERT ON fersweep_trials BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(StorageError, match="no room"):
        search.next_trial("cpu/0")
    undone = in_study(search, 13).params
    raw.execute("DROP TRIGGER full")
    raw.close()
    finish(search, requests[12], 0.0)
    theirs, ours = other.next_trial("cpu/0"), search.next_trial("cpu/0")
    assert (theirs.trial_id, ours.trial_id) == ("13", "14")
    assert theirs.config.lr != undone["lr"], "the other agent knew more when it proposed trial 13"
    assert [in_study(search, n).params["lr"] for n in (13, 14)] == [theirs.config.lr, ours.config.lr]
    states = [trial.state for trial in search._study._study.get_trials()]
    assert states.count(optuna.trial.TrialState.RUNNING) == 2
    search.close()
    other.close()


def test_optuna_says_nothing(capfd):
    search = open_sweep("quiet", method="bayes", metric=LOSS, parameters=SPACE)
    for _ in range(12):
        request = search.next_trial("cpu/0")
        search.report(request.trial_id, 1, {"val_loss": loss(request.config)})
        search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE))
    search.close()
    assert capfd.readouterr() == ("", "")


OWN = """
import optuna

def space(trial):
    model = trial.suggest_categorical("model", ["simple_cnn", "vit"])
    values = {"model": model, "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}
    if model == "vit":
        values["depth"] = trial.suggest_int("depth", 1, 4)
    return values

def small(trial):
    return {"model": "simple_cnn", "channels": trial.suggest_categorical("channels", [8, 16, 32])}

def grid(info):
    assert info.config["method"] == "custom" and info.id
    sampler = optuna.samplers.GridSampler({"channels": [8, 16], "hidden": [32, 64]})
    return optuna.create_study(direction="minimize", sampler=sampler, pruner=optuna.pruners.NopPruner())

def genetic(info):
    sampler = optuna.samplers.NSGAIISampler(seed=1, population_size=4)
    return optuna.create_study(direction="minimize", sampler=sampler, pruner=optuna.pruners.NopPruner())

def wrong_grid(info):
    return optuna.create_study(direction="minimize", sampler=optuna.samplers.GridSampler({"channels": [1, 2]}))

def queued(info):
    study = optuna.create_study(direction="minimize", pruner=optuna.pruners.ThresholdPruner(upper=10))
    study.enqueue_trial({"channels": 16, "hidden": 64})
    study.enqueue_trial({"channels": 8, "hidden": 32})
    return study, lambda study: len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) >= 3

def upward(info):
    return optuna.create_study(direction="maximize")

def nothing(argument):
    return None

def failing(argument):
    raise KeyError("what")

def untrainable(trial):
    return {"model": "simple_cnn", "chanels": trial.suggest_int("chanels", 1, 2)}

def nested(trial):
    import numpy
    shift = numpy.float64(trial.suggest_float("shift", 0.0, 0.3))
    return {"model": "simple_cnn", "channels": numpy.int64(8), "augment": {"shift": shift}}

def unstorable(trial):
    return {"model": "simple_cnn", "lr": {1, 2}}

number = 7
"""
TWO_BY_TWO = {
    "model": {"value": "simple_cnn"},
    "channels": {"values": [8, 16]},
    "hidden": {"values": [32, 64]},
}


@pytest.fixture
def own(own_folders):
    (own_folders / "own.py").write_text(textwrap.dedent(OWN))

    def make(parameters=None, **scheduler):
        settings = {"method": "custom", "metric": LOSS, "scheduler": {"engine": "optuna", **scheduler}}
        return settings | ({"parameters": parameters} if parameters else {})

    return make


def test_a_define_by_run_space_with_conditional_parameters(own, own_folders, monkeypatch):
    search = open_sweep("own", **own({"epochs": {"value": 2}}, source="own.py", search_space="space"))
    monkeypatch.chdir(own_folders.parent)  # an agent may be started elsewhere
    seen = set()
    for number in range(30):
        if number % 10 == 9:
            search.close()
            search = OptunaSearch("own", storage=default_storage())
        request = search.next_trial("cpu/0")
        seen.add(request.config.model)
        assert ("depth" in request.parameters) == (request.config.model == "vit")
        assert request.config.epochs == 2
        finish(search, request, math.log10(request.config.lr) ** 2)
    assert seen == {"simple_cnn", "vit"}
    search.close()


def test_a_users_space_may_nest_and_use_numpy(own):
    search = open_sweep("nested", **own(source="own.py", search_space="nested"))
    request = search.next_trial("cpu/0")
    assert request.parameters.keys() == {"model", "channels", "augment.shift"}
    assert request.config.augment.shift == request.parameters["augment.shift"]
    assert search.records()[0].parameters == request.parameters
    search.close()


def test_what_the_sweep_file_fixes_wins_over_the_users_space(own):
    search = open_sweep("fixed", **own({"lr": {"value": 0.5}}, source="own.py", search_space="space"))
    assert {search.next_trial("cpu/0").config.lr for _ in range(5)} == {0.5}
    search.close()


def test_a_users_small_space_is_exhausted_without_repeats(own):
    search = open_sweep("small", **own(source="own.py", search_space="small"))
    requests = iter(lambda: search.next_trial("cpu/0"), None)
    assert sorted(finish(search, request, 1.0) or request.config.channels for request in requests) == [8, 16, 32]
    assert sweep_state(default_storage(), "small") == "finished"
    search.close()


def test_a_failure_that_is_taken_back_is_forgotten_by_every_agents_study(own_folders):
    one = open_sweep("back", method="bayes", metric=LOSS, parameters=SPACE)
    two = OptunaSearch("back", storage=default_storage(), owner="two")
    first, second = one.next_trial("cpu/0"), one.next_trial("cpu/1")
    finish(one, first, 3.0)
    one.finish(second.trial_id, TrialOutcome(TrialState.FAILED, reason="cuda"))
    for search in (one, two):
        search.next_trial("cpu/2")
        assert in_study(search, 1).value == 3.0, "as bad as the worst"
    one.finish(second.trial_id, TrialOutcome(TrialState.PREEMPTED, reason="its slot is broken"))
    again = one.next_trial("cpu/1")
    assert (again.trial_id, again.attempt) == ("1", 2)
    finish(one, again, 1.0)
    fresh = OptunaSearch("back", storage=default_storage(), owner="three")
    proposals = set()
    for search in (one, two, fresh):
        with search._leases.ledger(write=False) as ledger:
            proposals.add(str(search._proposer.propose(ledger.count(), ledger).values))
        assert in_study(search, 1).value == 1.0
        search.close()
    assert len(proposals) == 1, "an agent that has seen it all proposes what one does that has just begun"


def test_a_users_grid_sampler_is_walked_by_two_agents_and_then_exhausted(own):
    one = open_sweep("grid", **own(TWO_BY_TWO, source="own.py", optimizer="grid"))
    two = OptunaSearch("grid", storage=default_storage(), owner="two")
    seen = []
    for search in (one, two, one, two):
        request = search.next_trial("cpu/0")
        seen.append((request.config.channels, request.config.hidden))
        finish(search, request, 1.0)
    assert sorted(seen) == [(8, 32), (8, 64), (16, 32), (16, 64)]
    assert one.next_trial("cpu/0") is None
    assert two.next_trial("cpu/0") is None
    one.close()
    two.close()


def test_a_sampler_that_keeps_its_state_in_trials_goes_on_after_a_restart(own):
    search = open_sweep("state", **own(SPACE, source="own.py", optimizer="genetic"))
    for number in range(12):
        if number % 3 == 2:
            search.close()
            search = OptunaSearch("state", storage=default_storage())
        request = search.next_trial("cpu/0")
        finish(search, request, loss(request.config))
    generations = {in_study(search, n).system_attrs.get("NSGAIISampler:generation") for n in range(12)}
    assert generations == {0, 1, 2}
    search.close()


def test_a_users_enqueued_trials_pruner_and_terminator_are_used(own):
    search = open_sweep("queued", **own(TWO_BY_TWO, source="own.py", optimizer="queued"))
    first, second = search.next_trial("cpu/0"), search.next_trial("cpu/1")
    assert (first.config.channels, first.config.hidden) == (16, 64)
    assert (second.config.channels, second.config.hidden) == (8, 32)
    assert finish(search, first, 99.0) is StopReason.PRUNED
    assert finish(search, second, 1.0) is None
    for _ in range(2):
        finish(search, search.next_trial("cpu/0"), 2.0)
    assert search.next_trial("cpu/0") is None, "the terminator has had its three trials"
    search.close()


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"source": "nowhere.py", "search_space": "space"}, "there is no file"),
        ({"source": "own.py", "search_space": "spcae"}, "no function spcae"),
        ({"source": "own.py", "optimizer": "number"}, "no function number"),
        ({"source": "own.py", "search_space": "nothing"}, "gave NoneType, not a dictionary"),
        ({"source": "own.py", "search_space": "unstorable"}, "cannot be stored: Object of type set"),
        ({"source": "own.py", "optimizer": "nothing"}, "gave NoneType, not an optuna.Study"),
        ({"source": "own.py", "search_space": "failing"}, r"own\.py, line \d+: failing\(\) failed: KeyError: 'what'"),
        ({"source": "own.py", "optimizer": "failing"}, r"own\.py, line \d+: failing\(\) failed: KeyError: 'what'"),
        ({"source": "own.py", "optimizer": "wrong_grid"}, r"the sampler of wrong_grid\(\) failed: ValueError"),
        ({"source": "own.py", "optimizer": "upward"}, "has the directions"),
        ({"source": "broken.py", "search_space": "space"}, r"broken\.py, line 2: cannot be run: SyntaxError"),
        ({"source": "raising.py", "search_space": "space"}, r"raising\.py, line 1: cannot be run: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_users_file_is_said_when_the_sweep_is_created(own, own_folders, scheduler, message):
    (own_folders / "broken.py").write_text("x = 1\ndef (:\n")
    (own_folders / "raising.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match=message) as caught:
        open_sweep("wrong", **own(TWO_BY_TWO, **scheduler))
    assert caught.value.hint
    assert list_sweeps(default_storage()) == []


def test_a_users_space_that_cannot_be_trained_is_refused_with_the_nearest_name(own):
    with pytest.raises(ConfigError, match="did you mean channels"):
        open_sweep("wrong", **own(source="own.py", search_space="untrainable"))


def test_the_source_is_stored_with_its_whole_path(own, own_folders):
    open_sweep("path", **own(source="own.py", search_space="small")).close()
    assert load_sweep(default_storage(), "path").scheduler.source == str(own_folders / "own.py")
