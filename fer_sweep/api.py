"""fersweep in Python, for notebooks and scripts; also as ``import fer_sweep; fer_sweep.create(...)``.

    sweep = fer_sweep.open_or_create("simple_cnn", name="faces", data="synthetic", count=6)
    sweep.agent(mirror="/content/drive/MyDrive/fersweep")
    sweep.best()
    sweep.plot("pareto")
    sweep.records()

Trials are trained in separate processes, as by ``fersweep agent``. Errors are those of ``fer_sweep.errors``, whose
``hint`` says what to do; a wrong argument is an InputError. Interrupting the cell is Ctrl-C: once for no new trials,
twice to checkpoint and stop, three times to kill.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from fer_sweep.agent.session import check_slots
from fer_sweep.config.calls import check_call, checked_call
from fer_sweep.config.samplers import Sampler
from fer_sweep.errors import InputError
from fer_sweep.handles import Choice, File, Positive, Sweep, choice_among, gpu_words
from fer_sweep.mirror.copying import check_mirror
from fer_sweep.mirror.restoring import Restored
from fer_sweep.mirror.restoring import restore as _restore
from fer_sweep.sweeps import last_searched, open_entry, open_sweep, opening
from fer_sweep.sweeps.entries import scan

if TYPE_CHECKING:
    from fer_sweep.data.cache import DatasetInfo

__all__ = ["Choice", "Restored", "Sweep", "best", "create", "open_or_create", "prepare", "restore", "run", "sweep"]


@checked_call
def create(
    file: File | Mapping[str, Any],
    *,
    name: str | None = None,
    data: str | None = None,
    constants: Mapping[str, Any] | None = None,
    count: Positive | None = None,
    search: str | None = None,
    sampler: Sampler | None = None,
    storage: str | None = None,
    max_gap: Annotated[float, Field(ge=0, le=1)] | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None,
    budget_epochs: Annotated[int, Field(ge=1)] | None = None,
    until_converged: bool = False,
    start_from: Sweep | str | Sequence[Sweep | str] = (),
    entity: str | None = None,
    project: str | None = None,
    note: Callable[[str], None] | None = None,
) -> Sweep:
    """Create a sweep from a file in W&B's format, or from its content as a dictionary, as ``wandb.sweep`` takes it.

    Args:
        file: A path, the name of a shipped file such as ``simple_cnn``, or a dictionary.
        name: The sweep's name; overrides the file.
        data: Data set to train on; overrides the file.
        constants: Parameters to fix, such as ``{"epochs": 4}``; the command line's ``--set``.
        count: Largest number of trials, at least 1.
        search: ``wandb`` or ``optuna``; by default the former if runs are tracked online and it supports the sweep.
        sampler: What searches a sweep of method bayes: ``freeze_thaw``, ``tpe``, ``gp`` (Gaussian process), ``random``
            or ``cmaes``; by default the first without early_terminate in the file, where it fits, else the second.
        storage: Database URL; by default that of ``FERSWEEP_STORAGE``, or ``sweeps.db`` in fersweep's home.
        max_gap: Largest train-val gap of the winner, from 0 to 1.
        seed: Of the embedded search, 0 or more.
        budget_epochs: Start no new trial once all trials together have trained so many epochs.
        until_converged: Finish once as many epochs again would hardly gain more than one standard error.
        start_from: Begin with the best configurations of these sweeps, and learn from their trials; also one sweep.
        entity: W&B user or team; like project, overrides environment and file.
        project: W&B project.
        note: Called with warnings; by default they are printed.

    Raises:
        SweepFileError: The file is invalid; no sweep is created.
    """
    sources = [start_from] if isinstance(start_from, Sweep | str) else start_from
    return _created(
        file,
        name=name,
        data=data,
        constants=constants,
        count=count,
        search=search,
        sampler=sampler,
        storage=storage,
        max_gap=max_gap,
        seed=seed,
        budget_epochs=budget_epochs,
        until_converged=until_converged,
        start_from=[found.id if isinstance(found, Sweep) else found for found in sources],
        entity=entity,
        project=project,
        note=note,
    )


@checked_call
def open_or_create(file: File | Mapping[str, Any], name: str, **options: Any) -> Sweep:
    """Open the sweep of this name, or create it: a cell that is run again continues the sweep it made.

    Args:
        file: A path, the name of a shipped file such as ``simple_cnn``, or a dictionary.
        name: The sweep's name; of several sweeps of this home, the one created last is meant.
        options: Those of ``create``.

    Raises:
        SweepFileError: The file is invalid; no sweep is created.
        InputError: The sweep of this name has another method or other parameters.
    """
    check_call(create, file, name=name, **options)
    entries, unreadable = scan()
    found = next((e for e in reversed(entries) if e.name == name and e.confirms is None), None)
    if found is None:
        for error in unreadable.values():
            raise error  # it may be the one of this name
        return create(file, name=name, **options)
    constants = dict(options.get("constants") or {})
    if (data := options.get("data")) is not None:
        constants["data"] = data
    wanted = opening.checked(_source(file), name=name, constants=constants, count=options.get("count"))
    with open_entry(found) as opened:
        if (opened.file.method, opened.file.parameters) != (wanted.method, wanted.parameters):
            hint = f"give this one another name, or open that one: fer_sweep.sweep({found.id!r})"
            raise InputError(f"sweep {name!r} ({found.id}) has another method or other parameters", hint=hint)
        if opened.file.run_cap != wanted.run_cap:
            print(f"note: sweep {name} keeps its largest number of trials, {opened.file.run_cap or 'no limit'}")
        if options.get("sampler") not in (None, opened.sampler):
            print(f"note: sweep {name} keeps its search, {opened.searched_by}")
    return Sweep(found)


@checked_call
def run(
    file: File | Mapping[str, Any],
    *,
    name: str | None = None,
    data: str | None = None,
    constants: Mapping[str, Any] | None = None,
    count: Positive | None = None,
    mirror: File | None = None,
    **agent: Any,
) -> Sweep:
    """Create a sweep and train it; further arguments are those of ``Sweep.agent``.

    Args:
        file: A path, the name of a shipped file such as ``simple_cnn``, or a dictionary.
        name: The sweep's name; overrides the file.
        data: Data set to train on; overrides the file.
        constants: Parameters to fix, such as ``{"epochs": 4}``.
        count: Largest number of trials, at least 1.
        mirror: Copy all sweeps to this folder of a mounted drive; see ``restore``.
        agent: Those of ``Sweep.agent``.

    Raises:
        SweepFileError: The file is invalid; no sweep is created.
        InputError: An argument does not fit this host, or the data set is not prepared; no sweep is created.
        AgentFailed: Trials failed one after another.
    """
    # All of this before a sweep is made: a home that has a sweep refuses to restore the mirror of a former machine.
    if mirror is not None:
        check_mirror(Path(mirror), None)
    check_call(Sweep.agent, None, mirror=mirror, **agent)
    per_gpu, slots = (value if isinstance(value := agent.get(name), int) else None for name in ("per_gpu", "slots"))
    check_slots(gpu_words(agent.get("gpus", "auto")), per_gpu=per_gpu, slots=slots)
    made = _created(file, name=name, data=data, constants=constants, count=count, to_train=True)
    print(f"sweep {made.id}")
    made.agent(mirror=mirror, **agent)
    return made


@checked_call
def sweep(sweep_id: str | None = None) -> Sweep:
    """The sweep of this name, id or beginning of an id, or the one searched last.

    Args:
        sweep_id: An id, ENTITY/PROJECT/ID, or the address of a sweep's page on W&B.

    Raises:
        NothingToDo: There is none yet.
        InputError: No sweep has this id.
    """
    with open_sweep(sweep_id) as opened:
        return Sweep(opened.entry)


@checked_call
def best(*sweeps: Sweep | str) -> Choice:
    """The choice among all trials of some sweeps, or of the one searched last.

    Args:
        sweeps: Sweeps or their ids, each an argument.
    """
    with contextlib.ExitStack() as stack:
        found = [open_entry(sweep.entry) if isinstance(sweep, Sweep) else open_sweep(sweep) for sweep in sweeps]
        return choice_among([stack.enter_context(one) for one in found or [last_searched()]])


@checked_call
def prepare(path: File = "auto", name: str | None = None, *, replace: bool = False) -> "DatasetInfo":
    """Prepare a data set from a path, or ``"auto"`` to search the usual folders of Kaggle, Colab and at home.

    Args:
        path: A folder, an archive or a CSV; or ``auto``.
        name: Its name for sweeps, as text.
        replace: Replace a data set of this name.

    Raises:
        DataError: None is found, or it is not usable.
    """
    from fer_sweep.data.cache import prepare as prepare_data  # only here: it is slow to import
    from fer_sweep.data.discovery import discover

    if path == "auto":
        path = discover().taken
        print(f"using {path}")
    return prepare_data(Path(path), name, replace=replace)


@checked_call
def restore(folder: File, *, force: bool = False) -> Restored:
    """Restore the sweeps that were mirrored to a folder on a former machine.

    Raises:
        NothingToDo: The folder is not a mirror.
        InputError: This home has other or newer sweeps, and ``force`` is off.
    """
    return _restore(Path(folder), force=force)


def _created(file: File | Mapping[str, Any], *, note: Callable[[str], None] | None = None, **given: Any) -> Sweep:
    say = note or (lambda text: print(f"note: {text}"))
    with opening.create(_source(file), note=say, **given) as made:
        return Sweep(made.entry)


def _source(file: File | Mapping[str, Any]) -> Path | Mapping[str, Any]:
    return file if isinstance(file, Mapping) else Path(file)
