"""The thread that uploads runs which are not complete on the W&B server."""

import threading
from collections.abc import Collection, Mapping, Sequence

import pytest

from fer_sweep.agent import uploads as module
from fer_sweep.agent.uploads import Uploads
from fer_sweep.wandb_client.reconcile import Action

WAIT_S = 60.0
"""Bounds a failing test only."""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a run as soon as it has ended."""
    monkeypatch.setattr(module, "SETTLE_S", 0.0)


class Server:
    """A server that has all of a trial's run after ``needed`` uploads, and records what is uploaded."""

    def __init__(self, *, needed: int = 1, works: bool = True, others: Sequence[str] = ()) -> None:
        self.needed, self.works = needed, works
        self.others = list(others)
        """Trials of killed agents."""
        self.uploads: list[list[str]] = []
        self.first, self.second = threading.Event(), threading.Event()

    def check(self, own: Collection[str]) -> Mapping[str, Action]:
        is_complete = len(self.uploads) >= self.needed
        return dict.fromkeys(own, Action.NONE if is_complete else Action.COMPLETE) | dict.fromkeys(
            self.others, Action.UPLOAD
        )

    def upload(self, sweep_id: str, trials: Sequence[str]) -> bool:
        self.uploads.append(list(trials))
        self.others.clear()
        (self.second if self.first.is_set() else self.first).set()
        return self.works


def uploads_to(server: Server) -> Uploads:
    return Uploads("sweep", check=server.check, pause_s=0.001, upload=server.upload)


def test_a_run_that_cannot_be_uploaded_is_named_and_without_one_nothing_is_uploaded() -> None:
    server = Server(works=False)
    uploads = uploads_to(server)
    assert uploads.finish() == ()
    assert not server.uploads
    uploads.ended("trial", False)
    assert uploads.finish() == ("trial",)


def test_the_upload_of_an_unknown_sweep_has_failed(own_folders: object) -> None:
    assert not module.upload_in_own_process("nosuchsweep", ["trial"])


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("is_sent", [False, True])
def test_a_run_that_is_not_complete_is_uploaded_while_the_agent_works_whatever_wandb_says(is_sent: bool) -> None:
    server = Server()
    uploads = uploads_to(server)
    uploads.start()
    uploads.ended("trial", is_sent)
    assert server.first.wait(WAIT_S)
    assert uploads.finish() == ()
    assert server.uploads == [["trial"]]


@pytest.mark.usefixtures("at_once")
def test_a_run_that_a_late_write_reopened_after_its_upload_is_uploaded_again() -> None:
    """What wandb's service in the agent still had to send may arrive after the upload by another process."""
    server = Server(needed=2)
    uploads = uploads_to(server)
    uploads.start()
    uploads.ended("trial", False)
    assert server.first.wait(WAIT_S)
    assert uploads.finish() == ()  # called once wandb has been closed
    assert server.uploads == [["trial"]] * 2


@pytest.mark.usefixtures("at_once")
def test_a_trial_that_ends_during_its_upload_is_uploaded_again() -> None:
    """A sync omits a running trial: its first attempt was not sent, and its second one ends during the upload."""
    server = Server(needed=2)

    def upload(sweep_id: str, trials: Sequence[str]) -> bool:
        if not server.uploads:
            uploads.ended("trial", False)
        return server.upload(sweep_id, trials)

    uploads = Uploads("sweep", check=server.check, pause_s=0.001, upload=upload)
    uploads.start()
    uploads.ended("trial", False)
    assert server.second.wait(WAIT_S)
    assert uploads.finish() == ()
    assert server.uploads == [["trial"]] * 2


def test_if_the_server_does_not_answer_the_runs_that_wandb_could_not_send_are_named() -> None:
    uploads = Uploads("sweep", check=lambda own: None, pause_s=0.001, upload=lambda sweep_id, trials: False)
    uploads.ended("sent", True)
    uploads.ended("unsent", False)
    assert uploads.finish() == ("unsent",)


def test_runs_of_killed_agents_are_uploaded_from_the_start_and_at_the_end() -> None:
    server = Server(others=["early"])
    uploads = uploads_to(server)
    uploads.start()
    assert server.first.wait(WAIT_S)
    server.others[:] = ["late"]
    assert uploads.finish() == ()
    assert server.uploads == [["early"], ["late"]]
