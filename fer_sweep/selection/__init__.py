"""From records to a decision: ranking, winner, warnings, confirmation with further seeds. All pure."""

from fer_sweep.selection.caveats import Caveat, caveats
from fer_sweep.selection.choice import (
    RULE,
    Candidate,
    Selection,
    differing_data,
    gap_error,
    pareto_front,
    select,
    select_each,
    standard_error,
)
from fer_sweep.selection.confirmation import Comparison, Confirmed, compare, select_confirmed
from fer_sweep.selection.intervals import Mean, mean_interval, wilson

__all__ = [
    "RULE",
    "Candidate",
    "Caveat",
    "Comparison",
    "Confirmed",
    "Mean",
    "Selection",
    "caveats",
    "compare",
    "differing_data",
    "gap_error",
    "mean_interval",
    "pareto_front",
    "select",
    "select_confirmed",
    "select_each",
    "standard_error",
    "wilson",
]
