"""What comes next in a sweep: the limits that it has reached, and the command that leads on."""

from collections.abc import Mapping, Sequence

from fer_sweep.formatting import counted
from fer_sweep.records import SweepState, TrialRecord, TrialState
from fer_sweep.search.embedded import has_new
from fer_sweep.sweeps.opened import Sweep


def outlook(sweep: Sweep) -> Sequence[str]:
    """Lines on what comes next and what limits it: the configurations in the queue, the budget of epochs."""
    with sweep.ledger() as ledger:
        settings, spent, queue = ledger.settings(), ledger.reported_epochs(), len(ledger.queue())
    lines = [f"queued next: {counted(queue, 'configuration')}"] if queue else []
    if (budget := settings.budget_epochs) is not None:
        over = "; no new trial starts" if spent >= budget else ""
        lines.append(f"budget: {spent} of {budget} epochs are trained{over}")
    if settings.until_converged:
        lines.append("until converged: it finishes once going on is not worth it")
    return lines


def next_command(sweep: Sweep, state: str, trials: Sequence[TrialRecord]) -> str:
    """The command, without ``fersweep``, that leads on from a state."""
    if state in ("paused", "stopped"):
        return f"resume {sweep.id}"
    if state in ("running", "unknown"):
        return f"agent {sweep.id}"
    if any(trial.result is not None for trial in trials):
        return f"{sweep.choosing_command} {sweep.id}"
    if state == "finished" and any(trial.state is TrialState.FAILED for trial in trials):
        return f"retry {sweep.id}"
    return f"create {sweep.folder / 'sweep.yaml'}"


def obstacle(sweep: Sweep) -> tuple[str, str] | None:
    """Why a finished sweep has no trial to start, and the command, without ``fersweep``, that leads on."""
    with sweep.ledger() as ledger:
        settings = ledger.settings()
        reached = reached_limits(
            settings.file.run_cap, ledger.count(), settings.budget_epochs, ledger.reported_epochs()
        )
    if settings.state is not SweepState.FINISHED:
        return None
    if reached:
        return " and ".join(reached.values()), resume_command(sweep, raised(reached))
    if settings.until_converged and has_new(sweep.database, sweep.id):
        return "going on is not worth it", f"resume {sweep.id}"
    return "every configuration of its space is trained", f"best {sweep.id}"


def reached_limits(cap: int | None, started: int, budget: int | None, spent: int) -> dict[str, str]:
    """The limits that leave no new trial to start: what is reached, by the option that raises it.

    Args:
        cap: The largest number of trials; None if unlimited.
        started: Trials so far.
        budget: Epochs of all trials together; None if unlimited.
        spent: Epochs trained so far.
    """
    reached = {}
    if cap is not None and started >= cap:
        reached["--count"] = f"it has {counted(started, 'trial')}, and its cap is {cap}"
    if budget is not None and spent >= budget:
        reached["--budget-epochs"] = f"it has trained {counted(spent, 'epoch')}, and its budget is {budget}"
    return reached


def raised(reached: Mapping[str, str]) -> dict[str, str]:
    """For each limit that is reached, how much higher it might be."""
    return {option: {"--count": "+10", "--budget-epochs": "+100"}[option] for option in reached}


def resume_command(sweep: Sweep, options: Mapping[str, str]) -> str:
    """The command, without ``fersweep``, that resumes a sweep with these options."""
    return " ".join(["resume", sweep.id, *(f"{option} {text}" for option, text in options.items())])
