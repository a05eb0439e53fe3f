"""The opened sweep: everything that works on a sweep opens it once and passes it on.

    with open_sweep("abcd1234") as sweep:
        sweep.file, sweep.space, sweep.data
        sweep.state, sweep.trials()

``EmbeddedSweep`` has its search in a database of ours, ``ServedSweep`` on a W&B server. What the two do differently is
in their two modules, and nowhere else.
"""

from fer_sweep.sweeps.adding import open_entry
from fer_sweep.sweeps.entries import SweepEntry, known
from fer_sweep.sweeps.opened import Remaining, Sweep
from fer_sweep.sweeps.opening import last_searched, open_sweep, open_sweeps

__all__ = ["Remaining", "Sweep", "SweepEntry", "known", "last_searched", "open_entry", "open_sweep", "open_sweeps"]
