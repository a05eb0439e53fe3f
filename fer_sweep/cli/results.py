"""Commands about the results of sweeps: best and sync."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fer_sweep.cli.options import Json, SweepIds, Trials, UploadModels
from fer_sweep.cli.printing import (
    log_warnings,
    print_json,
    print_table,
    print_text,
    say,
    selection_json,
)
from fer_sweep.formatting import percent, points

if TYPE_CHECKING:
    from fer_sweep.selection import Candidate
    from fer_sweep.sweeps import Sweep
    from fer_sweep.sweeps.choosing import Choice


def best(sweep: SweepIds = None, as_json: Json = False) -> None:
    """Rank the trials and name the winner: near the best accuracy and the smallest gap, the fewest parameters.

    Accuracies within one standard error count as equal, and so do gaps. The choice is made overall and for each
    architecture, with warnings: ranges that end too early, differences that may be chance, trials that were pruned.

    Example: fersweep best
    """
    from fer_sweep.sweeps import open_sweeps

    with open_sweeps(sweep) as opened:
        show_best(opened, as_json=as_json)


def show_best(sweeps: "Sequence[Sweep]", *, as_json: bool) -> None:
    """Print the winner of some sweeps and the ranking it was chosen from."""
    from fer_sweep.sweeps.choosing import choose, winner_of

    choice = choose(sweeps)
    if not as_json and choice.overall.ranking:
        _print_rankings(choice)
    winner = winner_of(choice.overall, sweeps)
    if not as_json:
        _print_winner(choice, winner)
        return
    print_json(
        {
            **selection_json(choice.overall),
            "architectures": {model: selection_json(found) for model, found in choice.by_model.items()},
            "warnings": choice.caveats,
            "confirmed": {found.name: found.accuracy for found in choice.confirmed},
        }
    )


def _print_rankings(choice: "Choice") -> None:
    from fer_sweep.reports.tables import ARCHITECTURE_COLUMNS, RANKING_COLUMNS, architecture_rows, ranking_rows
    from fer_sweep.verdicts import explain

    title = "trials by best validation accuracy (> winner, * Pareto front of accuracy and gap)"
    print_table(title, RANKING_COLUMNS, ranking_rows(choice.overall), key="sweep/trial")
    if len(choice.by_model) > 1:
        title = "winner of each architecture (> overall winner)"
        print_table(title, ARCHITECTURE_COLUMNS, architecture_rows(choice.by_model, choice.overall))
        for model, selection in choice.by_model.items():
            if selection.winner is not None:
                found = selection.winner.result
                print_text(f"{model}: {selection.reason}; {found.verdict}: {explain(found)}")


def _print_winner(choice: "Choice", winner: "Candidate") -> None:
    from fer_sweep.files import WEIGHTS, trial_folder
    from fer_sweep.verdicts import explain

    result = winner.result
    print_text(
        f"winner: trial {winner.record.trial_id} of sweep {winner.sweep}: best_val_acc {percent(result.best_val_acc)}, "
        f"gap {points(result.train_val_gap)} points, {result.verdict}; "
        f"{percent(result.val_acc_clean)} on validation images with no copy in training"
    )
    print_text(f"why: {choice.overall.reason}")
    print_text(f"{result.verdict}: {explain(result)}")
    for caveat in choice.caveats:
        print_text(f"warning: {caveat.message}")
    confirmed = choice.winner_confirmed
    if confirmed is not None:
        print_text(f"confirmed: {confirmed.summary}")
    folder = trial_folder(winner.sweep, winner.record.trial_id)
    if not folder.is_dir():
        print_text("model: on the host that trained it; --json prints its configuration")
        return
    for name, file in (("model", WEIGHTS), ("config", "config.json"), ("history", "history.jsonl")):
        print_text(f"{name}: {folder / file}")
    if confirmed is None:
        say(f"next: fersweep confirm {winner.sweep} trains it again with further seeds")
    else:
        from fer_sweep.sweeps.choosing import after_confirmation

        say(f"next: {after_confirmation(winner)}")


def sync(
    sweep: SweepIds = None, trial: Trials = None, upload_models: UploadModels = False, as_json: Json = False
) -> None:
    """Upload runs that the W&B server you are logged in to does not have, such as those tracked offline.

    Runs are rebuilt from fersweep's own records. Runs that are already complete there are left alone, so the command
    can be repeated.

    Example: fersweep sync
    """
    from fer_sweep.sweeps import open_sweep
    from fer_sweep.sync import upload
    from fer_sweep.wandb_client.reconcile import Action

    log_warnings()
    documents = []
    names: list[str | None] = [*dict.fromkeys(sweep)] if sweep else [None]
    for name in names:
        with open_sweep(name) as opened:
            done = upload(opened, trials=trial or (), keep_models=upload_models, say=say)
        documents.append({"sweep": opened.id, "url": done.url, "runs": dict(done.actions)})
        if not as_json:
            found = list(done.actions.values())
            counts = ", ".join(f"{found.count(action)} {action}" for action in Action if action in found)
            print_text(f"sweep {opened.id}: {counts or 'no trials'}")
            print_text(f"page: {done.url}")
    if as_json:
        print_json({"sweeps": documents})
