"""What reports show of sweeps: records, axes, curves, how certain the choice is, how to create them again."""

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from fer_sweep.config.parameters import Categorical, Constant, Distribution, LogNormal, LogUniform
from fer_sweep.config.space import Space
from fer_sweep.openings import Opening, how_often
from fer_sweep.records import TrialRecord
from fer_sweep.reports.shown import Axis, file_name, plain
from fer_sweep.selection import Candidate, Selection
from fer_sweep.sweeps import Sweep
from fer_sweep.sweeps.choosing import Choice, as_candidates, choose, openings_about

CURVES_SHOWN = 8
"""Trials whose curves are drawn; more colours cannot be told apart."""
_LOG_DISTRIBUTIONS = (LogUniform, LogNormal)
_TAIL = 1e-9
_LONGEST_LINE = 600
"""Characters of a line."""

TrialKey = tuple[str, str]
"""Sweep and trial."""
Curve = Sequence[Mapping[str, float]]
"""A trial's metrics by epoch, earliest first."""


@dataclass(frozen=True)
class ReportedSweep:
    """One sweep, as a report shows it."""

    id: str
    name: str
    """From its file; untrusted, may be empty."""
    description: str
    """Likewise."""
    models: tuple[str, ...]
    """The architectures it trains."""
    method: str
    axes: tuple[Axis, ...]
    """Every parameter with more than one value."""
    file: str
    """The sweep file, as YAML."""
    create: str
    """The command that creates it again from that file."""
    records: tuple[TrialRecord, ...]

    @property
    def label(self) -> str:
        """Name and id on one line."""
        name = plain(self.name, 60)
        return f"{name} ({self.id})" if name else self.id


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    sweeps: tuple[ReportedSweep, ...]
    """At least one."""
    choice: Choice
    """What ``fersweep best`` says of these sweeps."""
    curves: Mapping[TrialKey, Curve] = field(default_factory=dict)
    """Of the best trials and of each architecture's best."""
    openings: tuple[Opening, ...] = ()
    """Openings of the test splits of these sweeps."""
    made: float = 0.0
    """Unix time, seconds."""

    @property
    def selection(self) -> Selection:
        """The choice among all trials."""
        return self.choice.overall

    @property
    def trials(self) -> list[tuple[ReportedSweep, TrialRecord]]:
        """Every trial with its sweep, in the order of the sweeps."""
        return [(sweep, record) for sweep in self.sweeps for record in sweep.records]


def gather(opened: Sequence[Sweep]) -> Report:
    """Read everything that a report of these sweeps shows.

    Args:
        opened: At least one.

    Raises:
        StorageError: The database or the record of opened test splits cannot be read.
        ServerError: A W&B server does not answer.
    """
    sweeps = tuple(_reported(sweep) for sweep in opened)
    candidates = [candidate for sweep in sweeps for candidate in as_candidates(sweep.id, sweep.records)]
    choice = choose(opened, candidates)
    selection = choice.overall
    by_id = {sweep.id: sweep for sweep in opened}
    wanted = dict.fromkeys(
        (c.sweep, c.record.trial_id) for c in (*best_trials(selection), *best_of_each_model(selection))
    )
    curves = {(sweep, trial): by_id[sweep].reports(trial) for sweep, trial in wanted}
    curves = {key: curve for key, curve in curves.items() if curve}
    return Report(sweeps, choice, curves, openings_about(candidates), time.time())


def best_trials(selection: Selection) -> list[Candidate]:
    """The CURVES_SHOWN most accurate trials, the winner among them."""
    trained = [c for c in selection.ranking if c.result.best_epoch > 0]
    best = trained[:CURVES_SHOWN]
    if selection.winner is not None and selection.winner not in best:
        best[-1] = selection.winner
    return best


def best_of_each_model(selection: Selection) -> list[Candidate]:
    """The most accurate trial of each architecture, best first."""
    best: dict[str, Candidate] = {}
    for candidate in selection.ranking:
        if candidate.result.best_epoch > 0:
            best.setdefault(str(candidate.record.config.get("model", "")), candidate)
    return list(best.values())[:CURVES_SHOWN]


def models_of(space: Space, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    """The architectures a sweep trains."""
    match space.parameters.get("model"):
        case Constant(value=value):
            return (plain(str(value), 40),)
        case Categorical() as several:
            return tuple(plain(str(value), 40) for value in several.possible)
    return tuple(sorted({str(record.config["model"]) for record in records})) or ("any model",)


def axes_of(space: Space, records: Sequence[TrialRecord]) -> tuple[Axis, ...]:
    """Every parameter of a sweep that has more than one value."""
    if space.parameters:
        return tuple(_axis(name, source) for name, source in space.parameters.items() if source.size != 1)
    # A search space in code is known only from its trials.
    return tuple(Axis(name, log=False) for name in dict.fromkeys(name for r in records for name in r.parameters))


def create_command(sweep: Sweep, file_of: str) -> str:
    """The command that creates a sweep again from its file.

    Args:
        sweep: The sweep.
        file_of: The id in the file's name.
    """
    words = ["fersweep", "create", file_name(file_of), "--search", sweep.entry.search]
    if sweep.entry.max_gap is not None:
        words += ["--max-gap", f"{sweep.entry.max_gap:g}"]
    if sweep.seed:
        words += ["--seed", str(sweep.seed)]
    return shlex.join(words)


def _axis(name: str, source: Distribution) -> Axis:
    if isinstance(source, Categorical):
        return Axis(name, log=False, choices=source.possible)
    low, high = float(source.quantile(_TAIL)), float(source.quantile(1 - _TAIL))
    is_log = isinstance(source, _LOG_DISTRIBUTIONS) and low > 0
    return Axis(name, is_log, bounds=(low, high) if math.isfinite(low) and low < high < math.inf else None)


def _reported(sweep: Sweep) -> ReportedSweep:
    records = tuple(sweep.trials())
    return ReportedSweep(
        id=sweep.id,
        name=sweep.file.name or "",
        description=sweep.file.description or "",
        models=models_of(sweep.space, records),
        method=str(sweep.file.method),
        axes=axes_of(sweep.space, records),
        file=yaml.safe_dump(sweep.file.to_plain(), sort_keys=False),
        create=create_command(sweep, sweep.id),
        records=records,
    )


@dataclass(frozen=True)
class Part:
    """Some lines under a heading."""

    heading: str
    lines: tuple[str, ...]
    """Plain text; untrusted parts are without control characters."""


def certainty(report: Report) -> list[Part]:
    """How far the winner can be trusted: caveats, further seeds, openings of the test split; empty parts left out."""
    parts = [
        Part("Warnings", _lines([caveat.message for caveat in report.choice.caveats])),
        Part("Further seeds", _lines(_seeds(report))),
        Part("Test split", _lines(_openings(report.openings))),
    ]
    return [part for part in parts if part.lines]


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{plain(text, _LONGEST_LINE)}." for text in texts)


def _seeds(report: Report) -> list[str]:
    winner = report.selection.winner
    found = []
    for confirmed in report.choice.confirmed:
        role = "The winner, trial" if winner is not None and confirmed.name == winner.name else "Trial"
        line = f"{role} {confirmed.name}: {confirmed.summary}"
        if confirmed.optimism is not None:
            searched = 100 * confirmed.searched.best_val_acc
            line += f"; in the search it had {searched:.2f} %, {100 * confirmed.optimism:+.2f} points against the mean"
        found.append(line)
    if winner is not None and report.choice.winner_confirmed is None:
        found.append(
            f"The winner is not confirmed: fersweep confirm {winner.sweep} --trial {winner.record.trial_id} trains it "
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
    for opened in by_split.values():
        names = ", ".join(sorted({opening.data for opening in opened}))
        found.append(f"The test split of {names} was {how_often(len(opened))}")
        found += [f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(o.opened))}: {o.words}" for o in opened]
    return found
