"""Three runs side by side; one is resumed, one begun anew."""

import wandb

labels = {"group": "g", "job_type": "j", "notes": "o", "tags": ["t"], "config": {"a": {"b": 1}}}
runs = [wandb.init(project="faces", id=f"r{i}", name=f"n{i}", reinit="create_new", **labels) for i in range(3)]
for epoch in range(2):
    for run in runs:
        run.log({"loss": epoch, "acc": float("nan")})
runs[0].summary["best"] = 7
runs[0].finish(exit_code=3)
for run in runs[1:]:
    run.finish()
for mode in ("allow", None):
    run = wandb.init(project="faces", id="r0" if mode else "r1", resume=mode)
    print("STEP", run.starting_step, run.resumed)
    run.log({"loss": 9})
    run.finish()
