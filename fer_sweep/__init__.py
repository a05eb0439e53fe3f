"""fersweep: hyperparameter sweeps for facial expression recognition.

In Python, such as in a notebook: ``prepare``, ``create``, ``run``, ``sweep``, ``best`` and ``restore``; see
``fer_sweep.api``. Nothing of it is imported before it is asked for.
"""

from typing import TYPE_CHECKING, Any

from fer_sweep.version import __version__ as __version__

if TYPE_CHECKING:
    from fer_sweep.api import Sweep as Sweep
    from fer_sweep.api import best as best
    from fer_sweep.api import create as create
    from fer_sweep.api import prepare as prepare
    from fer_sweep.api import restore as restore
    from fer_sweep.api import run as run
    from fer_sweep.api import sweep as sweep

# `agent` and `records` are not among them: those are subpackages' names, so they are methods of a Sweep.
__all__ = ["Sweep", "best", "create", "prepare", "restore", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fer_sweep import api  # only here: it imports numpy, pydantic and more, and the command line must be quick

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
