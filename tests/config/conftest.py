"""Import W&B's `sweeps` before any test does: version 0.3 uses a name that pydantic has renamed, and warns."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sweeps  # noqa: F401
