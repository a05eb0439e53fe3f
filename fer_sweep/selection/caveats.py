"""Warnings about a choice: ranges that end too early, differences that may be chance, pruned trials."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fer_sweep.config.space import Space
from fer_sweep.records import TrialState
from fer_sweep.selection.choice import Candidate, Selection
from fer_sweep.selection.edges import edges
from fer_sweep.selection.intervals import MOST_SEEDS, chance_difference, images_needed, seeds_needed


@dataclass(frozen=True)
class Caveat:
    """One warning about a choice."""

    kind: Literal["edge", "noise", "pruned"]
    """``edge``: a best value at the end of its range. ``noise``: trials whose difference may be chance.
    ``pruned``: the most accurate sound trial was pruned."""
    message: str
    """What it is, and what to do about it."""


def caveats(
    overall: Selection, by_model: Mapping[str, Selection], spaces: Mapping[str, Space] | None = None
) -> tuple[Caveat, ...]:
    """Every warning about a choice.

    Args:
        overall: The choice among all trials.
        by_model: The choice among the trials of each architecture.
        spaces: The search space by sweep; without it, the edges of its ranges are not checked.
    """
    found = [*_pruned(overall), *_within_the_ranking(overall), *_between(overall, by_model)]
    return (*found, *_edges(by_model, spaces or {}))


def _pruned(overall: Selection) -> Iterator[Caveat]:
    first = next((candidate for candidate in overall.ranking if candidate.is_sound), None)
    if overall.winner is None or first is None or first.record.state is not TrialState.PRUNED:
        return
    at = f"trial {first.name} has the best accuracy though it was stopped after epoch {first.result.epochs}"
    if first in overall.eligible:
        yield Caveat("pruned", f"{at}, and no complete trial can win: the winner is provisional")
    else:
        yield Caveat(
            "pruned",
            f"{at}: its schedule was cut short, so it cannot win; fersweep confirm {first.sweep} "
            f"--trial {first.record.trial_id} shows its full accuracy",
        )


def _within_the_ranking(overall: Selection) -> Iterator[Caveat]:
    if len(overall.eligible) < 2:
        return
    best, *others = overall.eligible
    alike = [other for other in others if _is_chance(best, other)]
    if alike:
        count = f"{len(alike)} of the {len(others)} other trials" if len(others) > 1 else "the other trial"
        yield Caveat(
            "noise",
            f"{best.images:,} images cannot tell {count} from the best; the best two, {_both(best, others[0])}",
        )


def _between(overall: Selection, by_model: Mapping[str, Selection]) -> Iterator[Caveat]:
    first = overall.winner
    for model, selection in by_model.items():
        second = selection.winner
        if first is None or second is None or model == first.model or not _is_chance(first, second):
            continue
        yield Caveat("noise", f"{first.model} and {model} cannot be told apart: their winners, {_both(first, second)}")


def _edges(by_model: Mapping[str, Selection], spaces: Mapping[str, Space]) -> Iterator[Caveat]:
    for selection in by_model.values():
        winner = selection.winner
        if winner is None or winner.sweep not in spaces:
            continue
        parameters, values = spaces[winner.sweep].parameters, winner.record.parameters
        for edge in edges(parameters, values, winner.record.config):
            distribution = parameters[edge.name]
            near = [c for c in selection.near if c is not winner and c.sweep == winner.sweep]
            there = sum(edge.holds(distribution, c.record.parameters.get(edge.name)) for c in near)
            yield Caveat(
                "edge",
                f"{edge.name} {_short(values[edge.name])} of trial {winner.name} is at the {edge.side} end of its "
                f"range ({_short(edge.low)} to {_short(edge.high)}){_company(there, near)}; "
                "a better value may lie beyond: widen the range",
            )


def _company(there: int, near: Sequence[Candidate]) -> str:
    if not near:
        return ""
    if len(near) == 1:
        return f", {'like' if there else 'unlike'} the other trial within one standard error"
    return f", like {there or 'none'} of the {len(near)} other trials within one standard error"


def _is_chance(first: Candidate, second: Candidate) -> bool:
    p, q = first.result.best_val_acc, second.result.best_val_acc
    return abs(p - q) <= chance_difference(p, first.images, q, second.images)


def _both(first: Candidate, second: Candidate) -> str:
    """How far apart two trials are, how much of that may be chance, and what it takes to tell them apart."""
    p, q = first.result.best_val_acc, second.result.best_val_acc
    chance = 100 * chance_difference(p, first.images, q, second.images)
    apart = (
        f"{first.name} ({100 * p:.2f} %) and {second.name} ({100 * q:.2f} %), differ by {100 * abs(p - q):.2f} points"
    )
    images, seeds = images_needed(p, q), seeds_needed(p, q, min(first.images, second.images))
    if images is None:
        return f"{apart}"
    by_seeds = f"about {seeds} seeds each on these (fersweep confirm)" if seeds else f"over {MOST_SEEDS:,} seeds each"
    return (
        f"{apart}, and chance explains up to {chance:.2f}: "
        f"it takes about {_rounded(images)} validation images, or {by_seeds}, to tell them apart"
    )


def _rounded(count: int) -> str:
    digits = len(str(count))
    return f"{round(count, 2 - digits) if digits > 2 else count:,}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
