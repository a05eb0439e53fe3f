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
