"""What the Python API hands out: a sweep, and a choice among trials, both shown by a notebook's cells."""

import contextlib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from rich.console import Console

from fer_sweep.agent.deadline import end_of
from fer_sweep.agent.failures import OnOom
from fer_sweep.agent.live_cell import WIDTH, in_cell
from fer_sweep.agent.running import AgentSummary
from fer_sweep.agent.session import slots_here, work_on
from fer_sweep.config.calls import checked_call
from fer_sweep.errors import FersweepError, InputError, NothingToDo
from fer_sweep.files import write_atomically
from fer_sweep.formatting import counted, points
from fer_sweep.notebook.frames import frame_of_epochs, frame_of_trials
from fer_sweep.records import TrialRecord
from fer_sweep.sweeps import Sweep as OpenedSweep
from fer_sweep.sweeps import SweepEntry, open_entry
from fer_sweep.sweeps.choosing import Choice as ChoiceOfTrials
from fer_sweep.sweeps.choosing import choose
from fer_sweep.worker.slots import described

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from fer_sweep.reports.sources import Report

# Of tqdm, which optuna imports: it asks for ipywidgets in every kernel, and we show no bar of tqdm's.
warnings.filterwarnings("ignore", message="IProgress not found")

File = str | Path
Gpus = str | Annotated[int, Field(ge=0)] | Sequence[int | str]
Positive = Annotated[int, Field(ge=1)]
Slots = Positive | Literal["auto"] | None


@dataclass(frozen=True, repr=False)
class Choice(ChoiceOfTrials):
    """The choice among trials; a notebook shows it with the ranking and figures."""

    entries: tuple[SweepEntry, ...] = ()
    """The sweeps of the trials."""

    def __repr__(self) -> str:
        winner = self.overall.winner
        if winner is None:
            return f"<Choice: no winner, {self.overall.reason}>"
        measured = f"best_val_acc {winner.result.best_val_acc:.1%}, gap {points(winner.result.train_val_gap)}"
        return f"<Choice: {winner.name}, {measured}, of {len(self.overall.ranking)} trials>"

    def _repr_html_(self) -> str | None:
        from fer_sweep.notebook.cells import cell  # only here: optuna and Plotly take a second to import

        with contextlib.suppress(FersweepError):  # None has the notebook show the text
            return cell(replace(_gathered(self.entries), choice=self))
        return None


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

    def __repr__(self) -> str:
        name = f"{self.id}, {self.entry.name}" if self.entry.name else self.id
        try:
            with open_entry(self.entry) as opened:
                state, trials = opened.state, opened.trials()
        except FersweepError as error:
            return f"<Sweep {name}: {error}>"
        best = max((r for r in trials if r.result), key=lambda r: r.metrics["best_val_acc"], default=None)
        leader = f", best {best.metrics['best_val_acc']:.1%} in trial {best.trial_id}" if best else ""
        return f"<Sweep {name}: {state}, {counted(len(trials), 'trial')}{leader}>"

    def _repr_html_(self) -> str | None:
        from fer_sweep.notebook.cells import cell

        with contextlib.suppress(FersweepError):
            return cell(_gathered([self.entry]), self.state)
        return None

    @checked_call
    def agent(
        self,
        *,
        gpus: Gpus = "auto",
        per_gpu: Slots = 1,
        slots: Slots = None,
        count: Positive | None = None,
        mirror: File | None = None,
        on_oom: Literal["fail", "smaller_micro_batch", "fewer_slots"] = "fail",
        hang_after: Annotated[float, Field(gt=0)] | None = None,
        hours: Annotated[float, Field(gt=0)] | None = None,
        deadline: str | None = None,
        upload_models: bool = False,
    ) -> AgentSummary:
        """Train its trials until none is left or the sweep is stopped; a notebook shows a bar and the running trials.

        Args:
            gpus: ``auto``, ``none``, ``mps``, a number, or numbers and UUIDs such as ``[0, 1]`` or ``"0,1"``.
            per_gpu: Trials at once on each GPU, at least 1; ``auto`` or None to measure the best number.
            slots: Trials at once on the CPU, at least 1; ``auto`` to measure the best number.
            count: End after so many attempts, at least 1.
            mirror: Copy all sweeps to this folder of a mounted drive; see ``restore``.
            on_oom: What to do with a trial out of memory: ``fail``, ``smaller_micro_batch`` or ``fewer_slots``.
            hang_after: Seconds above 0, without a step, after which a trial is killed.
            hours: End within so many hours, above 0; trials that cannot finish by then are left for the next agent.
            deadline: The same by a time of day such as ``18:30``, or a date and time.
            upload_models: Upload the best weights of complete trials to W&B.

        Raises:
            InputError: An argument does not fit this host.
            NothingToDo: It has no trials left.
            AgentFailed: Trials failed one after another.
        """
        end = end_of(hours, deadline, now=datetime.now().astimezone())
        with open_entry(self.entry) as opened:
            places = slots_here(
                opened,
                gpu_words(gpus),
                per_gpu=None if per_gpu == "auto" else per_gpu,
                slots=None if slots == "auto" else slots,
                measure_cpu=slots == "auto",
                say=print,
            )
            # Plain text: in a kernel rich would write HTML for every line.
            console = Console(
                file=sys.stdout,
                width=WIDTH if in_cell() else None,
                force_jupyter=False,
                force_terminal=sys.stdout.isatty(),
            )
            return work_on(
                opened,
                places,
                console=console,
                count=count,
                keep_models=upload_models,
                on_oom=OnOom(on_oom),
                hang_after_s=hang_after,
                end=end,
                mirror=None if mirror is None else Path(mirror),
            )

    def trials(self) -> Sequence[TrialRecord]:
        """Every trial, oldest first."""
        with open_entry(self.entry) as opened:
            return opened.trials()

    def records(self) -> "pd.DataFrame":
        """One row per trial: how it ended and how well, the swept parameters, then everything else known of it.

        The first columns are state, best_val_acc, train_val_gap, verdict and epochs_trained.

        Raises:
            InputError: pandas is not installed.
        """
        with open_entry(self.entry) as opened:
            return frame_of_trials(self.id, opened.trials(), opened.space)

    def history(self, trial: str | int) -> "pd.DataFrame":
        """A trial's metrics, one row per epoch.

        Raises:
            InputError: pandas is not installed, or there is no such trial.
        """
        with open_entry(self.entry) as opened:
            return frame_of_epochs(opened.reports(opened.trial(str(trial)).trial_id))

    def best(self) -> Choice:
        """The choice among its trials: ``.overall.winner``, ``.overall.reason``, ``.overall.pareto``, ``.caveats``.

        The winner is None if no trial can win; the reason says why. ``.confirmed`` has the results of further seeds.
        """
        with open_entry(self.entry) as opened:
            return choice_among([opened])

    @checked_call
    def plot(self, kind: str = "pareto") -> "Figure":
        """A figure of the report, as Plotly's: ``show()`` it, save it, or end a cell with it.

        Args:
            kind: pareto, accuracy, loss, gap, progress, importance, confusion, recall or parallel.

        Raises:
            InputError: There is no such figure, or Plotly is not installed.
            NothingToDo: Its trials do not suffice for it yet.
        """
        try:
            from fer_sweep.notebook.cells import plotted  # only here: optuna and Plotly take a second to import
        except ImportError as error:
            raise InputError(f"{error.name} is not installed", hint=f"pip install {error.name}") from None
        return plotted(_gathered([self.entry]), kind)

    @checked_call
    def report(self, path: File = "report.html") -> Path:
        """Write the HTML report, one file that needs no network; ``IPython.display.IFrame`` shows it in a cell.

        Args:
            path: Where it is written, replacing what is there.

        Raises:
            NothingToDo: It has no trials yet.
        """
        from fer_sweep.reports.html import render  # only here: optuna and Plotly take a second to import

        gathered = _gathered([self.entry])
        if not gathered.trials:
            raise NothingToDo(f"no trials yet: {self.id}", hint="train some: sweep.agent()")
        write_atomically(Path(path), render(gathered, described()))
        return Path(path)


def gpu_words(gpus: Gpus) -> str:
    """GPUs as ``--gpus`` takes them.

    >>> gpu_words([0, "GPU-8a"]), gpu_words(0), gpu_words("auto"), gpu_words([])
    ('0,GPU-8a', '0', 'auto', 'none')
    """
    if isinstance(gpus, str | int):
        return str(gpus)
    return ",".join(map(str, gpus)) or "none"


def choice_among(opened: Sequence[OpenedSweep]) -> Choice:
    """The choice among all trials of some opened sweeps."""
    return Choice(**vars(choose(opened)), entries=tuple(sweep.entry for sweep in opened))


def _gathered(entries: Sequence[SweepEntry]) -> "Report":
    from fer_sweep.reports.sources import gather  # only here: optuna and Plotly take a second to import

    with contextlib.ExitStack() as stack:
        return gather([stack.enter_context(open_entry(entry)) for entry in entries])
