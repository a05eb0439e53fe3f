"""The opened sweep: code that works on a sweep opens it once and passes it on.

    with open_sweep("abcd1234") as sweep:
        sweep.file, sweep.space, sweep.data
        sweep.state, sweep.trials()

``EmbeddedSweep`` is searched by fersweep, with its state in a database; ``ServedSweep`` by a W&B server. Only their two
modules know the difference.
"""

from fer_sweep.sweeps.entries import SweepEntry, known
from fer_sweep.sweeps.opened import OPEN_STATES, Remaining, Sweep
from fer_sweep.sweeps.opening import last_searched, open_entry, open_sweep, open_sweeps

__all__ = [
    "OPEN_STATES",
    "Remaining",
    "Sweep",
    "SweepEntry",
    "known",
    "last_searched",
    "open_entry",
    "open_sweep",
    "open_sweeps",
]
