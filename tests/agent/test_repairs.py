"""Runs that are incomplete on the W&B server: the thread that looks for them and uploads them again."""

import threading

import pytest

from fer_sweep.agent.repairs import Repairs
from tests.support.processes import until


def test_finish_returns_though_the_thread_was_busy_when_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.agent.repairs.LOOK_AGAIN_S", 0.0)
    looking, go_on = threading.Event(), threading.Event()

    def is_whole(trial_id: str) -> bool:
        looking.set()
        return go_on.wait(60)

    repairs = Repairs("sweep", is_whole=is_whole)
    repairs.heard("trial", True)
    assert looking.wait(60)
    left: list[tuple[str, ...]] = []
    ending = threading.Thread(target=lambda: left.append(repairs.finish()), daemon=True)
    ending.start()
    until(lambda: repairs._closing)
    go_on.set()
    ending.join(60)
    assert left == [()]


def test_a_server_that_does_not_answer_is_asked_again(own_folders: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.agent.repairs.LOOK_AGAIN_S", 0.0)
    answers: list[bool | None] = [None, None, False]
    asked_enough = threading.Event()

    def is_whole(trial_id: str) -> bool | None:
        answer = answers.pop(0)
        if not answers:
            asked_enough.set()
        return answer

    repairs = Repairs("nosuchsweep", is_whole=is_whole)
    repairs.heard("trial", True)
    assert asked_enough.wait(60)
    assert repairs.finish() == ("trial",)


def test_a_trial_that_ends_during_its_upload_is_uploaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync leaves out what runs: a trial's first attempt was left behind, its second one ends during the sync."""
    monkeypatch.setattr("fer_sweep.agent.repairs.FIRST_TRY_S", 0.0)
    monkeypatch.setattr(Repairs, "_sync", lambda self, trials: sync(trials))
    synced: list[list[str]] = []
    again = threading.Event()

    def sync(trials: list[str]) -> bool:
        synced.append(trials)
        if len(synced) == 1:
            repairs.heard("trial", False)
        else:
            again.set()
        return True

    repairs = Repairs("sweep")
    repairs.heard("trial", False)
    assert again.wait(60)
    assert repairs.finish() == ()
    assert synced == [["trial"], ["trial"]]


def test_a_server_that_does_not_answer_is_asked_for_one_run_only_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fer_sweep.agent.repairs.LOOK_AGAIN_S", float("inf"))
    asked: list[str] = []
    repairs = Repairs("sweep", is_whole=asked.append)
    for number in range(100):
        repairs.heard(str(number), True)
    assert repairs.finish() == ()
    assert len(asked) == 1
