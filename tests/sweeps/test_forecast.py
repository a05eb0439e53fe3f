"""How many trials of a sweep are left, and for how long: from records alone."""

from typing import Any

import pytest

from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.sweeps.forecast import forecast
from tests.support.records import make_result


def trial(state: str, **values: Any) -> TrialRecord:
    return TrialRecord("0", TrialState(state), {"epochs": 10}, {}, **values)


COMPLETE = trial("complete", result=make_result(seconds=3600.0))
RUNNING = trial("running", metrics={"epoch": 5.0})
PAUSED = trial("paused", metrics={"epoch": 5.0}, result=make_result(seconds=1800.0))
WAITING, FAILED = trial("preempted", metrics={"epoch": 9.0}), trial("failed", reason="x")


@pytest.mark.parametrize(
    ("records", "planned", "slots", "says"),
    [
        ([], 4, None, "4 trials left"),
        ([FAILED], 4, None, "3 trials left"),
        ([COMPLETE], 4, None, "3 trials left: about 3.0 h on 1 slot"),
        ([COMPLETE, RUNNING, RUNNING], 5, None, "4 trials left: about 1.5 h on 2 slots"),
        ([COMPLETE, FAILED, WAITING], 3, 4, "1 trial left: about 6 min on 4 slots"),
        ([COMPLETE], 1, None, "0 trials left"),
        ([COMPLETE, RUNNING], None, 2, "no limit on trials; about 2 an hour on 2 slots"),
        ([], None, None, "no limit on trials"),
        ([PAUSED, PAUSED], 3, None, "1 trial left, 2 paused: at most 2.0 h on 1 slot"),
        ([COMPLETE, PAUSED], 2, 2, "0 trials left, 1 paused: at most 30 min on 2 slots"),
        ([COMPLETE, PAUSED], None, 2, "no limit on trials"),
    ],
)
def test_a_forecast(records: list[TrialRecord], planned: int | None, slots: int | None, says: str) -> None:
    assert str(forecast(records, planned=planned, slots=slots)) == says
