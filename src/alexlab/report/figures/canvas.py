"""The canvas of all figures: their width, colours and style, and text that fits.

Positions are in points; a figure is 320 points wide, so that text stays legible on a phone.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH = 320.0  # of every figure, in points
INK = "#010203"  # of text and axes; in the SVG it becomes the page's text colour
GREY = "#8a8a8a"
BLUE, ORANGE, GREEN, RED = "#2f7fc1", "#d98c00", "#00966e", "#d55e00"
# Okabe and Ito's colours for all kinds of colour vision, in shades that are visible on white and on black.
COLOURS = (BLUE, RED, GREEN, ORANGE, "#b8609a", "#45a5d6", "#8a8a8a")
LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D")
SMALL, SIZE = 8.5, 9.5  # of text
LINE_HEIGHT = 11.5
MOST_DRAWN = 300  # characters of a line; a figure has room for fewer
_LOOK: dict[Any, Any] = {
    "font.size": SIZE,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "axes.labelsize": SIZE,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **{f"{axis}tick.{what}": INK for axis in "xy" for what in ("color", "labelcolor")},
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), SMALL),
}


@contextmanager
def styled() -> Iterator[None]:
    """Set matplotlib's defaults, whatever the user's files say, and our style; restore everything afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


def make_figure(height: float) -> Figure:
    """Make an empty figure of a height in points, whose texts can be measured."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)  # display units are points
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a position in points."""
    total = figure.get_figheight() * 72
    return figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))


def text_width(figure: Figure, text: str, size: float = SMALL) -> float:
    """Measure a text, in points."""
    drawn = figure.text(0, 0, text, fontsize=size)
    width = drawn.get_window_extent().width
    drawn.remove()
    return width


def cut(figure: Figure, text: str, width: float, size: float = SMALL) -> str:
    """Shorten a text until it fits."""
    if text_width(figure, text[:MOST_DRAWN], size) <= width and len(text) <= MOST_DRAWN:
        return text
    fits, too_long = 1, min(len(text), MOST_DRAWN)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        is_short = text_width(figure, text[:middle].rstrip() + "…", size) <= width
        fits, too_long = (middle, too_long) if is_short else (fits, middle)
    return text[:fits].rstrip() + "…"


def draw_watermark(axes: Axes, text: str) -> None:
    """Set a text large and pale across the axes, if there is one."""
    if text:
        axes.text(
            0.5, 0.5, text, transform=axes.transAxes, fontsize=34, rotation=35, ha="center", va="center", alpha=0.12
        )


def draw_grid(axes: Axes) -> None:
    """Draw horizontal lines behind everything else."""
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)


def colours_and_lines() -> Iterator[tuple[str, Any]]:
    """Colours and line styles, different for up to 28 arms."""
    for line in itertools.cycle(LINES):
        for colour in COLOURS:
            yield colour, line
