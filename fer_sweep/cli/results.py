"""Commands about the results of sweeps: best and sync."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fer_sweep.cli.options import Json, SweepIds, Trials, UploadModels
from fer_sweep.cli.printing import (
    log_warnings,
    print_json,
    print_prose,
    print_table,
    print_text,
    say,
    selection_json,
)
from fer_sweep.errors import InputError
from fer_sweep.formatting import in_common, parameter_columns, percent, points

if TYPE_CHECKING:
    from fer_sweep.selection import Candidate
    from fer_sweep.sweeps import Sweep
    from fer_sweep.sweeps.choosing import Choice

_RANKED = 10
"""Trials that `best` shows without --all."""


def best(
    sweep: SweepIds = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every trial and every warning.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Choose although the trials were measured on different data.")
    ] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the winner's configuration as a sweep file and a `train` command.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Name the winner, say why, and rank the trials.

    The winner has the fewest parameters near the best accuracy and the smallest gap. Accuracies within one standard
    error count as equal, and so do gaps. The choice is made overall and for each architecture, with warnings: ranges
    that end too early, differences that may be chance, trials that were pruned. Where the sweep file's metric is
    another one than best_val_acc, the trial with its best value wins.

    Example: fersweep best
    """
    from fer_sweep.sweeps import open_sweeps

    if as_yaml and as_json:
        raise InputError("--yaml and --json cannot both go to stdout", hint="remove one of them")
    with open_sweeps(sweep) as opened:
        if as_yaml:
            _print_yaml(opened, anyway=anyway)
        else:
            show_best(opened, as_json=as_json, show_all=show_all, anyway=anyway)


def show_best(sweeps: "Sequence[Sweep]", *, as_json: bool, show_all: bool = False, anyway: bool = False) -> None:
    """Print the winner of some sweeps and the ranking it was chosen from."""
    from fer_sweep.sweeps.choosing import choose, next_steps, winner_of

    choice = choose(sweeps, anyway=anyway)
    overall = choice.overall
    if as_json:
        winner_of(overall, sweeps)
        print_json(
            {
                **selection_json(overall),
                "metric": overall.metric.name if overall.metric else "best_val_acc",
                "architectures": {model: selection_json(found) for model, found in choice.by_model.items()},
                "warnings": choice.caveats,
                "confirmed": {found.name: found.accuracy for found in choice.confirmed},
            }
        )
        return
    if overall.winner is not None:
        _print_winner(choice, overall.winner, show_all=show_all)
    if overall.ranking:
        _print_ranking(choice, [sweep.id for sweep in sweeps], show_all=show_all)
    if len(choice.by_model) > 1:
        _print_architectures(choice, show_all=show_all)
    if overall.ranking and not show_all:
        again = " ".join(["fersweep best", *(sweep.id for sweep in sweeps), *(["--anyway"] if anyway else []), "--all"])
        print_prose(f"all trials, parameters and warnings: {again}")
    for step in next_steps(winner_of(overall, sweeps), choice.winner_confirmed):
        say(f"next: fersweep {step}")


def _print_winner(choice: "Choice", winner: "Candidate", *, show_all: bool) -> None:
    """Print the winner, why it won, and the gravest warning; on request every warning and its measurements."""
    from fer_sweep.files import WEIGHTS, trial_folder
    from fer_sweep.records import Verdict
    from fer_sweep.verdicts import explain

    result = winner.result
    warnings = [caveat.message for caveat in choice.caveats]
    if not show_all:
        warnings = [re.split("[:;] ", message)[0] for message in warnings[:1]]  # the reasons follow behind
    of_data = sum(caveat.kind == "data" for caveat in choice.caveats)  # the gravest: whether there is a winner at all
    for message in warnings[:of_data]:
        print_prose(f"warning: {message}")
    print_prose(
        f"winner: trial {winner.record.trial_id} of sweep {winner.sweep}: best_val_acc {percent(result.best_val_acc)}, "
        f"gap {points(result.train_val_gap)}, {result.verdict}"
    )
    if show_all:
        print_prose(f"on validation images with no copy in training: {percent(result.val_acc_clean)}")
    print_prose(f"why: {choice.overall.reason}")
    if show_all or result.verdict is not Verdict.BALANCED:
        print_prose(f"{result.verdict}: {explain(result)}")
    if choice.winner_confirmed is not None:
        print_prose(f"confirmed: {choice.winner_confirmed.summary}")
    for message in warnings[of_data:]:
        print_prose(f"warning: {message}")
    folder = trial_folder(winner.sweep, winner.record.trial_id)
    if folder.is_dir():
        print_text(f"model: {folder / WEIGHTS}")
    else:
        print_prose("model: on the host that trained it; --yaml prints its configuration")


def _print_ranking(choice: "Choice", sweeps: "Sequence[str]", *, show_all: bool) -> None:
    """Print the best trials, one line each; on request all of them with everything known of them."""
    from fer_sweep.reports.tables import ranking

    overall = choice.overall
    parameters = [candidate.record.parameters for candidate in overall.ranking]
    columns, found = ranking(overall)
    rows = [dict(zip(columns, row, strict=True)) for row in found]
    key, extra = "sweep/trial", {}
    if not show_all:
        key = "trial" if len(sweeps) == 1 else key
        of_state = ["state"] if any(candidate.record.state != "complete" for candidate in overall.ranking) else []
        metric = [] if overall.metric is None else [overall.metric.name]
        columns = ["", key, *metric, "best_val_acc", "gap", "verdict", *of_state]
        extra = parameter_columns(parameters)
    for row, candidate in zip(rows, overall.ranking, strict=True):
        row["trial"] = candidate.record.trial_id
    shown = [place for place, row in enumerate(rows) if show_all or place < _RANKED or ">" in str(row[""])]
    count = f"{len(rows)} trials" if len(shown) == len(rows) else f"best {_RANKED} of {len(rows)} trials"
    by = overall.metric.name if overall.metric else "best_val_acc"
    if show_all and (common := in_common(parameters)):
        print_prose(f"in every trial: {common}")
    print_table(
        f"{count} by {by} (> winner, * Pareto front)",
        columns,
        [[rows[place][column] for column in columns] for place in shown],
        key=key,
        extra={name: [column[place] for place in shown] for name, column in extra.items()},
    )


def _print_architectures(choice: "Choice", *, show_all: bool) -> None:
    """Print the winner of each architecture."""
    from fer_sweep.reports.tables import ARCHITECTURE_COLUMNS, architecture_rows
    from fer_sweep.verdicts import explain

    title, rows = "winner of each architecture (> overall winner)", architecture_rows(choice.by_model, choice.overall)
    print_table(title, ARCHITECTURE_COLUMNS, rows, key="architecture")
    for model, selection in choice.by_model.items():
        if show_all and selection.winner is not None:
            found = selection.winner.result
            print_prose(f"{model}: {selection.reason}; {found.verdict}: {explain(found)}")


def _print_yaml(sweeps: "Sequence[Sweep]", *, anyway: bool) -> None:
    import yaml  # only here: it takes 20 ms

    from fer_sweep.config.arguments import train_command
    from fer_sweep.config.trial import parse_trial
    from fer_sweep.sweeps.choosing import choose, file_of, winner_of

    winner = winner_of(choose(sweeps, anyway=anyway).overall, sweeps)
    (sweep,) = (sweep for sweep in sweeps if sweep.id == winner.sweep)
    text = yaml.safe_dump(file_of(sweep, winner).to_plain(), sort_keys=False)
    accuracy = percent(winner.result.best_val_acc)
    print_text(f"# trial {winner.record.trial_id} of sweep {winner.sweep}: best_val_acc {accuracy}")
    print_text(f"# {train_command(parse_trial(winner.record.config))}\n{text.rstrip()}")
    say(f"next: save it, such as fersweep best {sweep.id} --yaml > winner.yaml; then fersweep create winner.yaml")


def sync(
    sweep: SweepIds = None, trial: Trials = None, upload_models: UploadModels = False, as_json: Json = False
) -> None:
    """Upload runs that the W&B server does not have.

    These were tracked offline, or the network was cut. Runs are rebuilt from fersweep's own records. Complete runs are
    left alone, so the command can be repeated.

    Example: fersweep sync
    """
    from fer_sweep.sweeps import open_sweeps
    from fer_sweep.sync import upload
    from fer_sweep.wandb_client.reconcile import Action

    log_warnings()
    documents = []
    with open_sweeps(sweep) as sweeps:
        for opened in sweeps:
            done = upload(opened, trials=trial or (), keep_models=upload_models, say=say)
            documents.append({"sweep": opened.id, "url": done.url, "runs": dict(done.actions)})
            if not as_json:
                found = list(done.actions.values())
                counts = ", ".join(f"{found.count(action)} {action}" for action in Action if action in found)
                print_text(f"sweep {opened.id}: {counts or 'no trials'}\npage: {done.url}")
    if as_json:
        print_json({"sweeps": documents})
