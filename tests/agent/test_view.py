"""The live table and the plain lines: both are given the same events, and what they show is read back."""

import io
from dataclasses import replace
from pathlib import Path

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
        view.epoch("cpu0", "7", {**METRICS, "epoch": 1})  # sent again by a resumed trial
        view.progress("cpu0", 0.0)
        view.epoch("cpu0", "7", METRICS)
        view.note("a note [bold]")
        view.trial_ended("cpu0", "7", TrialOutcome(TrialState.COMPLETE, RESULT))
        view.trial_started("cpu1", request("8"))
        view.trial_ended("cpu1", "8", TrialOutcome(TrialState.PREEMPTED, reason="preempted in epoch 1 of 3"))
        view.trial_started("cpu1", request("8"))
        view.trial_ended("cpu1", "8", TrialOutcome(TrialState.FAILED, reason="[/] broke\x1b[31m"))


def test_a_pipe_gets_plain_lines() -> None:
    view, stream = shown(terminal=False)
    play(view)
    text = stream.getvalue()
    assert "epoch 1/3 val" not in text and "cpu0: trial 7: resumed after epoch 1/3" in text
    assert "cpu0: trial 7: epoch 2/3 val_acc 50.0% gap +3.1 1,234 images/s" in text
    assert "trial 7 complete: best_val_acc 51.0% at epoch 1, gap +3.1, balanced" in text
    assert "a note [bold]" in text
    assert "trial 8 preempted (in epoch 1 of 3)" in text
    assert "data=tiny" in text and "model=" not in text, "parameters that vary"
    assert "broke" in text and "\x1b" not in text
    assert text.rstrip().splitlines()[-1].startswith("2/4 trials | best 51.0% (gap +3.1) in trial 7")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_trial_in_turns_shows_its_turn_and_the_headline_what_is_paused(terminal: bool) -> None:
    view, stream = shown(terminal=terminal)
    view.paused = {"6"}
    turn = replace(request("7"), attempt=2, until=2)
    with view:
        view.trial_started("cpu0", turn)
        view.progress("cpu0", 0.0)
        view.epoch("cpu0", "7", METRICS)
        if terminal:
            view.console.print(view.draw())
        view.trial_ended("cpu0", "7", TrialOutcome(TrialState.PAUSED, RESULT, "paused in epoch 3 of 3"))
        if terminal:
            view.console.print(view.draw())
        view.trial_started("cpu0", replace(request("6"), attempt=3, until=3))
    text = stream.getvalue()
    if terminal:
        assert "7, turn 2" in text and "\x1b[36mtrial 7 paused" in text, "in cyan"
    else:
        assert "trial 7 (turn 2, until epoch 2): " in text
        assert "trial 7: turn 2, epoch 2/3 val_acc" in text
        assert "cpu0: trial 7 paused: best_val_acc 51.0% at epoch 1, gap +3.1, balanced (in epoch 3 of 3)" in text
    assert "0/4 trials, 2 paused" in text
    assert view.paused == {"7"}
    assert terminal or " left" not in text, "most trials do not get all of their epochs"


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
        view.progress(slot, 0.0)
    for number in range(1, 1001):
        now += 0.01
        for slot in ("cpu0", "cpu1"):
            view.epoch(slot, slot, {**METRICS, "epoch": number})
    assert stream.getvalue().count("cpu0: trial cpu0: epoch") == 10 // EPOCH_LINES_S


def busy_view(width: int, color: str | None = None) -> View:
    """An agent with a share of a GPU, whole ones and a drained slot, an hour after its start."""
    now = 0.0
    view, _ = shown(terminal=True, width=width)
    view.console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=color)
    view.clock, view.planned, view.deadline = lambda: now, 40, "2026-11-30 18:30"
    view.compare("w9x8y7z6", make_result(best_val_acc=0.512, best_epoch=12, train_val_gap=0.131, verdict="overfit"))
    view.compare("c0llapse", make_result(best_val_acc=0.9, verdict="collapsed"))
    for slot, trial in (("gpu0:1/1", "a1b2c3d4"), ("gpu1", "b1b2c3d4"), ("gpu2", "c1b2c3d4")):
        view.trial_started(slot, request(trial, epochs=60))
    for slot in ("gpu0:1/1", "gpu1"):
        view.progress(slot, 0.0)
    now = 3600.0
    view.epoch("gpu0:1/1", "a1b2c3d4", {**METRICS, "epoch": 12, "images_per_second": 123456.7})
    view.progress("gpu0:1/1", 0.45)
    view.progress("gpu1", 0.37)
    view.drained = ("cpu0",)
    return view


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_live_view_breaks_no_word(width: int) -> None:
    view = busy_view(width)
    view.console.print(view.draw())
    lines = view.console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert "…" not in text or width == 100, "the parameters may be cut"
    whole = [
        "gpu0:1/1  a1b2c3d4  13/60  45%    50.0%  51.0%  +3.1   123,457  3.8 h",
        "gpu1      b1b2c3d4   1/60  37%                                  6.7 d",
        "gpu2      c1b2c3d4      starts",
        "cpu0      drained",
        "leader: trial w9x8y7z6, best_val_acc 51.2% at epoch 12, gap +13.1, overfit",
        "0/40 trials | 123,457 images/s | ",
        " left | ends 2026-11-30 18:30",
    ]
    assert [line for line in whole if line not in text] == []
    assert ("parameters" in text) == (width > 80)


def test_a_collapsed_trial_is_not_shown_as_a_success() -> None:
    view = busy_view(80, "standard")
    for verdict in ("balanced", "collapsed"):
        result = make_result(best_val_acc=0.4, verdict=verdict)
        view.trial_started("cpu1", request("7"))
        view.trial_ended("cpu1", "7", TrialOutcome(TrialState.COMPLETE, result))
    balanced, collapsed = [line for line in view.console.file.getvalue().splitlines() if "trial 7 complete" in line]
    assert "\x1b[32m" in balanced and "\x1b[32m" not in collapsed and "\x1b[1;31m" in collapsed


def test_training_goes_on_while_its_log_cannot_be_written(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        view, _ = shown(terminal=False)
        view.console = Console(file=full)
        play(view)
        full.flush()  # as before every start of a process
