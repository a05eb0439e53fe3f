"""Warnings about a choice: ranges that end too early, differences that may be chance, pruned trials."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fer_sweep.config.parameters import Categorical, Distribution, IntUniform, LogUniform, Uniform
from fer_sweep.config.space import Space
from fer_sweep.config.trial import flatten, parse_trial
from fer_sweep.config.values import is_number
from fer_sweep.errors import ConfigError
from fer_sweep.formatting import percent, short
from fer_sweep.records import TrialState
from fer_sweep.selection.choice import Candidate, Selection, differing_data
from fer_sweep.selection.confirmation import Confirmed, compare
from fer_sweep.selection.intervals import MOST_SEEDS, chance_difference, images_needed, seeds_needed

NEXT_TO = 0.05
"""Share of a range, on its own scale: a value this close to an end counts as at the end."""
_BEYOND = 0.1
"""Share of a range: how far beyond its end a value is tried, to check whether training accepts it."""

SHOWN = 3
"""So many of the gravest are shown first; more hide what matters."""

Side = Literal["lower", "upper"]


@dataclass(frozen=True)
class Caveat:
    """One warning about a choice."""

    kind: Literal["data", "metric", "pruned", "seeds", "noise", "edge"]
    """``data``: the trials were measured on different data. ``metric``: their sweeps rank by different metrics.
    ``pruned``: the best sound trial was pruned or is paused. ``seeds``: further seeds decide against the winner.
    ``noise``: trials whose difference may be chance. ``edge``: a best value at the end of its range."""
    message: str
    """What it is, and what to do about it."""


def caveats(
    overall: Selection,
    by_model: Mapping[str, Selection],
    spaces: Mapping[str, Space] | None = None,
    confirmed: Sequence[Confirmed] = (),
) -> tuple[Caveat, ...]:
    """Every warning about a choice, the gravest first.

    Args:
        overall: The choice among all trials.
        by_model: The choice among the trials of each architecture.
        spaces: The search space by sweep; without it, the edges of its ranges are not checked.
        confirmed: The trials with further seeds. Where these decide between two trials, chance no longer does.
    """
    found = [*_data(overall), *_pruned(overall)]
    if overall.metric is None and overall.winner is not None:
        found += _against(overall.winner, overall, by_model, confirmed)
    return (*found, *_edges(overall, by_model, spaces or {}))


def _data(overall: Selection) -> Iterator[Caveat]:
    if overall.winner is not None and (names := differing_data(overall.ranking)):
        message = f"these trials were measured on different data ({', '.join(names)}), so their order says little"
        yield Caveat("data", message)


def _pruned(overall: Selection) -> Iterator[Caveat]:
    first = next((candidate for candidate in overall.ranking if candidate.is_sound), None)
    if overall.winner is None or first is None or first.record.state is TrialState.COMPLETE:
        return
    is_paused = first.record.state is TrialState.PAUSED
    merit = "has the best accuracy" if overall.metric is None else f"has the best {overall.metric.name}"
    was_stopped = "is paused" if is_paused else "was stopped"
    message = f"trial {first.name} {merit} though it {was_stopped} after epoch {first.result.epochs}"
    if first in overall.eligible:
        message += ", and no complete trial can win: the winner is provisional"
    elif is_paused:
        message += ": it can win once it is complete, and the search resumes it if that is likely"
    else:
        message += (
            f": its schedule was cut short, so it cannot win; fersweep confirm {first.sweep} "
            f"--trial {first.record.trial_id} shows its full accuracy"
        )
    yield Caveat("pruned", message)


def _against(
    winner: Candidate, overall: Selection, by_model: Mapping[str, Selection], confirmed: Sequence[Confirmed]
) -> Iterator[Caveat]:
    """The winner against other trials: those better over further seeds, and those it leads by chance."""
    decided = set()
    for comparison in compare(confirmed):
        names = [found.name for found in comparison.better_first]
        if comparison.is_decided and winner.name in names:
            decided.update(names)
            if winner.name == names[1]:
                advice = "name it with --trial in test, export or predict to use it"
                yield Caveat("seeds", f"{comparison.meaning}, so the search chose by chance; {advice}")

    def is_chance(other: Candidate) -> bool:
        # On different data no number of images tells two trials apart.
        return other.name not in decided and not differing_data((winner, other)) and _is_chance(winner, other)

    rivals = [found.winner for found in by_model.values() if found.winner and found.winner.model != winner.model]
    rivals = sorted(filter(is_chance, rivals), key=lambda c: -c.result.best_val_acc)
    others = [c for c in overall.eligible if c is not winner]
    alike = [c for c in others if is_chance(c)]
    unnamed = [c for c in alike if c not in rivals]
    if unnamed:
        count = f"{len(alike)} of the {len(others)} other trials" if len(others) > 1 else "the other trial"
        yield Caveat(
            "noise", f"the winner's accuracy and that of {count} may differ by chance: {_both(winner, unnamed[0])}"
        )
    if rivals:
        models = f"{', '.join(c.model for c in rivals)} and {winner.model}"
        yield Caveat(
            "noise", f"the architectures {models} may be equally accurate: the winners {_both(winner, rivals[0])}"
        )


def _edges(overall: Selection, by_model: Mapping[str, Selection], spaces: Mapping[str, Space]) -> Iterator[Caveat]:
    for selection in sorted(by_model.values(), key=lambda found: found.winner != overall.winner):
        winner = selection.winner
        if winner is None or winner.sweep not in spaces:
            continue
        parameters, values = spaces[winner.sweep].parameters, winner.record.parameters
        near = [c for c in selection.near if c is not winner and c.sweep == winner.sweep]
        # Of two architectures the values may be at opposite ends, so it is said whose they are.
        who = f"the winner of {winner.model}" if len(by_model) > 1 else "the winner"
        for name, side in ends_reached(parameters, values, winner.record.config).items():
            low, high = _ends(parameters[name])
            others = [side_of(parameters[name], c.record.parameters.get(name)) for c in near]
            yield Caveat(
                "edge",
                f"{who}, trial {winner.name}, has {name} {short(values[name])}, at the {side} end of its range "
                f"({short(low)} to {short(high)}){_company(others.count(side), len(near))}; "
                "a better value may lie beyond: widen the range",
            )


def _company(there: int, near: int) -> str:
    if near == 0:
        return ""
    if near == 1:
        return f", {'like' if there else 'unlike'} the other trial within one standard error"
    return f", like {there or 'none'} of the {near} other trials within one standard error"


def ends_reached(
    parameters: Mapping[str, Distribution], values: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Side]:
    """The parameters whose value is at an end of its range, where training accepts values beyond that end.

    A dropout of 0, for instance, is no reason to widen a range.

    Args:
        parameters: The sweep's space, by dotted name.
        values: The trial's values, by dotted name.
        config: Its whole configuration.
    """
    # The order of seeds has no meaning.
    sides = {name: side_of(found, values.get(name)) for name, found in parameters.items() if name != "seed"}
    flat = flatten(config)
    return {name: side for name, side in sides.items() if side and _accepts_beyond(parameters[name], side, name, flat)}


def side_of(distribution: Distribution, value: Any) -> Side | None:
    """The end that a value is at or near; None for a value inside, or a range without two ends.

    In a list, the smallest and the largest number are the ends. A log-uniform range is measured in logarithms.

    >>> [side_of(LogUniform(min=1e-4, max=1e-2), value) for value in (1.1e-4, 1e-3)]
    ['lower', None]
    >>> side_of(Categorical(values=[64, 128, 256]), 256)
    'upper'
    """
    low, high = _ends(distribution)
    if not is_number(value) or not low < high:
        return None
    if value <= low:
        return "lower"
    if value >= high:
        return "upper"
    if isinstance(distribution, Categorical):
        return None
    if isinstance(distribution, LogUniform) and low > 0:
        share = math.log(value / low) / math.log(high / low)
    else:
        share = (value - low) / (high - low)
    return "lower" if share <= NEXT_TO else "upper" if share >= 1 - NEXT_TO else None


def _ends(distribution: Distribution) -> tuple[float, float]:
    """Smallest and largest value; equal for a single value, for text, and without bounds."""
    match distribution:
        case Categorical(possible=values) if all(map(is_number, values)):
            return min(values), max(values)
        case IntUniform() | Uniform() | LogUniform():
            return distribution.quantile(0.0), distribution.quantile(1.0)
    return 0, 0


def _accepts_beyond(distribution: Distribution, side: Side, name: str, config: Mapping[str, Any]) -> bool:
    for value in _further(distribution, side):
        try:
            parse_trial({**config, name: value})
        except ConfigError:
            continue
        return True
    return False


def _further(distribution: Distribution, side: Side) -> Iterator[float]:
    """Values beyond this end that a wider range could contain."""
    low, high = _ends(distribution)
    end, sign = (high, 1) if side == "upper" else (low, -1)
    if isinstance(distribution, Categorical):
        ordered = sorted(set(distribution.possible), reverse=side == "lower")
        step, factor = end - ordered[-2], end / ordered[-2] if ordered[-2] else 2.0
        candidates = [end + step, end * factor, end * 2.0**sign]
    elif isinstance(distribution, LogUniform) and low > 0:
        candidates = [end * (high / low) ** (sign * _BEYOND)]
    else:
        candidates = [end + sign * _BEYOND * (high - low)]
    whole = isinstance(low, int) and isinstance(high, int)
    for candidate in candidates:
        yield math.ceil(candidate) if whole and sign > 0 else math.floor(candidate) if whole else candidate


def _is_chance(first: Candidate, second: Candidate) -> bool:
    p, q = first.result.best_val_acc, second.result.best_val_acc
    return abs(p - q) <= chance_difference(p, first.images, q, second.images)


def _both(first: Candidate, second: Candidate) -> str:
    """How far apart two trials are, how much of that may be chance, and what it takes to tell them apart."""
    p, q = first.result.best_val_acc, second.result.best_val_acc
    apart = f"{first.name} ({percent(p)}) and {second.name} ({percent(q)}) are {100 * abs(p - q):.2f} points apart"
    images, seeds = images_needed(p, q), seeds_needed(p, q, min(first.images, second.images))
    if images is None:
        return apart
    chance = 100 * chance_difference(p, first.images, q, second.images)
    images = round(images, min(0, 2 - len(str(images))))
    by_seeds = f"about {seeds} seeds each (fersweep confirm)" if seeds else f"over {MOST_SEEDS:,} seeds each"
    return (
        f"{apart}, and chance explains up to {chance:.2f} on {first.images:,} images (95 %); "
        f"{by_seeds} or {images:,} images would tell"
    )
