"""A figure as a small static picture: what a notebook's cell shows of it without Plotly's 4 MB of script. Pure.

It draws what our figures of trials and epochs have: lines, stairs and markers on two numeric axes. Text and axes take
the colour of the page, so that it can be read in light and dark notebooks.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from fer_sweep.reports.plot import BAND, Figure

_WIDTH, _HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 10, 40
_DASHES = {"dash": "6 4", "dot": "2 3"}
_MOST_TOOLTIPS = 300
"""Markers with the name of their trial; of more, the picture would be large."""


def drawn(figure: Figure) -> Markup:
    """The picture, with its caption for screen readers; empty if there is nothing to draw."""
    traces = [trace for trace in figure.spec.get("data", ()) if trace["type"] == "scatter" and len(trace["x"])]
    if not traces:
        return Markup("")
    layout = figure.spec["layout"]
    x = _Axis(layout["xaxis"], [value for trace in traces for value in trace["x"]], _LEFT, _WIDTH - _RIGHT)
    y = _Axis(layout["yaxis"], [value for trace in traces for value in trace["y"]], _HEIGHT - _BOTTOM, _TOP)
    start = Markup(
        '<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}" '
        'style="max-width:100%;font:11px sans-serif" fill="currentColor">'
    ).format(w=_WIDTH, h=_HEIGHT, label=f"{figure.title}. {figure.summary}")
    # An inner svg clips what it draws: outliers lie outside of the axes.
    inner = Markup('<svg x="{x}" y="{y}" width="{w}" height="{h}" viewBox="{x} {y} {w} {h}">').format(
        x=_LEFT, y=_TOP, w=_WIDTH - _LEFT - _RIGHT, h=_HEIGHT - _TOP - _BOTTOM
    )
    shapes = [_band(shape, x) for shape in layout.get("shapes", ())]
    shapes += [part for trace in traces for part in _trace(trace, x, y)]
    return Markup("").join([start, *_frame(x, y), inner, *shapes, Markup("</svg></svg>")])


def legend(figure: Figure) -> list[tuple[str, str]]:
    """Name and colour of everything in the picture that has a name."""
    traces = [trace for trace in figure.spec.get("data", ()) if trace.get("showlegend", True) and trace.get("name")]
    return [(_text(trace["name"]), _colour(trace)) for trace in traces]


class _Axis:
    """From values to pixels."""

    def __init__(self, layout: dict[str, Any], values: Sequence[float | None], start: float, end: float) -> None:
        known = [value for value in values if value is not None]
        low, high = layout.get("range") or (min(known, default=0.0), max(known, default=1.0))
        if layout.get("rangemode") == "tozero":
            low = min(low, 0.0)
        if layout.get("range") is None:
            pad = 0.04 * (high - low) or 0.5
            low, high = low - pad, high + pad
        self.title = str(layout["title"]["text"])
        self.low, self.high, self._start, self._scale = low, high, start, (end - start) / (high - low)

    def at(self, value: float) -> float:
        return round(self._start + (value - self.low) * self._scale, 1)

    @property
    def ticks(self) -> Iterator[tuple[float, str]]:
        rough = (self.high - self.low) / 5
        decade = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= rough)
        for place in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            yield self.at(place * step), f"{round(place * step, 10):g}"


def _frame(x: _Axis, y: _Axis) -> Iterator[Markup]:
    line = Markup('<path d="M{},{}{}{}" stroke="currentColor" stroke-opacity="{}"/>')
    text = Markup('<text x="{}" y="{}" text-anchor="{}"{}>{}</text>')
    for place, name in x.ticks:
        yield line.format(place, _TOP, "V", _HEIGHT - _BOTTOM, 0.12)
        yield text.format(place, _HEIGHT - _BOTTOM + 14, "middle", "", name)
    for place, name in y.ticks:
        yield line.format(_LEFT, place, "H", _WIDTH - _RIGHT, 0.12)
        yield text.format(_LEFT - 5, place + 4, "end", "", name)
    yield text.format((_LEFT + _WIDTH) / 2, _HEIGHT - 6, "middle", "", x.title)
    turned = Markup(' transform="rotate(-90)"')
    yield text.format(-(_HEIGHT - _BOTTOM + _TOP) / 2, 11, "middle", turned, y.title)


def _band(shape: dict[str, Any], x: _Axis) -> Markup:
    start, end = (min(max(x.at(shape[edge]), _LEFT), _WIDTH - _RIGHT) for edge in ("x0", "x1"))
    rect = Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="{}" fill-opacity="0.22"/>')
    return rect.format(start, _TOP, round(end - start, 1), _HEIGHT - _TOP - _BOTTOM, BAND)


def _trace(trace: dict[str, Any], x: _Axis, y: _Axis) -> Iterator[Markup]:
    texts = trace.get("text") or [trace.get("name", "")] * len(trace["x"])
    points = [
        (x.at(a), y.at(b), f"{_text(text)}: {a:g}, {b:g}")
        for a, b, text in zip(trace["x"], trace["y"], texts, strict=True)
        if a is not None and b is not None
    ]
    if not points:
        return
    colour = _colour(trace)
    yield Markup('<g fill="{}" stroke="{}">').format(colour, colour)
    if "lines" in trace["mode"]:
        line = trace["line"]
        stairs = line.get("shape") == "hv"
        path = "".join(
            f"H{a}V{b}" if stairs and place else f"{'ML'[place > 0]}{a},{b}" for place, (a, b, _) in enumerate(points)
        )
        style = Markup('<path d="{}" fill="none" stroke-width="{}" stroke-dasharray="{}"/>')
        yield style.format(path, line.get("width", 2), _DASHES.get(line.get("dash", ""), "none"))
    if "markers" in trace["mode"]:
        marker = trace.get("marker", {})
        hollow = "open" in str(marker.get("symbol"))
        shape = Markup('<circle cx="{}" cy="{}" r="{}" fill-opacity="{}"><title>{}</title></circle>')
        star = Markup('<text x="{}" y="{}" text-anchor="middle" stroke="none" font-size="20">★<title>{}</title></text>')
        for a, b, text in points:
            told = text if len(points) <= _MOST_TOOLTIPS else ""
            if marker.get("symbol") == "star":
                yield star.format(a, b + 7, told)
            else:
                yield shape.format(a, b, marker.get("size", 6) / 2, 0.0 if hollow else 0.75, told)
    yield Markup("</g>")


def _colour(trace: dict[str, Any]) -> str:
    drawn: dict[str, Any] = trace.get("line" if "lines" in trace["mode"] else "marker") or {}
    return str(drawn.get("color", "currentColor"))


def _text(escaped: str) -> str:
    """A label of ``plot.safe`` as text, which is escaped again here."""
    return Markup(escaped).unescape()
