"""How certain a choice is, in lines of text for every report: caveats, further seeds, openings of the test split."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fer_sweep.openings import Opening, how_often
from fer_sweep.reports.shown import plain
from fer_sweep.reports.sources import Report

_LONGEST = 600
"""Characters of a line."""


@dataclass(frozen=True)
class Part:
    """Some lines under a heading."""

    heading: str
    lines: tuple[str, ...]
    """Without markup; what they say from outside is one line each, without control characters."""


def certainty(report: Report) -> list[Part]:
    """What a report says of how far its winner can be trusted; a part that has nothing to say is left out."""
    parts = [
        Part("What to be careful about", _lines([caveat.message for caveat in report.choice.caveats])),
        Part("Further seeds", _lines(_seeds(report))),
        Part("Test split", _lines(_openings(report.openings))),
    ]
    return [part for part in parts if part.lines]


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{plain(text, _LONGEST)}." for text in texts)


def _seeds(report: Report) -> list[str]:
    winner = report.selection.winner
    found = []
    for confirmed in report.choice.confirmed:
        role = "The winner, trial" if winner is not None and confirmed.name == winner.name else "Trial"
        line = f"{role} {confirmed.name}: {confirmed.summary}"
        if confirmed.optimism is not None:
            line += (
                f"; when chosen it had {100 * confirmed.searched.best_val_acc:.2f} %, {100 * confirmed.optimism:+.2f} "
                "points against the mean"
            )
        found.append(line)
    if winner is not None and report.choice.winner_confirmed is None:
        found.append(
            f"The winner was not confirmed: fersweep confirm {winner.sweep} --trial {winner.record.trial_id} trains it "
            "with further seeds. Until then its accuracy, as the best of many, is too high on average"
        )
    return found


def _openings(openings: Sequence[Opening]) -> list[str]:
    if not openings:
        return [f"It was {how_often(0)}"]
    by_split: dict[str, list[Opening]] = {}
    for opening in openings:
        by_split.setdefault(opening.test_fingerprint, []).append(opening)
    found = []
    for looks in by_split.values():
        names = ", ".join(sorted({opening.data for opening in looks}))
        found.append(f"The test split of {names} was {how_often(len(looks))}")
        found += [f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(o.opened))}: {o.words}" for o in looks]
    return found
