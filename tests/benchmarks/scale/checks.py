"""Whether a sweep is whole: every trial once, none lost, none doubled, no history with a gap."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from fer_sweep.records import TrialRecord, TrialState

Histories = Mapping[int, Sequence[tuple[int, Mapping[str, float]]]]
"""By trial's number, epochs and what was reported of them, in the order in which they are stored."""
Reported = Callable[[int, int], Mapping[str, float]]
"""From a trial's number and an epoch to its metrics."""


def faults(
    records: Sequence[TrialRecord],
    histories: Histories,
    *,
    trials: int,
    epochs: int,
    finished: Sequence[tuple[str, int]],
    pruned: Collection[str],
    reported: Reported,
) -> list[str]:
    """What is wrong with a sweep that agents have worked through; nothing if it is whole.

    Args:
        records: What the search has of its trials.
        histories: What the database has of their epochs.
        trials: How many the sweep was to have.
        epochs: How many each reported that was not stopped early.
        finished: What the agents say they have finished: trials and attempts.
        pruned: Those of them that were stopped early.
        reported: What was reported of a trial's epoch.
    """
    return [
        *_lost(records, trials, finished, pruned),
        *_doubled(records, finished),
        *_gaps(histories, range(trials), epochs, pruned, reported),
    ]


def _lost(
    records: Sequence[TrialRecord], trials: int, finished: Sequence[tuple[str, int]], pruned: Collection[str]
) -> Iterator[str]:
    by_id = {record.trial_id: record for record in records}
    wanted = {str(number) for number in range(trials)}
    said = {trial for trial, _ in finished}
    yield from (f"trial {trial} is lost: it is not in the sweep" for trial in sorted(wanted - by_id.keys(), key=int))
    yield from (f"trial {trial} is beyond the cap" for trial in sorted(by_id.keys() - wanted))
    for trial, record in by_id.items():
        state = TrialState.PRUNED if trial in pruned else TrialState.COMPLETE
        if record.state is not state:
            yield f"trial {trial} is {record.state}, not {state}"
        if trial not in said:
            yield f"trial {trial} is {record.state}, but no agent has finished it"


def _doubled(records: Sequence[TrialRecord], finished: Sequence[tuple[str, int]]) -> Iterator[str]:
    for trial, times in Counter(trial for trial, _ in finished).items():
        if times > 1:
            yield f"trial {trial} is doubled: {times} agents have finished it"
    for record in records:
        if record.attempt > 1:
            yield f"trial {record.trial_id} is doubled: handed out {record.attempt} times, though no agent has died"
    if len(records) != len({record.trial_id for record in records}):
        yield "a trial is doubled: it stands in the sweep twice"
    first: dict[str, str] = {}
    for record in records:
        other = first.setdefault(json.dumps(record.parameters, sort_keys=True), record.trial_id)
        if other != record.trial_id:
            yield f"trial {record.trial_id} is doubled: it has the configuration of trial {other}"


def _gaps(
    histories: Histories, numbers: Sequence[int], epochs: int, pruned: Collection[str], reported: Reported
) -> Iterator[str]:
    for number in numbers:
        history = histories.get(number, [])
        last = len(history) if str(number) in pruned else epochs
        if [epoch for epoch, _ in history] != list(range(1, last + 1)):
            yield f"trial {number}: epochs {[epoch for epoch, _ in history]}, not 1 to {last}"
        elif any(metrics != reported(number, epoch) for epoch, metrics in history):
            yield f"trial {number}: not what was reported of it"
    yield from (f"trial {number} has a history, and is none" for number in histories.keys() - set(numbers))
