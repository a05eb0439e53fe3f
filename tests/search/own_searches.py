"""A user's own Optuna studies and search spaces, right and wrong ones, for test_study.py."""

import numpy
import optuna


def space(trial):
    model = trial.suggest_categorical("model", ["simple_cnn", "vit"])
    values = {"model": model, "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}
    if model == "vit":
        values["depth"] = trial.suggest_int("depth", 1, 4)
    return {**values, "seed": numpy.int64(8), "augment": {"shift": numpy.float64(0.25)}}


def grid(info):
    assert info.config["method"] == "custom" and info.id
    sampler = optuna.samplers.GridSampler({"channels": [8, 16], "hidden": [32, 64]})
    return optuna.create_study(direction="minimize", sampler=sampler, pruner=optuna.pruners.NopPruner())


def genetic(info):
    sampler = optuna.samplers.NSGAIISampler(seed=1, population_size=4)
    return optuna.create_study(direction="minimize", sampler=sampler, pruner=optuna.pruners.NopPruner())


def queued(info):
    study = optuna.create_study(direction="minimize", pruner=optuna.pruners.ThresholdPruner(upper=10))
    study.enqueue_trial({"channels": 16, "hidden": 64})
    study.enqueue_trial({"channels": 8, "hidden": 32})
    return study, lambda study: len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) >= 3


def wrong_grid(info):
    return optuna.create_study(direction="minimize", sampler=optuna.samplers.GridSampler({"channels": [1, 2]}))


def upward(info):
    return optuna.create_study(direction="maximize")


def nothing(argument):
    return None


def failing(argument):
    raise KeyError("what")


def untrainable(trial):
    return {"model": "simple_cnn", "chanels": trial.suggest_int("chanels", 1, 2)}
