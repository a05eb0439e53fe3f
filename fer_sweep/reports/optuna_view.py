"""Our records as Optuna sees trials, for what Optuna can say of them: importances, and its dashboard."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fer_sweep.config.values import canonical
from fer_sweep.records import TrialRecord
from fer_sweep.reports.shown import Axis

_OUTSIDE = object()
"""None may be a choice."""
Choice = str | bool | int | float | None


def distributions(axes: Sequence[Axis], records: Sequence[TrialRecord]) -> dict[str, BaseDistribution]:
    """A distribution of Optuna's for every axis; one whose values are not known yet is left out."""
    found = {axis.name: _distribution(axis, records) for axis in axes}
    return {name: distribution for name, distribution in found.items() if distribution is not None}


def coordinates(record: TrialRecord, known: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A trial's parameters as Optuna takes them; one that lies outside its distribution is left out."""
    given = ((name, record.parameters[name], known[name]) for name in known if name in record.parameters)
    placed = {name: _placed(value, distribution) for name, value, distribution in given}
    return {name: value for name, value in placed.items() if value is not _OUTSIDE}


def is_number(value: object) -> bool:
    """Whether a parameter's value is a number; True and False are none.

    >>> is_number(0.5), is_number(True), is_number("0.5")
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def _placed(value: Any, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        value = value if _is_listed(value, distribution.choices) else canonical(value)
        return value if _is_listed(value, distribution.choices) else _OUTSIDE
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return value if is_number(value) and distribution.low <= value <= distribution.high else _OUTSIDE


def _is_listed(value: Any, choices: Sequence[Choice]) -> bool:
    # Python's 1 == True would take one for the other.
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _distribution(axis: Axis, records: Sequence[TrialRecord]) -> BaseDistribution | None:
    values = [record.parameters[axis.name] for record in records if axis.name in record.parameters]
    if axis.choices is not None:
        return CategoricalDistribution(_choices(axis.choices))
    if axis.bounds is None and not (values and all(map(is_number, values))):
        return CategoricalDistribution(_choices(values)) if values else None
    low, high = axis.bounds or (min(values), max(values))
    if values and all(isinstance(value, int) for value in values):
        return IntDistribution(round(low), max(round(low), round(high)), log=axis.log and round(low) > 0)
    return FloatDistribution(low, high, log=axis.log and low > 0)


def _choices(values: Sequence[Any]) -> list[Choice]:
    distinct = list({canonical(value): value for value in values}.values())
    is_plain = all(value is None or isinstance(value, bool | int | float | str) for value in distinct)
    # Optuna stores plain scalars only, and cannot tell True from 1.
    return distinct if is_plain and len(set(distinct)) == len(distinct) else [canonical(value) for value in distinct]
