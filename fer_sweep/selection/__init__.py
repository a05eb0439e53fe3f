"""From records to a decision: ranking, winner, warnings, confirmation with further seeds. All pure."""

from fer_sweep.selection.caveats import SHOWN, Caveat, caveats
from fer_sweep.selection.choice import (
    RULE,
    Candidate,
    Selection,
    decides,
    differing_data,
    select,
    select_each,
)
from fer_sweep.selection.confirmation import Comparison, Confirmed, compare, select_confirmed
from fer_sweep.selection.intervals import Mean, wilson

__all__ = [
    "RULE",
    "SHOWN",
    "Candidate",
    "Caveat",
    "Comparison",
    "Confirmed",
    "Mean",
    "Selection",
    "caveats",
    "compare",
    "decides",
    "differing_data",
    "select",
    "select_confirmed",
    "select_each",
    "wilson",
]
