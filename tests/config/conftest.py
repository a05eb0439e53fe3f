"""What tests of sweep files share."""

import importlib
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sweeps 0.3 uses a name that pydantic has renamed
    importlib.import_module("sweeps")

import numpy as np

from fer_sweep.config.values import canonical


def problems_behind_lines(text):
    """The problems that comments of a YAML file expect at their lines."""
    commented = (line.partition("  # ")[2] for line in text.splitlines())
    return [f"line {number}: {problem}" for number, problem in enumerate(commented, start=1) if problem]


def can_be_drawn(distribution, value):
    """Whether a value is a quantile of a finite distribution, or within the bounds of another."""
    if distribution.size is None:
        return distribution.quantile(0.0) <= value <= distribution.quantile(1.0)
    return canonical(value) in {canonical(distribution.quantile(u)) for u in np.linspace(0, 1, 2_001).tolist()}
