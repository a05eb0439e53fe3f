"""The command that trains a winner again: confirm."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.printing import mean_json, percent, points, print_json, print_table, print_text, say
from fer_sweep.cli.working import Gpus, HangAfter, MirrorFolder, OnOomWord, PerGpu, Slots, UploadModels, work
from fer_sweep.errors import InputError

if TYPE_CHECKING:
    from fer_sweep.selection import Candidate, Comparison, Confirmed, Mean
    from fer_sweep.sweeps import Sweep


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(confirm)


def confirm(
    sweep: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sweeps whose winners to confirm; the last one searched if left out.",
            autocompletion=completing.sweep_ids,
        ),
    ] = None,
    trial: Annotated[str | None, typer.Option(help="This trial in the winner's place; for one sweep.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Further seeds to train each with [default: those asked for before, or 5].",
            show_default=False,
        ),
    ] = None,
    create_only: Annotated[
        bool, typer.Option("--create-only", help="Make the sweeps and leave the training to agents.")
    ] = False,
    gpus: Gpus = "auto",
    per_gpu: PerGpu = "1",
    slots: Slots = None,
    upload_models: UploadModels = False,
    on_oom: OnOomWord = "fail",
    hang_after: HangAfter = None,
    mirror: MirrorFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train the winner with further seeds, as a sweep of its own, and give the mean with its interval.

    The searched seed is left out: its accuracy was the best of many and is too high on average. Several sweeps are
    compared seed by seed. The same command goes on with what is there; more --seeds add to it.

    Example: fersweep confirm --seeds 5
    """
    care: dict[str, Any] = {
        "upload_models": upload_models,
        "on_oom": on_oom,
        "hang_after": hang_after,
        "mirror": mirror,
    }
    with contextlib.ExitStack() as stack:
        winners, confirmations = _open(sweep, trial, seeds, stack)
        if create_only:
            _print_ids(confirmations, as_json=as_json)
            return
        for (_, candidate), found in zip(winners, confirmations, strict=True):
            if found.state not in ("finished", "cancelled"):
                say(f"sweep {found.id}: trial {candidate.name} with further seeds")
                if work(found, gpus, per_gpu, slots, None, **care, as_json=False, quiet=as_json):
                    say("next: the same command resumes it")
                    raise typer.Exit(130)
        _show(winners, confirmations, as_json=as_json)


_Winners = list[tuple["Sweep", "Candidate"]]


def _open(
    names: list[str] | None, trial: str | None, seeds: int | None, stack: contextlib.ExitStack
) -> tuple[_Winners, "list[Sweep]"]:
    """The sweeps to confirm with the chosen trial of each, and the sweeps that confirm them."""
    from fer_sweep.sweeps import last_searched, open_sweep
    from fer_sweep.sweeps.choosing import chosen, with_further_seeds
    from fer_sweep.sweeps.confirmations import open_origin

    origins = [open_origin(open_sweep(name)) for name in dict.fromkeys(names or ())] or [(last_searched(), None)]
    for searched, _ in origins:
        stack.enter_context(searched)
    if trial is not None and len(origins) > 1:
        raise InputError(f"--trial {trial} is of one sweep, and there are {len(origins)}", hint="name one sweep")
    winners = [(searched, chosen(searched, trial or confirmed)) for searched, confirmed in origins]
    return winners, [stack.enter_context(with_further_seeds(*winner, seeds)) for winner in winners]


def _print_ids(confirmations: "Sequence[Sweep]", *, as_json: bool) -> None:
    if as_json:
        print_json({"sweeps": [found.id for found in confirmations]})
    for found in confirmations:
        if not as_json:
            print_text(found.id)
        say(f"next: fersweep agent {found.id}; then fersweep confirm {found.id} gives the mean")


def _show(winners: _Winners, confirmations: "Sequence[Sweep]", *, as_json: bool) -> None:
    from fer_sweep.selection import compare, select_confirmed
    from fer_sweep.sweeps.choosing import confirmed
    from fer_sweep.sweeps.confirmations import seeds_of

    shown = [found for sweep, candidate in winners if (found := confirmed(sweep, candidate)) is not None]
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
    title = "mean over further seeds with its 95 % t-interval; the seed that the search chose is left out"
    print_table(title, _COLUMNS, [_row(found) for found in shown])
    for found, sweep in zip(shown, confirmations, strict=True):
        missing = sorted(set(seeds_of(sweep)) - found.seeds.keys())
        if missing:
            say(f"note: {sweep.id} has no result for seed {', '.join(map(str, missing))}: fersweep status {sweep.id}")
        for line in _words(found):
            print_text(line)
    for comparison in comparisons:
        print_text(f"{_difference(comparison)}: {comparison.meaning}")
    if comparisons:
        print_text(
            "differences are seed by seed on the same validation images (paired t-test); with others of them it could "
            "come out differently"
        )
    candidates = [candidate for _, candidate in winners]
    selection = select_confirmed(candidates, shown)
    best = candidates[0] if len(candidates) == 1 else selection.winner
    if best is None:
        say(f"note: none of these is the one to test: {selection.reason}")
        return
    say(f"next: fersweep test {best.sweep} --trial {best.record.trial_id} opens the test split, once")


_COLUMNS = {
    "trial": "left",
    "architecture": "left",
    "seeds": "right",
    "mean best_val_acc": "right",
    "95 % interval": "right",
    "SD": "right",
    "clean": "right",
    "gap": "right",
    "when chosen": "right",
}


def _row(found: "Confirmed") -> list[object]:
    accuracy, clean, gap = found.accuracy, found.clean, found.gap
    return [
        found.name,
        found.model,
        len(found.seeds),
        percent(accuracy.mean if accuracy else None),
        _interval(accuracy),
        f"{100 * accuracy.sd:.2f}" if accuracy and accuracy.sd is not None else "",
        percent(clean.mean if clean else None),
        points(gap.mean if gap else None),
        percent(found.searched.best_val_acc),
    ]


def _interval(mean: "Mean | None") -> str:
    if mean is None or mean.low is None or mean.high is None:
        return ""
    return f"{100 * mean.low:.2f} to {100 * mean.high:.2f} %"


def _words(found: "Confirmed") -> list[str]:
    if found.accuracy is None or found.optimism is None:
        return [f"{found.name}: no further seed has a result yet"]
    lines = [
        f"{found.name}: when chosen it had {percent(found.searched.best_val_acc)}, {100 * found.optimism:+.2f} points "
        "against the mean; the best of many measurements is too high on average, so expect the mean",
        f"{found.name}: the interval is about seeds on these {found.images:,} images; "
        f"the choice of images adds a standard error of {100 * found.image_error:.2f} points, whatever the seeds. Each "
        "seed takes its best epoch by these images, which only the test split is free of",
    ]
    if found.accuracy.sd is None:
        lines.append(f"{found.name}: one seed has no interval; --seeds 5 or more gives one")
    return lines


def _difference(comparison: "Comparison") -> str:
    mean = comparison.difference
    low, high = (100 * end if end is not None else float("nan") for end in (mean.low, mean.high))
    interval = f"{100 * mean.level:.3g} % interval {low:+.2f} to {high:+.2f}"
    return (
        f"{comparison.first.name} less {comparison.second.name}: {100 * mean.mean:+.2f} points "
        f"({interval}; p = {comparison.p:.2g}, {len(comparison.seeds)} seeds)"
    )


def _confirmed_json(found: "Confirmed", sweep: str, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "trial": found.name,
        "model": found.model,
        "sweep": sweep,
        "seeds": list(seeds),
        "results": {str(seed): result.model_dump(mode="json") for seed, result in found.seeds.items()},
        "best_val_acc": mean_json(found.accuracy),
        "val_acc_clean": mean_json(found.clean),
        "train_val_gap": mean_json(found.gap),
        "when_chosen": found.searched.best_val_acc,
        "optimism": found.optimism,
        "image_standard_error": found.image_error,
    }


def _comparison_json(comparison: "Comparison") -> dict[str, Any]:
    return {
        "first": comparison.first.name,
        "second": comparison.second.name,
        "seeds": list(comparison.seeds),
        "difference": mean_json(comparison.difference),
        "p": comparison.p,
        "decided": comparison.is_decided,
        "meaning": comparison.meaning,
    }
