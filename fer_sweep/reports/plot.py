"""What every figure is made with: the record of one, labels that nobody steers, numbers in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from fer_sweep.reports.shown import plain


@dataclass(frozen=True)
class Figure:
    """A figure with what it says in words."""

    id: str
    title: str
    summary: str
    """For who cannot see it, and as its caption."""
    spec: dict[str, Any]
    """Plotly's JSON: data and layout."""
    heading: tuple[str, ...] = ()
    """Of a table with the figure's numbers, if it has one of its own."""
    body: tuple[tuple[str, ...], ...] = field(default=())


def safe(text: str, limit: int = 60) -> str:
    """Text from outside for a label of Plotly's, which would take ``<a href=...>`` for a link, ``%{x}`` for a number.

    >>> safe("<b>a & b</b>")
    '&lt;b&gt;a &amp; b&lt;/b&gt;'
    """
    return plain(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")


def figure_json(traces: Sequence[Any], *, height: int, **layout: Any) -> dict[str, Any]:
    """A figure as Plotly's JSON, without fonts and grounds: the page sets those, by its theme."""
    legend = {"orientation": "h", "yanchor": "top", "y": -0.28, "x": 0}
    figure = go.Figure(traces, {"height": height, "template": None, "legend": legend, "hovermode": "closest", **layout})
    document: dict[str, Any] = figure.to_plotly_json()
    return document


def in_percent(share: float, digits: int = 2) -> str:
    """A share in percent."""
    return f"{100 * share:.{digits}f} %"


def in_points(share: float) -> str:
    """A gap in percentage points."""
    return f"{100 * share:+.1f} points"
