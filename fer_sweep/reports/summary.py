"""What every report begins with: the answer, a row for each architecture, and how certain the choice is. Pure.

HTML, Markdown and the report on a W&B server show the same words.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fer_sweep.config.trial import SYNTHETIC
from fer_sweep.formatting import percent, plain, points
from fer_sweep.openings import Opening, how_often
from fer_sweep.reports.sources import Report
from fer_sweep.selection import Candidate, Mean, wilson
from fer_sweep.verdicts import explain

BY_ARCHITECTURE = (
    "architecture",
    "winner",
    "accuracy",
    "clean",
    "gap, points",
    "verdict",
    "confirmed",
    "95 % interval",
    "parameters",
    "epochs",
    "minutes",
    "test",
)
"""Columns of ``architectures``; accuracy is best_val_acc, clean is that on images with no copy in training."""
NOT_YET = "not yet"
"""Confirmed or tested."""


@dataclass(frozen=True)
class Architecture:
    """The winner of an architecture, in a row of the table."""

    model: str
    winner: Candidate | None
    is_overall: bool
    """Whether it is the winner of all."""
    cells: tuple[str, ...]
    """In the order of BY_ARCHITECTURE; without a winner the reason stands in place of its numbers."""


def answer(report: Report) -> dict[str, str]:
    """The answer in words, by what it tells: winner, accuracy, verdict, confirmation, test split, data set."""
    winner = report.selection.winner
    if winner is None:
        return {"Winner": f"none: {report.named(report.selection.reason)}"}
    result, data = winner.result, plain(winner.data, 60) or "unknown"
    if winner.data != SYNTHETIC or winner.fingerprint:  # that of drawn faces follows from fersweep's version
        data += f", fingerprint {winner.fingerprint[:12] or 'not recorded'}"
    return {
        "Winner": f"{plain(winner.model, 40)}, {_trial(report, winner)}",
        "Best validation accuracy": (
            f"{percent(result.best_val_acc)}; {percent(result.val_acc_clean)} on images with no copy in training"
        ),
        "Train-val gap": f"{points(result.train_val_gap)} points",
        "Verdict": f"{result.verdict}: {explain(result)}",
        "Confirmed": _confirmed(report, winner),
        "Test split": _tested(report, winner),
        "Data set": data,
        "Parameters": f"{result.parameters:,}",
        "Why": report.named(plain(report.selection.reason, 600)),
    }


def architectures(report: Report) -> list[Architecture]:
    """The winner of each architecture, best accuracy first; empty if there is one sweep with one architecture."""
    by_model, overall = report.choice.by_model, report.selection.winner
    if len(report.sweeps) < 2 and len(by_model) < 2:
        return []
    found = []
    for model, selection in by_model.items():
        winner = selection.winner
        if winner is None:
            cells = (plain(model, 40), "", *[""] * 3, report.named(plain(selection.reason, 200)), *[""] * 6)
            found.append(Architecture(model, None, False, cells))
            continue
        result, mean = winner.result, mean_of(report, winner)
        cells = (
            plain(model, 40),
            report.label(winner.name),
            percent(result.best_val_acc),
            percent(result.val_acc_clean),
            points(result.train_val_gap),
            str(result.verdict),
            percent(mean.mean) if mean else NOT_YET,
            interval(mean),
            f"{result.parameters:,}",
            str(result.epochs),
            f"{result.seconds / 60:.1f}",
            ", ".join(percent(opening.accuracy) for opening in tests_of(report, winner)) or NOT_YET,
        )
        found.append(Architecture(model, winner, overall is not None and winner.name == overall.name, cells))
    return sorted(found, key=lambda row: -row.winner.result.best_val_acc if row.winner else 1.0)


def mean_of(report: Report, candidate: Candidate) -> Mean | None:
    """The mean accuracy over a trial's further seeds; None without any."""
    return next((found.accuracy for found in report.choice.confirmed if found.name == candidate.name), None)


def tests_of(report: Report, candidate: Candidate) -> list[Opening]:
    """The openings of a test split for a trial, earliest first."""
    return [opening for opening in report.openings if opening.model == candidate.name]


def interval(mean: Mean | None) -> str:
    """The ends of a mean's interval; empty with fewer than two seeds."""
    if mean is None or mean.low is None or mean.high is None:
        return ""
    return f"{100 * mean.low:.2f} to {percent(mean.high)}"


def certainty(report: Report, *, most: int | None = None) -> dict[str, list[str]]:
    """How far the winner can be trusted: lines of plain text under headings.

    Args:
        report: What is shown.
        most: Caveats to give, the gravest; a last line says where the others are. None for all.
    """
    warnings = [caveat.message for caveat in report.choice.caveats]
    if most is not None and (hidden := len(warnings[most:])):
        ids = " ".join(sweep.id for sweep in report.sweeps)
        warnings[most:] = [f"{hidden} more: fersweep best {ids} --all"]
    parts = {
        "Caveats": warnings,
        "Further seeds": _seeds(report),
        "Test split": _openings(report.openings),
        "Further training": _further(report),
    }
    return {heading: [_sentence(report, line) for line in lines] for heading, lines in parts.items() if lines}


def _sentence(report: Report, line: str) -> str:
    said = plain(report.named(line), 600)
    return f"{said[:1].upper()}{said[1:]}."


def _trial(report: Report, candidate: Candidate) -> str:
    label, id = report.label(candidate.name), plain(candidate.sweep, 20)
    return f"{label} of sweep {id}" if len(report.sweeps) == 1 else f"trial {label} (sweep {id})"


def _confirmed(report: Report, winner: Candidate) -> str:
    confirmed = report.choice.winner_confirmed
    if confirmed is None or confirmed.accuracy is None:
        return f"not yet: fersweep confirm {winner.sweep} --trial {winner.record.trial_id}"
    return confirmed.summary


def _tested(report: Report, winner: Candidate) -> str:
    shown = []
    for opening in tests_of(report, winner):
        low, high = wilson(opening.right, opening.images)
        averaging = f", {plain(opening.averaging, 20)}" if opening.is_averaged else ""
        shown.append(f"{percent(opening.accuracy)} (95 % interval {100 * low:.2f} to {percent(high)}{averaging})")
    count = how_often(len(report.openings))
    return f"{', '.join(shown)}; {count}" if shown else count if not report.openings else f"for other models {count}"


def _seeds(report: Report) -> list[str]:
    winner = report.selection.winner
    found = []
    for confirmed in report.choice.confirmed:
        role = "The winner, trial" if winner is not None and confirmed.name == winner.name else "Trial"
        parts = (f"{role} {confirmed.name}: {confirmed.summary}", confirmed.against_search)
        found.append("; ".join(filter(None, parts)))
    if winner is not None and report.choice.winner_confirmed is None:
        found.append(
            f"The winner is not confirmed: fersweep confirm {winner.sweep} --trial {winner.record.trial_id} trains it "
            "with further seeds. Until then its accuracy, as the best of many, is too high on average"
        )
    return found


def _further(report: Report) -> list[str]:
    of = {sweep.id: f"{report.names[sweep.id]}: " if len(report.sweeps) > 1 else "" for sweep in report.sweeps}
    return [f"{of[sweep.id]}{sweep.expectation}" for sweep in report.sweeps if sweep.expectation]


def _openings(openings: Sequence[Opening]) -> list[str]:
    if not openings:
        return [f"It was {how_often(0)}"]
    by_split: dict[str, list[Opening]] = {}
    for opening in openings:
        by_split.setdefault(opening.test_fingerprint, []).append(opening)
    found = []
    for opened in by_split.values():
        names = ", ".join(sorted({opening.data for opening in opened}))
        found.append(f"The test split of {names} was {how_often(len(opened))}")
        found += [f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(o.opened))}: {o.words}" for o in opened]
    return found
