"""The command that trains a winner with further seeds: confirm."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli.agent import with_fixed_end, work
from fer_sweep.cli.options import AgentOptions, Json, SweepIds, Trial
from fer_sweep.cli.printing import note, print_json, print_prose, print_table, print_text, say
from fer_sweep.errors import InputError
from fer_sweep.formatting import percent, points

if TYPE_CHECKING:
    from fer_sweep.selection import Candidate, Comparison, Confirmed
    from fer_sweep.sweeps import Sweep


def confirm(
    sweep: SweepIds = None,
    trial: Trial = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Number of further seeds [default: as many as before, or 5].")
    ] = None,
    create_only: Annotated[
        bool, typer.Option("--create-only", help="Create the sweeps, and leave the training to agents.")
    ] = False,
    *,
    agent: AgentOptions,
    as_json: Json = False,
) -> None:
    """Train the winner with further seeds, for its mean accuracy.

    They are a sweep of their own. The mean is printed with its interval. The seed of the search is left out, because
    its accuracy, as the best of many, is too high on average. Several sweeps are compared seed by seed. The same
    command resumes an interrupted one; a higher --seeds adds seeds.

    Example: fersweep confirm --seeds 5
    """
    agent = with_fixed_end(agent)
    if not create_only:
        agent.check_slots()  # before a sweep is created
    with contextlib.ExitStack() as stack:
        winners, confirmations = _open(sweep, trial, seeds, stack)
        if create_only:
            ids = [found.id for found in confirmations]
            if as_json:
                print_json({"sweeps": ids})
            for sweep_id in ids:
                if not as_json:
                    print_text(sweep_id)
                say(f"next: fersweep agent {sweep_id}; then fersweep confirm {sweep_id} for the mean")
            return
        for (_, candidate), found in zip(winners, confirmations, strict=True):
            if found.state not in ("finished", "cancelled"):
                say(f"sweep {found.id}: trial {candidate.name} with further seeds")
                if work(found, agent, quiet=as_json, resumed_by="the same command").timed_out:
                    break
        _show(winners, confirmations, as_json=as_json)


def _open(
    names: list[str] | None, trial: str | None, seeds: int | None, stack: contextlib.ExitStack
) -> tuple[list[tuple["Sweep", "Candidate"]], list["Sweep"]]:
    """Open the sweeps with the chosen trial of each, and the sweeps that confirm these trials."""
    from fer_sweep.sweeps import last_searched, open_sweep
    from fer_sweep.sweeps.choosing import chosen, open_origin, with_further_seeds

    origins = [open_origin(open_sweep(name)) for name in dict.fromkeys(names or ())] or [(last_searched(), None)]
    for searched, _ in origins:
        stack.enter_context(searched)
    if trial is not None and len(origins) > 1:
        raise InputError(f"--trial {trial} needs one sweep, but {len(origins)} are given", hint="name one sweep")
    winners = [(searched, chosen(searched, trial or confirmed)) for searched, confirmed in origins]
    return winners, [stack.enter_context(with_further_seeds(*winner, seeds)) for winner in winners]


def _show(winners: "Sequence[tuple[Sweep, Candidate]]", confirmations: "Sequence[Sweep]", *, as_json: bool) -> None:
    from fer_sweep.selection import compare, select_confirmed
    from fer_sweep.sweeps.choosing import confirmed, next_steps, seeds_of

    shown = [found for _, candidate in winners if (found := confirmed(candidate)) is not None]
    comparisons = compare(shown)
    if as_json:
        rows = zip(shown, confirmations, strict=True)
        print_json(
            {
                "confirmed": [_confirmed_json(found, sweep.id, seeds_of(sweep)) for found, sweep in rows],
                "comparisons": [_comparison_json(comparison) for comparison in comparisons],
            }
        )
        return
    title = "mean over further seeds with its 95 % t-interval; the seed of the search is left out"
    columns = ("trial", "architecture", "seeds", "mean best_val_acc", "95 % interval", "SD", "clean", "gap")
    print_table(title, (*columns, "in the search"), [_row(found) for found in shown], key="trial")
    for found, sweep in zip(shown, confirmations, strict=True):
        if missing := sorted(set(seeds_of(sweep)) - found.seeds.keys()):
            note(f"no result for seed {', '.join(map(str, missing))}; see fersweep status {sweep.id}")
        _explain(found)
    for _, candidate in winners:
        if earlier := candidate.record.config.get("weights_from"):
            print_prose(
                f"{candidate.name}: every seed starts from the weights of trial {earlier}, so the interval covers "
                "their further epochs only; trainings from scratch would differ by more"
            )
        if teacher := candidate.record.config.get("distill_from"):
            print_prose(
                f"{candidate.name}: every seed learns from the same teacher, {teacher}, so the interval does not cover "
                "how much a teacher with another seed would change"
            )
    for comparison in comparisons:
        print_prose(f"{_difference(comparison)}: {comparison.meaning}")
    if comparisons:
        print_prose(
            "differences are seed by seed on the same validation images (paired t-test); other images may differ"
        )
    candidates = [candidate for _, candidate in winners]
    selection = select_confirmed(candidates, shown)
    best = candidates[0] if len(candidates) == 1 else selection.winner
    if best is None:
        note(f"none of these can be tested: {selection.reason}")
        return
    for step in next_steps(best, next((found for found in shown if found.name == best.name), None)):
        say(f"next: fersweep {step}")


def _row(found: "Confirmed") -> list[object]:
    accuracy, clean, gap = found.accuracy, found.clean, found.gap
    interval = sd = ""
    if accuracy and accuracy.sd is not None and accuracy.low is not None and accuracy.high is not None:
        interval = f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f} %"
        sd = f"{100 * accuracy.sd:.2f}"
    means = [percent(accuracy.mean if accuracy else None), interval, sd]
    means += [percent(clean.mean if clean else None), points(gap.mean if gap else None)]
    return [found.name, found.model, len(found.seeds), *means, percent(found.searched.best_val_acc)]


def _explain(found: "Confirmed") -> None:
    if found.accuracy is None:
        print_prose(f"{found.name}: no further seed has a result yet")
        return
    print_prose(
        f"{found.name}: {found.against_search}; the best of many measurements is too high on average, so expect the "
        "mean"
    )
    print_prose(
        f"{found.name}: the interval covers the seeds on these {found.images:,} images; the choice of images adds a "
        f"standard error of {100 * found.image_error:.2f} points. Each seed selects its best epoch on these images; "
        "only the test split is free of that"
    )
    if found.accuracy.sd is None:
        print_prose(f"{found.name}: one seed gives no interval; use --seeds 5 or more")


def _difference(comparison: "Comparison") -> str:
    mean = comparison.difference
    low, high = (100 * end if end is not None else float("nan") for end in (mean.low, mean.high))
    return (
        f"{comparison.first.name} minus {comparison.second.name}: {100 * mean.mean:+.2f} points "
        f"({100 * mean.level:.3g} % interval {low:+.2f} to {high:+.2f}; p = {comparison.p:.2g}, "
        f"{len(comparison.seeds)} seeds)"
    )


def _confirmed_json(found: "Confirmed", sweep: str, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "trial": found.name,
        "model": found.model,
        "sweep": sweep,
        "seeds": seeds,
        "results": found.seeds,
        "best_val_acc": found.accuracy,
        "val_acc_clean": found.clean,
        "train_val_gap": found.gap,
        "when_chosen": found.searched.best_val_acc,
        "optimism": found.optimism,
        "image_standard_error": found.image_error,
    }


def _comparison_json(comparison: "Comparison") -> dict[str, Any]:
    return {
        "first": comparison.first.name,
        "second": comparison.second.name,
        "seeds": comparison.seeds,
        "difference": comparison.difference,
        "p": comparison.p,
        "decided": comparison.is_decided,
        "meaning": comparison.meaning,
    }
