"""Sweeps as they might have been: seeded records whose curves look like learning curves, of any size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fer_sweep.config.trial import parse_trial
from fer_sweep.records import TrialRecord, TrialResult, TrialState
from fer_sweep.reports.sources import Axis, Curve, Report, ReportedSweep, best_of_each_model, best_trials
from fer_sweep.selection import Candidate, caveats, select, select_each
from fer_sweep.sweeps.choosing import Choice
from tests.support.records import make_result

EPOCHS = 20
IMAGES = np.array([467, 56, 496, 895, 653, 415, 607])
"""FER2013's PublicTest, by class."""
EASE = np.array([0.93, 0.75, 0.72, 1.28, 0.82, 1.17, 1.0])
"""How much of its accuracy a model keeps on each class: happy is easy, fear is not."""
CONFUSED = (2, 0, 4, 6, 6, 2, 4)
"""What each class is most taken for."""
AXES = (
    Axis("lr", log=True, bounds=(1e-4, 1e-1)),
    Axis("weight_decay", log=True, bounds=(1e-6, 1e-2)),
    Axis("batch_size", log=False, choices=(64, 128, 256)),
    Axis("optimizer", log=False, choices=("adamw", "sgd")),
    Axis("dropout", log=False, bounds=(0.0, 0.5)),
    Axis("label_smoothing", log=False, bounds=(0.0, 0.2)),
    Axis("augment.shift", log=False, bounds=(0.0, 0.2)),
    Axis("augment.rotation", log=False, bounds=(0.0, 15.0)),
)
SIZE = {"simple_cnn": 1_200_000, "deeper_cnn": 1_650_000, "resnet18": 11_170_000, "vit": 2_680_000}
CEILING = {"simple_cnn": 0.60, "deeper_cnn": 0.67, "resnet18": 0.70, "vit": 0.64}
"""Of the validation accuracy."""


def sweep(
    model: str = "resnet18", *, trials: int = 12, seed: int = 0, name: str | None = None, id: str | None = None
) -> tuple[ReportedSweep, dict[str, list[dict[str, float]]]]:
    """A sweep, and every trial's curve by its id: most trials complete, some pruned, a few failed or running."""
    rng = np.random.default_rng([seed, trials])
    records, histories = [], {}
    clock = 1_790_000_000.0
    for number in range(trials):
        parameters = {"model": model, "data": "fer2013", "epochs": EPOCHS, "seed": 0} | _draw(rng)
        fate = rng.random()
        state = TrialState.FAILED if fate < 0.02 else TrialState.PRUNED if fate < 0.4 else TrialState.COMPLETE
        if number == trials - 1 and trials > 3:
            state = TrialState.RUNNING
        history = curve(model, parameters, rng, epochs=3 if state is TrialState.PRUNED else EPOCHS)
        record = TrialRecord(
            str(number),
            state,
            config=parse_trial(parameters).model_dump(mode="json"),
            parameters=parameters,
            started_at=clock,
            ended_at=clock + 4.0 * len(history),
        )
        if state is TrialState.RUNNING:
            record = replace(record, metrics=history[-1], ended_at=None)
        elif state is TrialState.FAILED:
            record = replace(record, reason="RuntimeError: the GPU was taken away")
        else:
            record = replace(record, result=_result(model, history, rng))
        records.append(record)
        histories[str(number)] = history
        clock += 4.0 * len(history)
    sweep_id, name = id or f"s{seed:07d}", model if name is None else name
    file = f"method: bayes\nmetric: {{name: best_val_acc, goal: maximize}}\nname: {model}\n"
    made = ReportedSweep(sweep_id, name, "", (model,), "bayes", AXES, file, "--search optuna", tuple(records))
    return made, histories


def report(*made: tuple[ReportedSweep, Mapping[str, Curve]]) -> Report:
    """A report of sweeps of this module."""
    sweeps = tuple(shown for shown, _ in made)
    candidates = [Candidate(s.id, r, r.result) for s in sweeps for r in s.records if r.result is not None]
    selection, by_model = select(candidates), select_each(candidates)
    histories = {f"{shown.id}/{trial}": curve for shown, found in made for trial, curve in found.items()}
    choice = Choice(selection, by_model, caveats(selection, by_model))
    shown = [*best_trials(selection), *best_of_each_model(choice)]
    curves = {c.name: histories[c.name] for c in shown}
    return Report(sweeps, choice, curves, made=1_790_500_000.0)


def hostile(text: str) -> Report:
    """A report of a sweep whose every text is an attempt at injection; the best trial's among them."""
    made, histories = sweep(trials=24, seed=1)
    complete = [record for record in made.records if record.result and record.state is TrialState.COMPLETE]
    best = max(complete, key=lambda record: record.result.best_val_acc)
    records = list(made.records)
    config, swept = {**best.config, "data": text, "model": text}, {**best.parameters, "optimizer": text, text: text}
    records[1] = replace(records[1], state=TrialState.FAILED, result=None, reason=text)
    records[int(best.trial_id)] = replace(best, trial_id=text, config=config, parameters=swept)
    histories[text] = histories[best.trial_id]
    texts = dict.fromkeys(("id", "name", "description", "file", "options"), text)
    axes = (*made.axes, Axis(text, log=False))
    return report((replace(made, **texts, models=(text,), axes=axes, records=tuple(records)), histories))


def curve(
    model: str, parameters: Mapping[str, Any], rng: np.random.Generator, *, epochs: int
) -> list[dict[str, float]]:
    """A learning curve: accuracies rise and flatten, the gap opens as training goes on, both by the parameters."""
    off = abs(math.log10(parameters["lr"]) + 2.4) / 1.6  # the best learning rate is 4e-3
    brake = parameters["dropout"] + 2 * parameters["label_smoothing"] + 2 * parameters["augment.shift"]
    ceiling = CEILING[model] - 0.16 * off**2 - 0.05 * abs(brake - 0.6) + rng.normal(0, 0.008)
    speed = 0.12 + 0.25 * max(0.0, 1 - off)
    widest = max(0.02, 0.42 - 0.4 * brake + 0.1 * (parameters["optimizer"] == "adamw"))
    rows, best = [], 0.0
    for epoch in range(1, epochs + 1):
        grown = 1 - math.exp(-speed * epoch)
        val = max(0.14, 0.25 + (ceiling - 0.25) * grown + rng.normal(0, 0.006))
        gap = widest * grown * epoch / EPOCHS + rng.normal(0, 0.006)
        train = min(0.995, val + gap)
        best = max(best, val)
        row = {"epoch": float(epoch), "train_acc": train, "val_acc": val, "best_val_acc": best}
        row |= {"train_val_gap": train - val, "train_loss": 2.1 * (1 - train) + 0.12}
        row["val_loss"] = 2.1 * (1 - val) + 0.12 + 0.8 * max(0.0, gap - 0.1)
        row["lr"] = parameters["lr"] * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        row["images_per_second"] = 5000 + rng.normal(0, 60)
        rows.append(row)
    return rows


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for axis in AXES:
        if axis.choices is not None:
            drawn[axis.name] = axis.choices[int(rng.integers(len(axis.choices)))]
            continue
        low, high = axis.bounds
        value = 10 ** rng.uniform(math.log10(low), math.log10(high)) if axis.log else rng.uniform(low, high)
        drawn[axis.name] = float(value)
    return drawn


def _result(model: str, history: Sequence[Mapping[str, float]], rng: np.random.Generator) -> TrialResult:
    best = max(history, key=lambda row: row["val_acc"])
    ease = EASE * (IMAGES.sum() / (EASE * IMAGES).sum())
    right = np.minimum(np.round(best["val_acc"] * ease * IMAGES), IMAGES).astype(int)
    matrix = np.diag(right)
    for code in range(7):
        shares = np.full(7, 0.1)
        shares[CONFUSED[code]], shares[code] = 0.5, 0.0
        matrix[code] += rng.multinomial(IMAGES[code] - right[code], shares / shares.sum())
    accuracy = float(right.sum() / IMAGES.sum())
    gap = best["train_val_gap"]
    verdict = "underfit" if accuracy + gap < 0.5 else "overfit" if gap > 0.15 else "balanced"
    return make_result(
        best_val_acc=accuracy,
        best_epoch=int(best["epoch"]),
        train_acc=accuracy + gap,
        train_val_gap=gap,
        val_acc_clean=accuracy - 0.012,
        macro_f1=accuracy - 0.03,
        per_class_recall=tuple((right / IMAGES).tolist()),
        confusion_matrix=tuple(tuple(row) for row in matrix.tolist()),
        epochs=len(history),
        parameters=SIZE[model],
        seconds=4.0 * len(history),
        verdict=verdict,
    )
