"""What tests of sweep files share."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sweeps 0.3 uses a name that pydantic has renamed
    import sweeps  # noqa: F401


def problems_behind_lines(text):
    """The problems that comments of a YAML file expect at their lines."""
    commented = (line.partition("  # ")[2] for line in text.splitlines())
    return [f"line {number}: {problem}" for number, problem in enumerate(commented, start=1) if problem]
