"""Commands that steer a sweep under way: resume, edit, enqueue and extend."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_sweep.cli.options import Data, File, SweepId
from fer_sweep.cli.printing import note, print_prose, print_text, say
from fer_sweep.cli.sweeps import constants
from fer_sweep.errors import ConfigError, InputError, SweepFileError

if TYPE_CHECKING:
    from fer_sweep.sweeps import Sweep

Fixed = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter; repeatable.")]


def resume(
    sweep: SweepId = None,
    count: Annotated[
        str | None, typer.Option(metavar="N|+N", help="Raise the largest number of trials to N, or by N.")
    ] = None,
    budget_epochs: Annotated[
        str | None, typer.Option(metavar="N|+N", help="Raise the budget of epochs to N, or by N.")
    ] = None,
) -> None:
    """Start trials again, after pause or stop or with a higher limit.

    A finished sweep needs the limit: --count or --budget-epochs.

    Example: fersweep resume --count +10
    """
    from fer_sweep.sweeps import open_sweep, steering

    cap = None if count is None else steering.Limit.read("--count", count)
    budget = None if budget_epochs is None else steering.Limit.read("--budget-epochs", budget_epochs)
    with open_sweep(sweep) as opened:
        changed = steering.resume(opened, count=cap, budget_epochs=budget)
        _show(opened, "running", changed)


def edit(file: File, sweep: SweepId = None, data: Data = None, fixed: Fixed = None) -> None:
    """Replace a sweep's space and limits by those of a file.

    Its trials stay. The search learns from those that fit the new space, and none is repeated. Give again what the
    sweep was created with by --set and --data, or edit sweep.yaml in its folder, which has it.

    Example: fersweep edit sweeps/simple_cnn.yaml
    """
    from fer_sweep.sweeps import open_sweep, steering

    with open_sweep(sweep) as opened:
        given = {**constants(fixed), **({} if data is None else {"data": data})}
        changed = steering.edit(opened, file, constants=given, note=note)
        fit, trials = steering.fitting(opened)
        kept = [f"{fit} of {trials} trials are of the new space, and are not repeated"] if trials else []
        _show(opened, "edited", [*changed, *kept])


def enqueue(
    sweep: SweepId = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML or JSON with parameters, such as a trial's config.json.")
    ] = None,
    fixed: Fixed = None,
) -> None:
    """Make a configuration of your choice the next trial.

    A finished sweep runs again for it. Parameters that you leave out have the value that the sweep fixes, or else their
    default.

    Example: fersweep enqueue --set lr=0.002 --set dropout=0.3
    """
    from fer_sweep.config.problems import in_file_order
    from fer_sweep.config.sweep_yaml import read_document
    from fer_sweep.sweeps import open_sweep, steering

    if config is None and not fixed:
        raise InputError("no configuration is given", hint="for example: fersweep enqueue --set lr=0.002")
    given: dict[str, Any] = {}
    lines: dict[str, int] = {}
    if config is not None:
        document = read_document(config, needs="write parameters, such as lr: 0.002")
        if not isinstance(document.data, dict):
            raise InputError(f"{config}: not a dictionary of parameters", hint="write lines such as lr: 0.002")
        given, lines = document.data, document.lines
    given = {**given, **constants(fixed)}
    with open_sweep(sweep) as opened:
        try:
            changed = steering.enqueue(opened, given)
        except ConfigError as error:
            if config is None:
                raise
            raise SweepFileError(str(config), in_file_order(error.problems, lines)) from None
        _show(opened, "1 configuration queued", changed)


def extend(
    trial: Annotated[
        str, typer.Argument(metavar="[SWEEP/]TRIAL", help="An ended trial, such as 3 of the last sweep or abcd1234/3.")
    ],
    epochs: Annotated[str, typer.Option(metavar="N|+N", help="Epochs in all, with those it has, or +N for N more.")],
) -> None:
    """Train an ended trial longer: a new trial, which comes next.

    It starts from the weights of the trial's best epoch. Over the further epochs the learning rate rises to lr and
    falls to zero again (a warm restart), so the accuracy may drop at first.

    Example: fersweep extend 0 --epochs +8
    """
    from fer_sweep.sweeps import open_sweep, steering

    name, _, trial_id = trial.rpartition("/")
    with open_sweep(name or None) as opened:
        changed = steering.extend(opened, trial_id, steering.Limit.read("--epochs", epochs))
        _show(opened, f"a longer training of trial {trial_id} queued", changed)


def _show(sweep: "Sweep", done: str, lines: Sequence[str]) -> None:
    from fer_sweep.sweeps.next_steps import next_command, obstacle

    print_text(f"sweep {sweep.id}: {done}")
    for line in lines:
        print_prose(f"  {line}")
    if found := obstacle(sweep):
        note(f"it stays finished: {found[0]}")
    say(f"next: fersweep {found[1] if found else next_command(sweep, sweep.state, ())}")
