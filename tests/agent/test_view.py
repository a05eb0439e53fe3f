"""The live table and the plain lines: both are given the same events, and what they show is read back."""

import io

import pytest
from rich.console import Console

from fer_sweep.agent.view import EPOCH_LINES_S, NOTEBOOK, LiveView, PlainView, Progress, View, make_view
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from tests.support.records import make_result
from tests.support.scripted_search import request

METRICS = {"epoch": 2, "val_acc": 0.5, "best_val_acc": 0.51, "train_val_gap": 0.031, "images_per_second": 1234.5}
RESULT = make_result(best_val_acc=0.51, train_acc=0.541, train_val_gap=0.031)


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a terminal, wherever the tests are run from."""
    for name in NOTEBOOK:
        monkeypatch.delenv(name, raising=False)


def shown(*, terminal: bool, width: int = 120) -> tuple[View, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width)
    progress = Progress(planned=4, fixed=frozenset({"model"}))
    return make_view(console, progress, sweep_id="abc[red]", slots=2), stream


def play(view: View, given: TrialRequest) -> None:
    with view:
        view.trial_started("cpu0", given)
        view.epoch("cpu0", given.trial_id, METRICS)
        view.note("a note [bold]")
        view.trial_ended("cpu0", given.trial_id, TrialOutcome(TrialState.COMPLETE, RESULT))
        view.trial_started("cpu1", request("8"))
        view.trial_ended("cpu1", "8", TrialOutcome(TrialState.FAILED, reason="[/] broke\x1b[31m"))


def test_a_pipe_gets_plain_lines() -> None:
    view, stream = shown(terminal=False)
    assert isinstance(view, PlainView)
    play(view, request("7"))
    text = stream.getvalue()
    assert "cpu0: trial 7: epoch 2/3 val_acc 50.0% gap +3.1 1,234 images/s" in text
    assert "trial 7 complete: best_val_acc 51.0% at epoch 1, gap +3.1, balanced" in text
    assert "a note [bold]" in text
    assert "model=" not in text
    assert "data=tiny" in text
    assert text.rstrip().splitlines()[-1].startswith("2/4 trials | best 51.0% (gap +3.1) in trial 7")


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_terminal_gets_a_live_table_of_any_width(width: int) -> None:
    view, stream = shown(terminal=True, width=width)
    assert isinstance(view, LiveView)
    play(view, request("7"))
    assert "balanced" in stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_terminal_escapes_in_a_reason_are_removed(terminal: bool) -> None:
    view, stream = shown(terminal=terminal)
    play(view, request("7"))
    assert "broke" in stream.getvalue()
    assert "broke\x1b[31m" not in stream.getvalue()


@pytest.mark.parametrize("mark", NOTEBOOK)
def test_a_notebook_gets_plain_lines_though_it_gives_a_terminal(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mark, "1")
    view, stream = shown(terminal=True)
    assert isinstance(view, PlainView)
    play(view, request("7"))
    assert "\x1b[2K" not in stream.getvalue() and "\x1b[1A" not in stream.getvalue()


def test_epochs_are_shown_every_five_seconds_at_most() -> None:
    view, stream = shown(terminal=False)
    assert isinstance(view, PlainView)
    now = 0.0
    view.clock = lambda: now
    for slot in ("cpu0", "cpu1"):
        view.trial_started(slot, request(slot))
    for number in range(1, 1001):
        now += 0.01
        for slot in ("cpu0", "cpu1"):
            view.epoch(slot, slot, {**METRICS, "epoch": number})
    assert stream.getvalue().count("cpu0: trial cpu0: epoch") == 10 // EPOCH_LINES_S
    view.trial_ended("cpu0", "cpu0", TrialOutcome(TrialState.COMPLETE, RESULT))
    assert stream.getvalue().splitlines()[-1].startswith("1/4 trials | best 51.0%")


def test_time_left_needs_a_pace_and_an_end() -> None:
    progress = Progress(planned=None)
    assert progress.time_left(1) == ""
    progress = Progress(planned=2)
    progress.start("cpu0", request("0"))
    assert progress.time_left(1) == ""
    progress.end("cpu0", "0", TrialOutcome(TrialState.COMPLETE, RESULT))
    assert progress.time_left(1) == "0:00:00"


def test_a_preempted_trial_has_not_ended() -> None:
    progress = Progress(planned=2)
    progress.start("cpu0", request("0"))
    progress.end("cpu0", "0", TrialOutcome(TrialState.PREEMPTED))
    assert progress.ended == 0
