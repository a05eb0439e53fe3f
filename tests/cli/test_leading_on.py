"""No dead ends: from every state of a sweep, each command that a message names works and leads on, in no circle."""

import pytest

from fer_sweep.records import TrialOutcome, TrialState, Verdict
from tests.cli.conftest import write_sweep
from tests.support.records import make_result
from tests.support.scripted_starter import PlayedTrial, Script, train_all
from tests.support.walk import Walk


def failing(trial: PlayedTrial) -> TrialOutcome:
    return TrialOutcome(TrialState.FAILED, reason="no such weights")


def collapsing(trial: PlayedTrial) -> TrialOutcome:
    return TrialOutcome(TrialState.COMPLETE, make_result(verdict=Verdict.COLLAPSED))


STATES: dict[str, tuple[str, ...]] = {
    "no sweep": (),
    "new": ("create",),
    "only failed": ("create", "failing agent"),
    "only collapsed": ("create", "collapsing agent"),
    "paused": ("create", "pause"),
    "stopped": ("create", "stop"),
    "stopped with a trial": ("create", "agent --count 1", "stop"),
    "cancelled": ("create", "cancel"),
    "cancelled with a trial": ("create", "agent --count 1", "cancel"),
    "finished": ("create", "agent"),
    "confirmed": ("create", "agent", "confirm --seeds 1"),
}
"""The commands that lead to each state; the first word may say how its trials end."""
FROM = ("best", "retry", "status", "agent")
"""The commands to set out with; an agent is last, and waits in a paused sweep."""
SCRIPTS: dict[str, Script] = {"failing": failing, "collapsing": collapsing}


@pytest.mark.parametrize("state", STATES)
def test_every_hint_leads_on_and_none_back(shell, played_trials, tiny_data, state):
    write_sweep(trials=2, epochs=1)
    walk = Walk(shell)
    for step in STATES[state]:
        first, _, rest = step.partition(" ")
        played_trials.script = SCRIPTS.get(first, train_all)
        walk.run("create sweep.yaml" if step == "create" else rest if first in SCRIPTS else step)
    played_trials.script = train_all
    for command in FROM:
        if not (command == "agent" and state == "paused"):
            walk.from_(command)
