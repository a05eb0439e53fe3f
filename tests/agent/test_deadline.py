"""An agent that has to end in time: what it starts and stops, by a clock that the test moves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fer_sweep.agent.deadline import Deadline, end_of
from fer_sweep.agent.interrupts import Interrupts
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.records import TrialOutcome, TrialRecord, TrialRequest, TrialState
from tests.cli.conftest import write_sweep
from tests.support.agent_stage import Stage, View
from tests.support.records import make_result
from tests.support.scripted_search import ENDLESS, ScriptedSearch, request
from tests.support.scripted_starter import PlayedTrial, Script, ScriptedStarter, train_then_wait
from tests.support.shell import Shell

NOW = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def within(hours: float, clock: Clock) -> Interrupts:
    return Interrupts(deadline=Deadline(NOW + timedelta(hours=hours), clock=clock))


def taking(seconds: float, clock: Clock) -> Script:
    """A script whose trials take so long by the clock."""

    def script(trial: PlayedTrial) -> TrialOutcome:
        trial.begin()
        clock.now += seconds
        return TrialOutcome(TrialState.COMPLETE, make_result(epochs=trial.job.config.epochs, seconds=seconds))

    return script


def test_what_cannot_finish_is_requeued_and_the_agent_ends(stage: Stage, clock: Clock) -> None:
    stage.starter = ScriptedStarter(taking(1500, clock))
    search = ScriptedSearch([request(str(number), seed=number) for number in range(9)])
    summary = stage.run(search, interrupts=within(1, clock))
    assert (summary.ended, summary.timed_out, summary.interrupted) == ({TrialState.COMPLETE: 2}, True, False)
    (returned,) = search.outcomes["2"]
    assert returned.state is TrialState.PREEMPTED and "could not finish" in (returned.reason or "")
    assert len(stage.starter.trials) == 2


def test_running_trials_are_checkpointed_before_the_deadline_and_killed_at_it(stage: Stage, clock: Clock) -> None:
    at_epoch = {"0": 3570.0, "1": 3600.0}  # the notice; the end, for one that does not stop
    stage.view = View(at_epoch=lambda trial_id, epoch: setattr(clock, "now", NOW.timestamp() + at_epoch[trial_id]))

    def script(trial: PlayedTrial) -> TrialOutcome:
        if trial.trial_id == "0":
            return train_then_wait(1)(trial)
        trial.begin()
        assert trial.wait_for_stop()
        trial.train()
        trial.wait_for_stop()
        raise AssertionError("it was killed")

    stage.starter = ScriptedStarter(script)
    search = ScriptedSearch([request("0", **ENDLESS), request("1", **ENDLESS)])
    summary = stage.run(search, slots=2, interrupts=within(1, clock))
    assert (summary.ended, summary.timed_out, summary.interrupted) == ({TrialState.PREEMPTED: 2}, True, False)
    assert [note.partition(": ")[2][:7] for note in stage.view.notes if "the deadline is" in note] == [
        "writing",
        "killing",
    ]


def test_an_agent_that_finishes_before_its_deadline_has_not_timed_out(stage: Stage, clock: Clock) -> None:
    assert not stage.run(ScriptedSearch([request("0")]), interrupts=within(1, clock)).timed_out


@pytest.mark.parametrize(
    ("values", "epoch", "fits"),
    [
        ({"epochs": 30}, 0, True),
        ({"epochs": 60}, 0, False),
        ({"epochs": 60}, 40, True),
        ({"epochs": 60, "batch_size": 64}, 0, True),
        ({"model": "vit", "epochs": 60}, 0, True),
    ],
    ids=["short", "long", "long, resumed", "long, as quick ones", "another architecture"],
)
def test_similar_trials_say_how_long_one_takes(
    values: Mapping[str, object], epoch: int, fits: bool, clock: Clock
) -> None:
    deadline = Deadline(NOW + timedelta(hours=1), clock=clock)
    for seed in range(3):
        for batch_size, seconds in ((16, 100), (64, 10)):
            config = parse_trial({"model": "simple_cnn", "batch_size": batch_size, "seed": seed})
            deadline.learn(config, make_result(epochs=1, seconds=seconds))
    config = parse_trial({"model": "simple_cnn", "batch_size": 16, **values})
    asked = TrialRequest("7", config, {}, attempt=2 if epoch else 1)

    def records() -> Sequence[TrialRecord]:
        return [TrialRecord("7", TrialState.RUNNING, {}, {}, {"epoch": float(epoch)})]

    assert deadline.has_time_for(asked, records) == fits
    assert deadline.is_too_near != fits
    assert deadline.has_time_for(replace(asked, until=epoch + 2), records), "its turn can finish"


@pytest.mark.parametrize(
    ("hours", "deadline", "end"),
    [
        (None, None, None),
        (2.5, None, "2026-03-01T22:30"),
        (None, "21:15Z", "2026-03-01T21:15"),
        (None, "19:59Z", "2026-03-02T19:59"),
        (None, "2026-12-01T08:00Z", "2026-12-01T08:00"),
        (None, "2026-12-01 08:00:00+01:00", "2026-12-01T07:00"),
    ],
)
def test_when_an_agent_has_to_end(hours: float | None, deadline: str | None, end: str | None) -> None:
    found = end_of(hours, deadline, now=NOW)
    assert (found and f"{found.astimezone(UTC):%Y-%m-%dT%H:%M}") == end


@pytest.mark.parametrize(("hours", "deadline"), [(None, "8"), (None, "2026-12-01"), (None, "25:00"), (1.0, "21:00")])
def test_an_end_that_is_not_clear_is_refused(hours: float | None, deadline: str) -> None:
    with pytest.raises(InputError):
        end_of(hours, deadline, now=NOW)


def test_a_deadline_that_has_passed_leaves_nothing_to_do(clock: Clock) -> None:
    with pytest.raises(NothingToDo, match="has passed"):
        Deadline(NOW, clock=clock)


@pytest.mark.usefixtures("tiny_data")
def test_a_run_that_times_out_says_what_is_left_and_how_to_continue(
    shell: Shell, played_trials: ScriptedStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [3600.0]
    monkeypatch.setattr(Deadline, "left_s", property(lambda self: left[0]))

    def script(trial: PlayedTrial) -> TrialOutcome:
        if trial.trial_id == unfinished:
            left[0] = 1.0
            return train_then_wait(1)(trial)
        return taking(1.0, Clock())(trial)

    played_trials.script = script
    for unfinished, says in (
        ("2", "2 trials left: about 2 s on 1 slot"),
        ("0", "no trial is complete, so give it more time; 4 trials"),
    ):
        left[0] = 3600.0
        code, out, err = shell("run", write_sweep(trials=4), "--slots", "1", "--hours", "1")
        assert (code, "best_val_acc" in out) == (0, unfinished == "2")
        (line,) = [line for line in err.splitlines() if "the deadline has come" in line]
        assert says in line and "resume: fersweep agent " in line


def test_a_deadline_is_checked_before_a_sweep_is_created(shell: Shell) -> None:
    for deadline, code in (("8", 2), ("2020-01-01T08:00", 3)):
        assert shell("run", write_sweep(), "--deadline", deadline)[0] == code
    assert shell("status")[0] == 3
