"""What every figure is made with: its record, escaped labels and colours.

The colours are safe for colour-blind readers and have a contrast of at least 4.5:1 against the light and the dark
background. Figures use the light variants; the page exchanges each for its dark partner in the dark theme.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from fer_sweep.config.trial import ARCHITECTURES
from fer_sweep.formatting import plain


@dataclass(frozen=True)
class Figure:
    """A figure with what it says in words."""

    id: str
    title: str
    summary: str
    """Its caption, and the text for screen readers."""
    spec: dict[str, Any]
    """Plotly's JSON: data and layout; empty if there is nothing to draw."""
    heading: tuple[str, ...] = ()
    """Of a table with the figure's numbers, if it has one of its own."""
    body: tuple[tuple[str, ...], ...] = ()


def safe(text: str, limit: int = 60) -> str:
    """Escape untrusted text for a label of Plotly's, which interprets ``<a href=...>`` and ``%{x}``.

    >>> safe("<b>a & b</b>")
    '&lt;b&gt;a &amp; b&lt;/b&gt;'
    """
    return plain(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")


def figure_json(traces: Sequence[Any], *, height: int, **layout: Any) -> dict[str, Any]:
    """A figure as Plotly's JSON; the page adds fonts and background by its theme."""
    legend = {"orientation": "h", "yanchor": "top", "y": -0.28, "x": 0}
    figure = go.Figure(traces, {"height": height, "template": None, "legend": legend, **layout})
    document: dict[str, Any] = figure.to_plotly_json()
    return document


LINES = ("#0069a6", "#b84e00", "#00745a", "#a8326f", "#7a5c00", "#4b3bb0", "#1a7480", "#5a5f66")
"""For trials, architectures and sweeps, after Okabe and Ito (2008) and darkened for contrast with white."""
SCALE = ("#a8560f", "#806a12", "#52701f", "#1d6a3c", "#00452f")
"""From worse to better, which is green in both themes: it grows darker on light ground, brighter on dark ground."""
SHADES = ("#f3f7fc", "#b7cfe7", "#5c98ca", "#1f609f", "#08305e")
"""From 0 to 100 %."""
QUIET, STAR, BAND = "#656c79", "#b3123c", "#d9a400"
"""Guide lines, the winner, the one-standard-error band."""
STAR_MARKER = {"symbol": "star", "size": 16, "color": STAR}
_DARK_LINES = ("#56b4e9", "#ff9a5c", "#2fd6a3", "#f08cc4", "#e6c84b", "#a99dff", "#7fe3ef", "#bcc2ca")
_DARK_SCALE = ("#b9793f", "#ab9a4c", "#8bbd62", "#5fdc93", "#a5ffd0")
_DARK_SHADES = ("#1d2430", "#23415f", "#2f6ea2", "#6aa9d9", "#d0e7fb")
DARK = {
    **dict(zip(LINES, _DARK_LINES, strict=True)),
    **dict(zip(SCALE, _DARK_SCALE, strict=True)),
    **dict(zip(SHADES, _DARK_SHADES, strict=True)),
    **{QUIET: "#9aa4b2", STAR: "#ff6b8a", BAND: "#c79a1b"},
}
"""The dark partner of every light colour."""


def line_colour(place: int) -> str:
    """The colour of the n-th line."""
    return LINES[place % len(LINES)]


def colours_of(models: Sequence[str]) -> dict[str, str]:
    """The colour of each architecture, the same in every figure and report."""
    known = list(ARCHITECTURES)
    others = sorted(set(models) - set(known))
    return {model: line_colour([*known, *others].index(model)) for model in models}
