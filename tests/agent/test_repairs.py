"""The thread that syncs runs which are not whole on the W&B server."""

import threading
from collections.abc import Sequence

import pytest

from fer_sweep.agent import repairs as module
from fer_sweep.agent.repairs import Repairs

WAIT_S = 60.0
"""Bounds a failing test only."""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again, and try, without a pause."""
    for name in ("LOOK_AGAIN_S", "FIRST_TRY_S"):
        monkeypatch.setattr(module, name, 0.0)


class Syncs:
    """Records what is synced; ``works`` says whether it gets through."""

    def __init__(self, works: bool = True) -> None:
        self.works = works
        self.trials: list[list[str]] = []
        self.first, self.second = threading.Event(), threading.Event()

    def __call__(self, sweep_id: str, trials: Sequence[str]) -> bool:
        self.trials.append(list(trials))
        (self.second if self.first.is_set() else self.first).set()
        return self.works


def test_a_run_that_cannot_be_synced_is_named_and_without_one_nothing_is_synced() -> None:
    syncs = Syncs(works=False)
    assert Repairs("sweep", sync=syncs).finish() == ()
    assert not syncs.trials
    repairs = Repairs("sweep", sync=syncs)
    repairs.heard("trial", False)
    assert repairs.finish() == ("trial",)


def test_the_sync_of_an_unknown_sweep_has_failed(own_folders: object) -> None:
    assert not module.sync_in_own_process("nosuchsweep", ["trial"])


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("wandb_calls_it_whole", [False, True])
def test_a_run_that_is_not_whole_on_the_server_is_synced_while_the_agent_works(wandb_calls_it_whole: bool) -> None:
    syncs = Syncs()
    repairs = Repairs("sweep", is_whole=lambda trial_id: bool(syncs.trials), sync=syncs)
    repairs.heard("trial", wandb_calls_it_whole)
    assert syncs.first.wait(WAIT_S)
    assert repairs.finish() == ()
    assert syncs.trials == [["trial"]]


@pytest.mark.usefixtures("at_once")
def test_a_run_that_a_late_write_reopened_after_its_sync_is_synced_again() -> None:
    """What wandb's service in the agent still had to send may arrive after the sync in another process."""
    syncs = Syncs()
    repairs = Repairs("sweep", is_whole=lambda trial_id: len(syncs.trials) == 2, sync=syncs)
    repairs.heard("trial", False)
    assert syncs.first.wait(WAIT_S)
    assert repairs.finish() == ()  # called once wandb has been closed
    assert syncs.trials == [["trial"]] * 2


@pytest.mark.usefixtures("at_once")
def test_a_trial_that_ends_during_its_sync_is_synced_again() -> None:
    """A sync leaves out what runs: a trial's first attempt was left behind, its second one ends during the sync."""
    syncs = Syncs()

    def sync(sweep_id: str, trials: Sequence[str]) -> bool:
        if not syncs.trials:
            repairs.heard("trial", False)
        return syncs(sweep_id, trials)

    repairs = Repairs("sweep", sync=sync)
    repairs.heard("trial", False)
    assert syncs.second.wait(WAIT_S)
    assert repairs.finish() == ()
    assert syncs.trials == [["trial"]] * 2


def test_a_server_that_does_not_answer_is_asked_for_one_run_at_the_end_not_for_all() -> None:
    asked: list[str] = []
    repairs = Repairs("sweep", is_whole=asked.append, sync=Syncs())
    for number in range(100):
        repairs.heard(str(number), True)
    assert repairs.finish() == ()
    assert len(asked) == 1


def test_runs_that_killed_agents_left_behind_are_synced_from_the_start_and_at_the_end() -> None:
    left = ["early"]
    syncs = Syncs()
    repairs = Repairs("sweep", left_behind=lambda: left, look_behind_s=3600.0, sync=syncs)
    repairs.watch()
    assert syncs.first.wait(WAIT_S)
    left[:] = ["late"]
    assert repairs.finish() == ()
    assert syncs.trials == [["early"], ["late"]]
