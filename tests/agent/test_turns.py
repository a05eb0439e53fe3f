"""Agents on sweeps that freeze-thaw searches: trials are played, paused at the end of a turn, and resumed."""

import functools
import io
import json
import math
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from fer_sweep import sync
from fer_sweep.agent import session
from fer_sweep.agent.session import work_on
from fer_sweep.agent.uploads import Uploads
from fer_sweep.agent.view import View
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.sweeps import Sweep
from fer_sweep.worker.slots import Slot
from tests.support.scripted_search import TINY
from tests.support.scripted_starter import WAIT_S, PlayedTrial, ScriptedStarter, outcome_of, stopped
from tests.support.searches import create
from tests.support.standin.server import StandIn

EPOCHS, TRIALS = 4, 7
SLOTS = [Slot(f"cpu{number}", "cpu", 1) for number in range(2)]


@pytest.fixture(autouse=True)
def _in_turns(played_trials: ScriptedStarter, tiny_data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played epochs take no time, so turns are kept short; a trial waits for the answer to each of its reports."""
    answered: dict[tuple[str, int], threading.Event] = defaultdict(threading.Event)
    shown = View.epoch

    def epoch(view: View, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        shown(view, slot, trial_id, metrics)
        answered[trial_id, int(metrics["epoch"])].set()

    def play(trial: PlayedTrial) -> TrialOutcome:
        trial.begin()
        while trial.epoch < trial.job.config.epochs:
            if reason := trial.asked_to_stop():
                return stopped(trial, reason)
            trial.train()
            assert answered[trial.trial_id, trial.epoch].wait(WAIT_S)
        return outcome_of(TrialState.COMPLETE, trial.epoch)

    monkeypatch.setattr(View, "epoch", epoch)
    monkeypatch.setattr("fer_sweep.search.turns.SWITCHING_SHARE", math.inf)
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.01)
    played_trials.script = play


@pytest.fixture
def sweep() -> Sweep:
    parameters = {name: {"value": value} for name, value in {**TINY, "epochs": EPOCHS}.items()}
    plain = {"method": "bayes", "metric": {"name": "val_acc", "goal": "maximize"}, "run_cap": TRIALS}
    Path("sweep.yaml").write_text(
        yaml.safe_dump({**plain, "parameters": {**parameters, "lr": {"min": 1e-3, "max": 1e-2}}})
    )
    return create(Path("sweep.yaml"), search="optuna")


def work(sweep: Sweep, slots: int = 1, count: int | None = None) -> str:
    """Run an agent; gives what it showed."""
    shown = io.StringIO()
    work_on(sweep, SLOTS[:slots], console=Console(file=shown, width=200), count=count)
    return shown.getvalue()


@pytest.mark.parametrize("slots", [1, 2])
def test_a_sweep_ends_with_its_best_trial_complete_and_no_checkpoint_left(sweep: Sweep, slots: int) -> None:
    text = work(sweep, slots)
    assert "turn 2, " in text and " paused: " in text
    assert text.rstrip().splitlines()[-1].startswith(f"{TRIALS}/{TRIALS} trials | best ")
    trials = sweep.trials()
    states = {trial.state for trial in trials}
    # Of two slots, either may report first: they decide which trials are worth another turn, and all of them may be.
    assert TrialState.COMPLETE in states and states <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert slots == 2 or TrialState.PRUNED in states
    for trial in trials:
        folder = sweep.trial_folder(trial.trial_id)
        epochs = [json.loads(line)["epoch"] for line in (folder / "history.jsonl").read_text().splitlines()]
        assert epochs == list(range(1, len(epochs) + 1)) == [row["epoch"] for row in sweep.reports(trial.trial_id)]
        assert trial.result is not None and trial.result.epochs == len(epochs)
        assert json.loads((folder / "result.json").read_text())["epochs"] == len(epochs)
        assert not list(folder.glob("*.ckpt"))
    assert sweep.state == "finished"


def test_an_agent_with_a_count_trains_so_many_trials_to_their_ends(sweep: Sweep) -> None:
    work(sweep, count=2)
    assert [trial.state for trial in sweep.trials()] == [TrialState.COMPLETE] * 2


@pytest.mark.parametrize("wandb", ["scripted_wandb", pytest.param("online", marks=pytest.mark.stock)])
def test_a_paused_trials_run_is_resumed_and_shows_in_the_end_that_it_was_pruned(
    sweep: Sweep, wandb: str, online: StandIn, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(wandb)

    def upload(sweep_id: str, trials: Sequence[str]) -> bool:
        uploaded.extend(trials)
        sync.upload(sweep, trials=trials, say=lambda line: None)
        return True

    uploaded: list[str] = []
    monkeypatch.setattr(session, "Uploads", functools.partial(Uploads, upload=upload))
    work(sweep)
    trials = {trial.trial_id: trial for trial in sweep.trials()}
    pruned = [name for name, trial in trials.items() if trial.state is TrialState.PRUNED]
    assert set(pruned) <= set(uploaded)
    assert list(online.runs) == [f"{sweep.id}-{name}" for name in trials]
    for name, trial in trials.items():
        run = online.runs[f"{sweep.id}-{name}"]
        assert (run.state, run.exit_code, run.summary["state"]) == ("finished", 0, str(trial.state))
        assert trial.result is not None
        assert [row["epoch"] for row in run.history if "val_acc" in row] == [*range(1, trial.result.epochs + 1)]
    assert online.sweeps[next(iter(online.sweeps))].state == "FINISHED"
