"""The live table and the plain lines: both are given the same events, and what they show is read back."""

import io

import pytest
from rich.console import Console

from fer_sweep.agent.view import EPOCH_LINES_S, NOTEBOOK, View
from fer_sweep.records import TrialOutcome, TrialState
from tests.support.records import make_result
from tests.support.scripted_search import request

METRICS = {"epoch": 2, "val_acc": 0.5, "best_val_acc": 0.51, "train_val_gap": 0.031, "images_per_second": 1234.5}
RESULT = make_result(best_val_acc=0.51, train_acc=0.541, train_val_gap=0.031)


@pytest.fixture(autouse=True)
def _no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NOTEBOOK:
        monkeypatch.delenv(name, raising=False)


def shown(*, terminal: bool, width: int = 120) -> tuple[View, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width)
    return View(console, "abc[red]", slots=2, planned=4, fixed=frozenset({"model"})), stream


def play(view: View) -> None:
    with view:
        view.trial_started("cpu0", request("7"))
        view.epoch("cpu0", "7", METRICS)
        view.note("a note [bold]")
        view.trial_ended("cpu0", "7", TrialOutcome(TrialState.COMPLETE, RESULT))
        view.trial_started("cpu1", request("8"))
        view.trial_ended("cpu1", "8", TrialOutcome(TrialState.FAILED, reason="[/] broke\x1b[31m"))


def test_a_pipe_gets_plain_lines() -> None:
    view, stream = shown(terminal=False)
    play(view)
    text = stream.getvalue()
    assert "cpu0: trial 7: epoch 2/3 val_acc 50.0% gap +3.1 1,234 images/s" in text
    assert "trial 7 complete: best_val_acc 51.0% at epoch 1, gap +3.1, balanced" in text
    assert "a note [bold]" in text
    assert "data=tiny" in text and "model=" not in text, "parameters that vary"
    assert "broke" in text and "\x1b" not in text
    assert text.rstrip().splitlines()[-1].startswith("2/4 trials | best 51.0% (gap +3.1) in trial 7")


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_terminal_gets_a_live_table_of_any_width(width: int) -> None:
    view, stream = shown(terminal=True, width=width)
    play(view)
    assert "\x1b[2K" in stream.getvalue()
    assert "balanced" in stream.getvalue()
    assert "broke" in stream.getvalue() and "broke\x1b[31m" not in stream.getvalue()


@pytest.mark.parametrize("mark", NOTEBOOK)
def test_a_notebook_gets_plain_lines_though_it_gives_a_terminal(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mark, "1")
    view, stream = shown(terminal=True)
    play(view)
    assert "\x1b[2K" not in stream.getvalue() and "\x1b[1A" not in stream.getvalue()


def test_epochs_are_shown_every_five_seconds_at_most() -> None:
    view, stream = shown(terminal=False)
    now = 0.0
    view.clock = lambda: now
    for slot in ("cpu0", "cpu1"):
        view.trial_started(slot, request(slot))
    for number in range(1, 1001):
        now += 0.01
        for slot in ("cpu0", "cpu1"):
            view.epoch(slot, slot, {**METRICS, "epoch": number})
    assert stream.getvalue().count("cpu0: trial cpu0: epoch") == 10 // EPOCH_LINES_S
