"""Names next to a plot: one for each lane, or one at the end of each line.

Names at ends of lines take three steps, since they need room next to the axes: `axes_with_labels` makes a figure with
that room, the caller draws, and `write_labels` writes the names, with connectors to the ends of the lines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alexlab.report.figures.canvas import LINE_HEIGHT, MOST_DRAWN, SMALL, WIDTH, add_axes, cut, make_figure, text_width

MOST_LETTERS = 17  # in a line of an arm's name next to a plot
MOST_NAMES = 120.0  # points, of the names next to a plot
LANE_NAMES = 106.0, 160.0  # points that names of lanes have at least and at most


def axes_with_lanes(names: Sequence[str], lane: float, top: float) -> tuple[Figure, Axes]:
    """A figure with a line of height `lane` for each name, which stands left of it, and `top` free above."""
    bottom, (least, most) = 38.0, LANE_NAMES
    body = lane * len(names)
    figure = make_figure(top + body + bottom)
    widest = max(text_width(figure, name[:MOST_DRAWN]) for name in names)
    left = min(max(widest, least), most) + 10
    axes = add_axes(figure, left, bottom, WIDTH - left - 10, body)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [cut(figure, name, left - 10) for name in names])
    axes.tick_params(axis="y", length=0, pad=2)
    axes.spines["left"].set_visible(False)
    return figure, axes


@dataclass(frozen=True)
class EndLabel:
    """An arm's name and the point of the plot that it is connected to, NaN if there is none."""

    text: str
    x: float
    y: float
    colour: str
    line: Any = "-"
    marker: str = ""


def axes_with_labels(ends: list[EndLabel], bottom: float, top: float, left: float = 40) -> tuple[Figure, Axes]:
    """Make a figure with axes, and room next to them for the names."""
    height = max(190.0, sum(_height(end) for end in ends) + 4)
    figure = make_figure(bottom + height + top)
    widest = max(text_width(figure, line) for end in ends for line in end.text.split("\n"))
    gutter = min(widest, MOST_NAMES) + 36
    return figure, add_axes(figure, left, bottom, WIDTH - left - gutter, height)


def wrapped(name: str) -> str:
    """Wrap a name, also after the punctuation within keys such as model.lrn=false."""
    lines = [""]
    for part in re.findall(r"[^\s.=_]*[.=_\s]*", name):
        if lines[-1] and len((lines[-1] + part).rstrip()) > MOST_LETTERS:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines) or "-"


def _height(end: EndLabel) -> float:
    return LINE_HEIGHT * (end.text.count("\n") + 1) + 3


def write_labels(figure: Figure, axes: Axes, ends: list[EndLabel]) -> None:
    """Write each name next to the axes, as near to the height of its line's end as the others allow, with a connector.

    The limits of the axes must be final.
    """
    axes.autoscale_view()  # which matplotlib puts off until it draws
    tight, place = axes.get_tightbbox(), axes.get_position()
    if tight is not None and tight.x0 < 4:  # the numbers at the axis are long
        axes.set_position(
            (place.x0 + (4 - tight.x0) / WIDTH, place.y0, place.width - (4 - tight.x0) / WIDTH, place.height)
        )
    box = axes.get_window_extent()
    points = [axes.transData.transform((end.x, end.y)) if math.isfinite(end.y) else (box.x1, box.y0) for end in ends]
    heights = [_height(end) for end in ends]
    # Of ends at one height the left one has the upper name: then connectors that rise do not cross.
    ys = spread([float(y - 1e-6 * x) for x, y in points], heights, box.y0 - 4, box.y1 + 4)
    width, height = figure.get_size_inches() * 72
    for end, (x, y), at in zip(ends, points, ys, strict=True):
        if math.isfinite(end.y):
            xs, line_ys = [x / width, (box.x1 + 13) / width], [y / height, at / height]
            figure.add_artist(Line2D(xs, line_ys, color=end.colour, linewidth=0.7, alpha=0.6, zorder=0))
        xs = np.array([box.x1 + 13, box.x1 + 29])
        sample = Line2D(xs / width, [at / height] * 2, color=end.colour, linestyle=end.line, linewidth=1.6)
        if end.marker:
            sample = Line2D([xs.mean() / width], [at / height], color=end.colour, marker=end.marker, markersize=5.5)
        figure.add_artist(sample)
        lines = end.text.split("\n")
        for number, line in enumerate(lines):
            down = LINE_HEIGHT * (number - (len(lines) - 1) / 2)
            text = cut(figure, line, MOST_NAMES)
            figure.text((box.x1 + 33) / width, (at - down) / height, text, fontsize=SMALL, va="center_baseline")


def spread(wanted: list[float], sizes: list[float], low: float, high: float) -> list[float]:
    """Place intervals as near to their wanted middles as possible without overlap, from low to high if they fit.

    Minimises the sum of squared moves, by isotonic regression (pool adjacent violators).
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    before = np.cumsum([0.0, *(sizes[i] for i in order)])
    offsets = before[:-1] + np.array([sizes[i] / 2 for i in order])
    blocks: list[tuple[float, int]] = []  # (mean, how many)
    for i, offset in zip(order, offsets, strict=True):
        mean, count = wanted[i] - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, many = blocks.pop()
            mean, count = (mean * count + other * many) / (count + many), count + many
        blocks.append((mean, count))
    shifts = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    middles = np.clip(shifts, low, max(low, high - before[-1])) + offsets
    found = [0.0] * len(wanted)
    for i, middle in zip(order, middles, strict=True):
        found[i] = float(middle)
    return found
