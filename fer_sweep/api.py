"""fersweep in Python, for notebooks and scripts; also as ``import fer_sweep; fer_sweep.create(...)``.

    sweep = fer_sweep.create("simple_cnn", data="synthetic", count=6)
    sweep.agent(mirror="/content/drive/MyDrive/fersweep")
    sweep.best()
    sweep.records()

Trials are trained in separate processes, as by ``fersweep agent``. Errors are those of ``fer_sweep.errors``, whose
``hint`` says what to do. Interrupting the cell is Ctrl-C: once for no new trials, twice to checkpoint and stop, three
times to kill.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fer_sweep.agent.failures import OnOom
from fer_sweep.agent.loop import AgentSummary
from fer_sweep.agent.session import slots_here, work_on
from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.files import write_atomically
from fer_sweep.mirror.copying import check_mirror
from fer_sweep.mirror.restoring import Restored
from fer_sweep.mirror.restoring import restore as _restore
from fer_sweep.records import TrialRecord
from fer_sweep.sweeps import SweepEntry, last_searched, open_entry, open_sweep, opening
from fer_sweep.sweeps.choosing import Choice, choose
from fer_sweep.worker.slots import described

if TYPE_CHECKING:
    import pandas as pd

    from fer_sweep.data.cache import DatasetInfo

__all__ = ["Choice", "Restored", "Sweep", "best", "create", "prepare", "restore", "run", "sweep"]

File = str | Path


@dataclass(frozen=True)
class Sweep:
    """A sweep of this home."""

    entry: SweepEntry

    @property
    def id(self) -> str:
        """Its id for the commands."""
        return self.entry.id

    @property
    def state(self) -> str:
        """running, paused, stopped, cancelled or finished."""
        with open_entry(self.entry) as opened:
            return opened.state

    def agent(
        self,
        *,
        gpus: str = "auto",
        per_gpu: int | None = 1,
        slots: int | None = None,
        count: int | None = None,
        mirror: File | None = None,
        on_oom: str = "fail",
        hang_after: float | None = None,
        upload_models: bool = False,
    ) -> AgentSummary:
        """Train its trials until none is left or the sweep is stopped, and print the progress.

        Args:
            gpus: ``auto``, ``none``, or numbers and UUIDs such as ``0,1``.
            per_gpu: Trials at once on each GPU; None to measure the best number.
            slots: Trials at once on the CPU.
            count: End after so many attempts.
            mirror: Copy all sweeps to this folder of a mounted drive; see ``restore``.
            on_oom: What to do with a trial out of memory: ``fail``, ``smaller_micro_batch`` or ``fewer_slots``.
            hang_after: Seconds without a step after which a trial is killed.
            upload_models: Upload the best weights of complete trials to W&B.

        Raises:
            InputError: An argument does not fit this host.
            NothingToDo: It has no trials left.
            AgentFailed: Trials failed one after another.
        """
        if on_oom not in list(OnOom):
            raise InputError(f"unknown on_oom {on_oom!r}", hint=f"use one of {', '.join(OnOom)}")
        with open_entry(self.entry) as opened:
            places = slots_here(opened, gpus, per_gpu=per_gpu, slots=slots, measure_cpu=False, say=print)
            # Plain text: in a kernel rich would write HTML for every line.
            console = Console(file=sys.stdout, force_jupyter=False, force_terminal=sys.stdout.isatty())
            return work_on(
                opened,
                places,
                console=console,
                count=count,
                keep_models=upload_models,
                on_oom=OnOom(on_oom),
                hang_after_s=hang_after,
                mirror=None if mirror is None else Path(mirror),
            )

    def trials(self) -> Sequence[TrialRecord]:
        """Every trial, oldest first."""
        with open_entry(self.entry) as opened:
            return opened.trials()

    def records(self) -> "pd.DataFrame":
        """One row per trial: state, parameters by name, the latest metrics, verdict, reason, seconds.

        Raises:
            InputError: pandas is not installed.
        """
        return _frame("trial", [_row(self.id, record) for record in self.trials()], "sweep", "state")

    def history(self, trial: str | int) -> "pd.DataFrame":
        """A trial's metrics, one row per epoch.

        Raises:
            InputError: pandas is not installed, or there is no such trial.
        """
        with open_entry(self.entry) as opened:
            known = [record.trial_id for record in opened.trials()]
            if str(trial) not in known:
                hint = f"its trials: {', '.join(known[:20]) or 'none yet'}"
                raise InputError(f"sweep {self.id} has no trial {trial}", hint=hint)
            return _frame("epoch", opened.reports(str(trial)))

    def best(self) -> Choice:
        """The choice among its trials: ``.overall.winner``, ``.overall.reason``, ``.overall.pareto``, ``.caveats``.

        The winner is None if no trial can win; the reason says why. ``.confirmed`` has the results of further seeds.
        """
        with open_entry(self.entry) as opened:
            return choose([opened])

    def report(self, path: File = "report.html") -> Path:
        """Write the HTML report, one file that needs no network; ``IPython.display.IFrame`` shows it in a cell.

        Raises:
            NothingToDo: It has no trials yet.
        """
        from fer_sweep.reports.html import render  # only here: optuna and Plotly take a second to import
        from fer_sweep.reports.sources import gather

        with open_entry(self.entry) as opened:
            gathered = gather([opened])
        if not gathered.trials:
            raise NothingToDo(f"no trials yet: {self.id}", hint="train some: sweep.agent()")
        write_atomically(Path(path), render(gathered, described()))
        return Path(path)


def create(
    file: File,
    *,
    data: str | None = None,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    search: str | None = None,
    storage: str | None = None,
    max_gap: float | None = None,
    seed: int | None = None,
    budget_epochs: int | None = None,
    start_from: Sweep | str | Sequence[Sweep | str] = (),
    entity: str | None = None,
    project: str | None = None,
    note: Callable[[str], None] | None = None,
) -> Sweep:
    """Create a sweep from a file in W&B's format.

    Args:
        file: The sweep file.
        data: Data set to train on; overrides the file.
        constants: Parameters to fix, such as ``{"epochs": 4}``; the command line's ``--set``.
        count: Largest number of trials.
        search: ``wandb`` or ``optuna``; by default the former if runs are tracked online and it supports the sweep.
        storage: Database URL; by default that of ``FERSWEEP_STORAGE``, or ``sweeps.db`` in fersweep's home.
        max_gap: Largest train-val gap of the winner.
        seed: Of the embedded search.
        budget_epochs: Start no new trial once all trials together have trained so many epochs.
        start_from: Begin with the best configurations of these sweeps, and learn from their trials; also one sweep.
        entity: W&B user or team; like project, overrides environment and file.
        project: W&B project.
        note: Called with warnings; by default they are printed.

    Raises:
        SweepFileError: The file is invalid; no sweep is created.
    """
    sources = [start_from] if isinstance(start_from, Sweep | str) else start_from
    with opening.create(
        Path(file),
        data=data,
        constants=constants,
        count=count,
        search=search,
        storage=storage,
        max_gap=max_gap,
        seed=seed,
        budget_epochs=budget_epochs,
        start_from=[found.id if isinstance(found, Sweep) else found for found in sources],
        entity=entity,
        project=project,
        note=note or (lambda text: print(f"note: {text}")),
    ) as made:
        return Sweep(made.entry)


def run(
    file: File,
    *,
    data: str | None = None,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    mirror: File | None = None,
    **agent: Any,
) -> Sweep:
    """Create a sweep and train it; further arguments are those of ``Sweep.agent``.

    Raises:
        SweepFileError: The file is invalid; no sweep is created.
        AgentFailed: Trials failed one after another.
    """
    if mirror is not None:
        # Before a sweep is made: a home that has a sweep refuses to restore the mirror of a former machine.
        check_mirror(Path(mirror), None)
    made = create(file, data=data, constants=constants, count=count)
    print(f"sweep {made.id}")
    made.agent(mirror=mirror, **agent)
    return made


def sweep(sweep_id: str | None = None) -> Sweep:
    """The sweep of this id, or the one created last.

    Raises:
        NothingToDo: There is none yet.
        InputError: No sweep has this id.
    """
    with open_sweep(sweep_id) as opened:
        return Sweep(opened.entry)


def best(*sweeps: Sweep | str) -> Choice:
    """The choice among all trials of some sweeps, or of the one searched last."""
    with contextlib.ExitStack() as stack:
        found = [open_entry(sweep.entry) if isinstance(sweep, Sweep) else open_sweep(sweep) for sweep in sweeps]
        return choose([stack.enter_context(opened) for opened in found or [last_searched()]])


def prepare(path: File = "auto", name: str | None = None, *, replace: bool = False) -> "DatasetInfo":
    """Prepare a data set from a path, or ``"auto"`` to search the usual folders of Kaggle, Colab and at home.

    Raises:
        DataError: None is found, or it is not usable.
    """
    from fer_sweep.data.cache import prepare as prepare_data  # only here: it is slow to import
    from fer_sweep.data.discovery import discover

    if path == "auto":
        path = discover().taken
        print(f"using {path}")
    return prepare_data(Path(path), name, replace=replace)


def restore(folder: File, *, force: bool = False) -> Restored:
    """Restore the sweeps that were mirrored to a folder on a former machine.

    Raises:
        NothingToDo: The folder is not a mirror.
        InputError: This home has other or newer sweeps, and ``force`` is off.
    """
    return _restore(Path(folder), force=force)


def _row(sweep_id: str, record: TrialRecord) -> dict[str, Any]:
    return {
        "sweep": sweep_id,
        "trial": record.trial_id,
        "state": str(record.state),
        **record.parameters,
        **{name: value for name, value in record.metrics.items() if name not in record.parameters},
        "verdict": str(record.result.verdict) if record.result else None,
        "reason": record.reason,
        "seconds": record.result.seconds if record.result else None,
    }


def _frame(index: str, rows: Sequence[Mapping[str, Any]], *columns: str) -> "pd.DataFrame":
    """Rows as a DataFrame with this index; without rows, with these columns."""
    try:
        import pandas as pd  # only here: optional, and slow to import
    except ImportError:
        hint = "pip install 'fersweep[notebook]'; without it: trials()"
        raise InputError("pandas is not installed", hint=hint) from None
    return pd.DataFrame([dict(row) for row in rows], columns=None if rows else [index, *columns]).set_index(index)
