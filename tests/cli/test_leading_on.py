"""No dead ends: from every state of a sweep, each command that a message names works and leads on, in no circle."""

import functools

import pytest

from fer_sweep.records import TrialOutcome, TrialState, Verdict
from fer_sweep.sweeps import known
from fer_sweep.wandb_client import server_search
from fer_sweep.wandb_client.server_search import WandbSearch
from tests.cli.conftest import write_sweep
from tests.search.conftest import AT_ONCE
from tests.support.records import make_result
from tests.support.scripted_starter import PlayedTrial, Script, ScriptedStarter, train_all
from tests.support.searches import find, pause_trials
from tests.support.standin.server import StandIn
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
    "finished": ("create", "agent --count 9"),
    "trials paused, no agent": ("create", "pause trials"),
    "trials paused, then stopped": ("create", "pause trials", "stop"),
    "trials paused, then cancelled": ("create", "pause trials", "cancel"),
    "confirmed": ("create", "agent", "confirm --seeds 1"),
}
"""The commands that lead to each state; the first word may say how its trials end."""
ON_THE_SERVER = {
    "deleted": ("create", "delete on the server"),
    "deleted with a trial": ("create", "agent --count 1", "delete on the server"),
}
"""The same for a sweep that a W&B server searches."""
FROM = ("best", "retry", "status", "agent")
"""The commands to set out with; an agent is last, and waits in a paused sweep."""
SCRIPTS: dict[str, Script] = {"failing": failing, "collapsing": collapsing}


@pytest.fixture
def served(scripted_wandb, monkeypatch):
    """The W&B server that searches sweeps from here on."""
    monkeypatch.setattr(server_search, "WandbSearch", functools.partial(WandbSearch, pace=AT_ONCE))
    return scripted_wandb.server


def lead(steps: tuple[str, ...], walk: Walk, trials: ScriptedStarter, server: StandIn | None = None) -> None:
    """Bring a sweep into a state."""
    turns = "pause trials" in steps
    write_sweep(trials=2, epochs=6 if turns else 1, method="bayes" if turns else "random")
    for step in steps:
        first, _, rest = step.partition(" ")
        trials.script = SCRIPTS.get(first, train_all)
        if first == "delete" and server:
            server.delete_sweep(known()[-1].id)
        elif step == "pause trials":
            pause_trials(find(known()[-1].id))
        else:
            walk.run("create sweep.yaml" if step == "create" else rest if first in SCRIPTS else step)
    trials.script = train_all


def walk_from(steps: tuple[str, ...], walk: Walk, trials: ScriptedStarter, server: StandIn | None = None) -> None:
    lead(steps, walk, trials, server)
    for command in FROM:
        if not (command == "agent" and steps[-1:] == ("pause",)):
            walk.from_(command)
    assert "pause trials" not in steps or all(record.state.has_ended for record in find(known()[0].id).trials())


@pytest.mark.parametrize("state", STATES)
def test_every_hint_leads_on_and_none_back(shell, played_trials, tiny_data, state):
    walk_from(STATES[state], Walk(shell), played_trials)


@pytest.mark.parametrize("state", ["new", "only failed", "paused", "finished", "cancelled", *ON_THE_SERVER])
def test_every_hint_about_a_sweep_that_a_server_searches_leads_on(shell, played_trials, tiny_data, served, state):
    walk_from({**STATES, **ON_THE_SERVER}[state], Walk(shell), played_trials, served)


WORKS = """\
list
status SWEEP
best SWEEP OTHER
best SWEEP --yaml
compare SWEEP/TRIAL OTHER/TRIAL
logs SWEEP/TRIAL
report SWEEP OTHER
create sweep.yaml --from SWEEP
stop SWEEP
resume SWEEP
rename SWEEP renamed
delete OTHER
"""
REFUSED = """\
enqueue SWEEP --set lr=0.002
edit sweep.yaml SWEEP
extend SWEEP/TRIAL --epochs 9
resume SWEEP --count +3
cancel SWEEP
pause SWEEP
"""


def test_a_finished_sweep_that_a_server_searched_takes_every_command_or_says_what_leads_on(
    shell, played_trials, tiny_data, served
):
    walk, names = Walk(shell), {}
    for name in ("SWEEP", "OTHER"):
        lead(STATES["finished"], walk, played_trials)
        sweep = known()[-1]
        names |= {f"{name}/TRIAL": f"{sweep.path}/{served.sweeps[sweep.id].run_ids[0]}", name: sweep.id}

    def run(line: str) -> tuple[int, list[str]]:
        return walk.run(functools.reduce(lambda text, name: text.replace(name, names[name]), names, line))

    for line in REFUSED.splitlines():
        code, (leads_on, *_) = run(line)
        assert (code, walk.run(leads_on)[0]) == (2, 0), walk.steps[-2:]
    for line in WORKS.splitlines():
        assert run(line)[0] == 0, walk.steps[-1]
