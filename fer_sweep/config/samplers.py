"""The algorithms that may propose the trials of a sweep of method bayes. Imports nothing heavy: ``--help`` needs it."""

from typing import Literal

Sampler = Literal["freeze_thaw", "tpe", "gp", "random", "cmaes"]
"""What a person may ask for, as ``create --sampler`` and ``create(sampler=...)`` take it."""

IN_WORDS = {
    "freeze_thaw": "freeze-thaw",
    "tpe": "TPE",
    "gp": "Gaussian process",
    "random": "random",
    "cmaes": "CMA-ES",
    "grid": "grid",
    "own": "your Optuna study",
}
"""Each of them, and what else an embedded search may be, as a person reads it."""
