"""The thread that sees to runs that are not whole on the server."""

import threading

import pytest

from fer_sweep.agent.repairs import Repairs


def test_an_end_that_comes_while_the_thread_is_at_work_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
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
    while not repairs._closing:
        pass
    go_on.set()
    ending.join(60)
    assert left == [()]


def test_nothing_to_repair_ends_at_once() -> None:
    assert Repairs("sweep").finish() == ()


def test_what_cannot_be_brought_up_is_named(own_folders: object) -> None:
    repairs = Repairs("nosuchsweep")
    repairs.heard("trial", False)
    assert repairs.finish() == ("trial",)


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


def test_a_trial_that_ends_while_it_is_brought_up_is_brought_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_server_that_does_not_answer_is_asked_for_one_run_at_the_end_not_for_all() -> None:
    asked: list[str] = []
    repairs = Repairs("sweep", is_whole=asked.append)
    for number in range(100):
        repairs.heard(str(number), True)
    assert repairs.finish() == ()
    assert len(asked) == 1
