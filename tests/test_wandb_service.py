"""wandb's service process: asked with a timeout, found, seen paused, and killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from fer_sweep.wandb_client import service as wandb_service


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in wandb's place, where wandb 0.31 keeps its own."""
    with subprocess.Popen(["sleep", "600"]) as process:
        held = SimpleNamespace(_connection=SimpleNamespace(_proc=SimpleNamespace(_process=process)))
        monkeypatch.setitem(sys.modules, "wandb.sdk.wandb_setup", SimpleNamespace(_singleton=held))  # type: ignore[arg-type]
        yield process
        process.kill()


def test_an_answer_in_time_is_given_and_an_error_is_raised() -> None:
    assert wandb_service.in_time(lambda: 1, 60.0) == 1
    with pytest.raises(ZeroDivisionError):
        wandb_service.in_time(lambda: 1 / 0, 60.0)


def test_no_answer_in_time_is_an_error() -> None:
    answer = threading.Event()
    with pytest.raises(wandb_service.TakesTooLong):
        wandb_service.in_time(answer.wait, 0.0)
    answer.set()


def test_a_service_is_seen_paused_and_is_killed_all_the_same(service: "subprocess.Popen[bytes]") -> None:
    assert wandb_service.process() is service
    assert not wandb_service.is_paused()
    service.send_signal(signal.SIGSTOP)
    os.waitpid(service.pid, os.WUNTRACED)
    assert wandb_service.is_paused()
    assert wandb_service.kill(service)
    assert service.wait(60) == -signal.SIGKILL
    assert not wandb_service.kill(service), "it has ended"


@pytest.mark.parametrize("known", [None, SimpleNamespace(_singleton=None), SimpleNamespace()])
def test_without_a_service_nothing_is_paused_or_killed(known: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb.sdk.wandb_setup", known)  # type: ignore[arg-type]
    assert wandb_service.process() is None
    assert not wandb_service.is_paused()
    assert not wandb_service.kill(None)
