"""Words for what has changed in a sweep: what differs between two versions of its file, and values."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from fer_sweep.config.sweep_file import SweepFile


def differences(old: SweepFile, new: SweepFile) -> Iterator[str]:
    """A line for each key and parameter that differs."""
    before, after = old.to_plain(), new.to_plain()
    for name in dict.fromkeys([*before, *after]):
        if name != "parameters":
            yield from moved(name, before.get(name), after.get(name))
    forms = [_forms(file.to_plain().get("parameters", {})) for file in (old, new)]
    for name in dict.fromkeys([*forms[0], *forms[1]]):
        yield from moved(name, forms[0].get(name), forms[1].get(name))


def _forms(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Each parameter as it is written, by dotted name; a constant as its value."""
    found: dict[str, Any] = {}
    for name, form in parameters.items():
        if "parameters" in form:
            found |= _forms(form["parameters"], f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = form["value"] if set(form) == {"value"} else form
    return found


def moved(name: str, before: Any, after: Any) -> Iterator[str]:
    """A line for a value that has changed; none if it has not."""
    if before != after:
        yield f"{name}: {_written(before)} -> {_written(after)}"


def _written(value: Any) -> str:
    if value is None:
        return "not set"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n...\n").strip()


def listed(values: Mapping[str, Any]) -> str:
    """Values by name, on one line."""
    return ", ".join(f"{name}={_written(value)}" for name, value in values.items())
