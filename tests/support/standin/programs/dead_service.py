"""wandb's service dies while it starts; the first run waits for it, the second one does not."""

from wandb.sdk.lib.service import service_process

import fer_sweep.wandb_client.tracking as tracking
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.wandb_client import package

service_process.get_core_path = lambda: "false"
package.HANGS_S = 2.0
ended = []
tracker = tracking.Tracker(on_end=lambda run_id, whole: ended.append((run_id, whole)))
for name in ("a", "b"):
    run = tracker.start(tracking.RunLabels(name=name, group="g"), {}, run_id=name)
    assert run.run is None and run.had_trouble
    run.log({"epoch": 1})
    run.finish(TrialOutcome(TrialState.COMPLETE))
    package.HANGS_S = 600.0  # the second run waits for nothing
assert ended == [("a", False), ("b", False)], ended
package.close_wandb()
