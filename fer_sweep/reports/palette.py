"""The colours of figures: safe for colour-blind eyes, 3:1 and more against both grounds, a light and a dark one each.

Figures are made with the light ones; the page exchanges each for its dark partner when it is shown dark.
"""

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
"""For trials, architectures and sweeps, after Okabe and Ito (2008) and darkened until they stand out from white."""
SCALE = (
    ("#279e69", "#3a76a8"),
    ("#21868b", "#22948f"),
    ("#31688e", "#35b779"),
    ("#443a83", "#90d743"),
    ("#440154", "#fde725"),
)
"""From worse to better: viridis, its end that would vanish on the ground left out."""
SHADES = (
    ("#f3f7fc", "#1d2430"),
    ("#b7cfe7", "#23415f"),
    ("#5c98ca", "#2f6ea2"),
    ("#1f609f", "#6aa9d9"),
    ("#08305e", "#d0e7fb"),
)
"""From none to all, for shares."""
QUIET = ("#6b7280", "#9aa4b2")
"""For what is there for orientation."""
STAR = ("#b3123c", "#ff6b8a")
"""The winner."""
BAND = ("#d9a400", "#c79a1b")
"""The one-standard-error band."""


def exchange() -> dict[str, str]:
    """Light colour to dark one, for all of them."""
    return dict((*LINES, *SCALE, *SHADES, QUIET, STAR, BAND))


def line(place: int) -> str:
    """The colour of the n-th of several."""
    return LINES[place % len(LINES)][0]


def scale(colours: tuple[tuple[str, str], ...]) -> list[list[float | str]]:
    """A colour scale as Plotly takes it."""
    return [[place / (len(colours) - 1), light] for place, (light, _) in enumerate(colours)]
