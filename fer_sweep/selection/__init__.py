"""From records to a decision: ranking, verdict, winner, what to be careful about, what more seeds say. All pure."""

from fer_sweep.selection.caveats import Caveat, caveats
from fer_sweep.selection.choice import Candidate, Selection, pareto_front, select, select_each, standard_error
from fer_sweep.selection.confirmation import Comparison, Confirmed, compare
from fer_sweep.selection.intervals import Mean, mean_interval, wilson

__all__ = [
    "Candidate",
    "Caveat",
    "Comparison",
    "Confirmed",
    "Mean",
    "Selection",
    "caveats",
    "compare",
    "mean_interval",
    "pareto_front",
    "select",
    "select_each",
    "standard_error",
    "wilson",
]
