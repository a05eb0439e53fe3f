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


LINES = (
    ("#0072b2", "#56b4e9"),
    ("#d05a00", "#ff9a5c"),
    ("#00795c", "#2fd6a3"),
    ("#a8326f", "#f08cc4"),
    ("#7a5c00", "#e6c84b"),
    ("#4b3bb0", "#a99dff"),
    ("#1f7f8c", "#7fe3ef"),
    ("#5a5f66", "#bcc2ca"),
)
"""For trials, architectures and sweeps, after Okabe and Ito (2008) and darkened for contrast with white."""
SCALE = (
    ("#279e69", "#3a76a8"),
    ("#21868b", "#22948f"),
    ("#31688e", "#35b779"),
    ("#443a83", "#90d743"),
    ("#440154", "#fde725"),
)
"""From worse to better: viridis, without the end that would vanish on the background."""
SHADES = (
    ("#f3f7fc", "#1d2430"),
    ("#b7cfe7", "#23415f"),
    ("#5c98ca", "#2f6ea2"),
    ("#1f609f", "#6aa9d9"),
    ("#08305e", "#d0e7fb"),
)
"""From 0 to 100 %."""
QUIET = ("#6b7280", "#9aa4b2")
"""For guide lines."""
STAR = ("#b3123c", "#ff6b8a")
"""The winner."""
BAND = ("#d9a400", "#c79a1b")
"""The one-standard-error band."""
DARK = dict((*LINES, *SCALE, *SHADES, QUIET, STAR, BAND))
"""The dark partner of every light colour."""


def line_colour(place: int) -> str:
    """The colour of the n-th line."""
    return LINES[place % len(LINES)][0]


def colour_scale(colours: tuple[tuple[str, str], ...]) -> list[list[float | str]]:
    """A colour scale as Plotly takes it."""
    return [[place / (len(colours) - 1), light] for place, (light, _) in enumerate(colours)]
