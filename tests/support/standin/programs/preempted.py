"""Is preempted at its first start and resumes at the second."""

import sys

import wandb

run = wandb.init(resume="allow")
run.log({"loss": run.starting_step})
if not run.resumed:
    run.mark_preempting()
    sys.exit(143)
