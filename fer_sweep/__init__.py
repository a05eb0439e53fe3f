"""fersweep: hyperparameter sweeps for facial expression recognition.

In Python, such as in a notebook: ``prepare``, ``create``, ``open_or_create``, ``run``, ``sweep``, ``best`` and
``restore``; see ``fer_sweep.api``. Nothing of it is imported before it is asked for.

    sweep = fer_sweep.open_or_create("simple_cnn", name="faces", data="synthetic", count=6)
    sweep.agent()
    sweep.best()
"""

from typing import TYPE_CHECKING, Any

from fer_sweep.version import __version__ as __version__

if TYPE_CHECKING:
    from fer_sweep.api import Choice as Choice
    from fer_sweep.api import Sweep as Sweep
    from fer_sweep.api import best as best
    from fer_sweep.api import create as create
    from fer_sweep.api import open_or_create as open_or_create
    from fer_sweep.api import prepare as prepare
    from fer_sweep.api import restore as restore
    from fer_sweep.api import run as run
    from fer_sweep.api import sweep as sweep

# `agent` and `records` are not among them: those are subpackages' names, so they are methods of a Sweep.
__all__ = ["Choice", "Sweep", "best", "create", "open_or_create", "prepare", "restore", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fer_sweep import api  # only here: it imports numpy, pydantic and more, and the command line must be quick

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING"})
