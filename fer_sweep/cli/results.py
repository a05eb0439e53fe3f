"""Commands about what came of sweeps: best and sync."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fer_sweep.cli import completing
from fer_sweep.cli.printing import (
    ARCHITECTURE_COLUMNS,
    RANKING_COLUMNS,
    architecture_rows,
    log_warnings,
    mean_json,
    percent,
    points,
    print_json,
    print_table,
    print_text,
    ranking_rows,
    say,
    selection_json,
)

if TYPE_CHECKING:
    from fer_sweep.selection import Candidate
    from fer_sweep.sweeps import Sweep
    from fer_sweep.sweeps.choosing import Choice


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(best)
    app.command()(sync)


def best(
    sweep: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sweeps to choose from; the last one searched if left out.", autocompletion=completing.sweep_ids
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Rank the trials and name the winner: near the best accuracy and the smallest gap, the fewest parameters.

    Accuracies count as equal within one standard error, and so do gaps. Overall and for each architecture, with what to
    be careful about: ranges that end too early, differences that are chance, trials that were stopped early.

    Example: fersweep best
    """
    from fer_sweep.sweeps import open_sweeps

    with open_sweeps(sweep) as opened:
        show_best(opened, as_json=as_json)


def show_best(sweeps: "Sequence[Sweep]", *, as_json: bool) -> None:
    """Print the choice among the trials of some sweeps."""
    from fer_sweep.sweeps.choosing import choose, winner_of

    choice = choose(sweeps)
    if not as_json and choice.overall.ranking:
        _print_rankings(choice)
    winner = winner_of(choice.overall, sweeps)
    if as_json:
        print_json(
            {
                **selection_json(choice.overall),
                "architectures": {model: selection_json(found) for model, found in choice.by_model.items()},
                "warnings": [{"kind": caveat.kind, "message": caveat.message} for caveat in choice.caveats],
                "confirmed": {found.name: mean_json(found.accuracy) for found in choice.confirmed},
            }
        )
        return
    _print_winner(choice, winner)


def sync(
    sweep: Annotated[
        list[str] | None,
        typer.Argument(help="Sweeps to upload; the last one if left out.", autocompletion=completing.sweep_ids),
    ] = None,
    trial: Annotated[list[str] | None, typer.Option(help="Only this trial; repeatable.")] = None,
    upload_models: Annotated[bool, typer.Option(help="Upload the best weights of complete trials too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Upload runs that were tracked offline, or did not get through, to the W&B server you are logged in to.

    Runs are rebuilt from fersweep's own records. What is there already is left alone, so it can be repeated at will.

    Example: fersweep sync
    """
    from fer_sweep.sweeps import open_sweep
    from fer_sweep.sync import Fate, upload

    log_warnings()
    documents = []
    names: list[str | None] = [*dict.fromkeys(sweep)] if sweep else [None]
    for name in names:
        with open_sweep(name) as opened:
            done = upload(opened, trials=trial or (), keep_models=upload_models, say=say)
        documents.append({"sweep": opened.id, "url": done.url, "runs": dict(done.fates)})
        if not as_json:
            counts = ", ".join(f"{done.count(fate)} {fate}" for fate in Fate if done.count(fate))
            print_text(f"sweep {opened.id}: {counts or 'no trials'}")
            print_text(f"page: {done.url}")
    if as_json:
        print_json({"sweeps": documents})


def _print_rankings(choice: "Choice") -> None:
    from fer_sweep.verdicts import explain

    title = "trials by best validation accuracy (> winner, * Pareto front of accuracy and gap)"
    print_table(title, RANKING_COLUMNS, ranking_rows(choice.overall), key="sweep/trial")
    if len(choice.by_model) > 1:
        title = "each architecture by itself (> winner of all)"
        print_table(title, ARCHITECTURE_COLUMNS, architecture_rows(choice.by_model, choice.overall))
        for model, selection in choice.by_model.items():
            if selection.winner is not None:
                found = selection.winner.result
                print_text(f"{model}: {selection.reason}; {found.verdict}: {explain(found)}")


def _print_winner(choice: "Choice", winner: "Candidate") -> None:
    from fer_sweep.files import trial_folder
    from fer_sweep.verdicts import explain

    result = winner.result
    folder = trial_folder(winner.sweep, winner.record.trial_id)
    print_text(
        f"winner: trial {winner.record.trial_id} of sweep {winner.sweep}: best_val_acc {percent(result.best_val_acc)}, "
        f"gap {points(result.train_val_gap)} points, {result.verdict}; "
        f"{percent(result.val_acc_clean)} of the validation images with no copy in training"
    )
    print_text(f"why: {choice.overall.reason}")
    print_text(f"{result.verdict}: {explain(result)}")
    for caveat in choice.caveats:
        print_text(f"careful: {caveat.message}")
    if (seeds := choice.winner_confirmed) is not None:
        print_text(f"confirmed: {seeds.summary}")
    if not folder.is_dir():
        print_text("model: with the host that trained it; here is its configuration only, in --json")
        return
    print_text(f"model: {folder / 'best.safetensors'}")
    print_text(f"config: {folder / 'config.json'}")
    print_text(f"history: {folder / 'history.jsonl'}")
    if choice.winner_confirmed is None:
        say(f"next: fersweep confirm {winner.sweep} trains it again with further seeds")
    else:
        say(f"next: fersweep test {winner.sweep} --trial {winner.record.trial_id} opens the test split, once")
