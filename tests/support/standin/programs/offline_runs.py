"""Two offline runs, one of which failed."""

from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.wandb_client.run_labels import RunLabels
from fer_sweep.wandb_client.tracking import Tracker


def labels(name):
    return RunLabels(name=name, group="sweep1", sweep_id="abcd1234", project="faces", tags=("vit",))


runs = [
    Tracker(mode="offline").start(labels(f"trial-{n}"), {"lr": 0.1, "augment": {"flip": True}}, run_id=f"s-{n}")
    for n in range(2)
]
for epoch in (1, 2):
    for run in runs:  # both open at once, as in an agent with two slots
        run.log({"epoch": epoch, "val_acc": epoch / 10})
runs[0].finish(TrialOutcome(TrialState.COMPLETE))
runs[1].finish(TrialOutcome(TrialState.FAILED, reason="out of patience"))
