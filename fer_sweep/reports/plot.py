"""What every figure is made with: its record, escaped labels and colours.

The colours are safe for colour-blind readers and have a contrast of at least 3:1 against the light and the dark
background. Figures use the light variants; the page exchanges each for its dark partner in the dark theme.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

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


LINES = ("#0072b2", "#d05a00", "#00795c", "#a8326f", "#7a5c00", "#4b3bb0", "#1f7f8c", "#5a5f66")
"""For trials, architectures and sweeps, after Okabe and Ito (2008) and darkened for contrast with white."""
SCALE = ("#279e69", "#21868b", "#31688e", "#443a83", "#440154")
"""From worse to better: viridis, without the end that would vanish on the background."""
SHADES = ("#f3f7fc", "#b7cfe7", "#5c98ca", "#1f609f", "#08305e")
"""From 0 to 100 %."""
QUIET, STAR, BAND = "#6b7280", "#b3123c", "#d9a400"
"""Guide lines, the winner, the one-standard-error band."""
_DARK_LINES = ("#56b4e9", "#ff9a5c", "#2fd6a3", "#f08cc4", "#e6c84b", "#a99dff", "#7fe3ef", "#bcc2ca")
_DARK_SCALE = ("#3a76a8", "#22948f", "#35b779", "#90d743", "#fde725")
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
