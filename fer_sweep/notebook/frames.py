"""Trials and epochs as pandas' DataFrames, what a person looks for first in the first columns."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fer_sweep.config.space import Space
from fer_sweep.errors import InputError
from fer_sweep.records import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

_FIRST = ("state", "best_val_acc", "train_val_gap", "verdict", "epochs_trained")


def frame_of_trials(sweep_id: str, records: Sequence[TrialRecord], space: Space) -> "pd.DataFrame":
    """One row per trial: _FIRST, the swept parameters, the other metrics, what else is known of it.

    A metric with the name of a parameter is left out.

    Raises:
        InputError: pandas is not installed.
    """
    fixed = {name for name, source in space.parameters.items() if source.size == 1}
    rows = [_row(sweep_id, record, fixed) for record in records]
    # A first trial that failed has no metrics, and would put those of others behind its reason.
    names = dict.fromkeys(name for part in zip(*rows, strict=True) for parts in part for name in parts)
    return _frame("trial", [{key: value for part in row for key, value in part.items()} for row in rows], tuple(names))


def frame_of_epochs(reports: Sequence[Mapping[str, float]]) -> "pd.DataFrame":
    """One row per epoch.

    Raises:
        InputError: pandas is not installed.
    """
    return _frame("epoch", reports)


def _row(sweep_id: str, record: TrialRecord, fixed: set[str]) -> list[dict[str, Any]]:
    """The parts of a row, in their order."""
    result, metrics = record.result, dict[str, Any](record.metrics)
    trained = metrics.pop("epochs", None) or metrics.get("epoch")
    first = {
        "trial": record.trial_id,
        "state": str(record.state),
        "best_val_acc": metrics.pop("best_val_acc", None),
        "train_val_gap": metrics.pop("train_val_gap", None),
        "verdict": str(result.verdict) if result else None,
        "epochs_trained": None if trained is None else int(trained),
    }
    swept = {name: value for name, value in record.parameters.items() if name not in fixed}
    others = {name: value for name, value in metrics.items() if name not in record.parameters}
    others["seconds"] = result.seconds if result else None
    constant = {name: value for name, value in record.parameters.items() if name in fixed}
    return [first, swept, others, constant | {"sweep": sweep_id, "reason": record.reason}]


def _frame(index: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> "pd.DataFrame":
    """Rows as a DataFrame with this index; without rows, with the first columns."""
    try:
        import pandas as pd  # only here: optional, and slow to import
    except ImportError:
        hint = "pip install 'fersweep[notebook]'; without it: trials()"
        raise InputError("pandas is not installed", hint=hint) from None
    columns = columns or ((index, *(_FIRST if index == "trial" else ())) if not rows else list(rows[0]))
    return pd.DataFrame([dict(row) for row in rows], columns=list(columns)).set_index(index)
