"""Figures: numbers in, a matplotlib Figure out; `save` writes it as PNG, and as SVG that takes the page's colours.

Nothing here depends on records, and matplotlib's global state stays unchanged. Positions are in points; a figure is 320
points wide, so that text stays legible on a phone.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if "MPLBACKEND" in os.environ and "matplotlib" not in sys.modules:
    backend = os.environ.pop("MPLBACKEND")  # one that does not exist makes the import fail, and figures need none
    import matplotlib

    os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = backend
import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from alexlab.console import printable
from alexlab.files import write_atomic
from alexlab.study.colour import colour_indices
from alexlab.study.metrics import epochs_to
from alexlab.study.statistics import quantile
from alexlab.tiles import per_row, shown, tiles

if TYPE_CHECKING:  # made with torch, which takes seconds to load
    from alexlab.report.neighbours import Answers, Neighbours

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
MOST_DRAWN = 300  # characters of a line, of which a figure has room for fewer
MOST_LETTERS = 17  # in a line of an arm's name beside a plot
MOST_NAMES = 120.0  # points, of the names beside a plot
RANGE_UNDER = 5  # seeds: with fewer a band shows the range, else the standard deviation
MOST_OF_MEDIAN = 6.0  # times the median of all rows; an effect of a forest that reaches farther is cut off
MOST_CLASSES = 20  # of a plot of classes
MOST_DOTS = 30  # seeds of an arm in it
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
def _style() -> Iterator[None]:
    """Set matplotlib's defaults, whatever the user's files say, and our style; restore everything afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)  # display units are points
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a position in points."""
    total = figure.get_figheight() * 72
    return figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))


def _text_width(figure: Figure, text: str, size: float = SMALL) -> float:
    drawn = figure.text(0, 0, text, fontsize=size)
    width = drawn.get_window_extent().width
    drawn.remove()
    return width


def _cut(figure: Figure, text: str, width: float, size: float = SMALL) -> str:
    """Shorten a text until it fits."""
    if _text_width(figure, text[:MOST_DRAWN], size) <= width and len(text) <= MOST_DRAWN:
        return text
    fits, too_long = 1, min(len(text), MOST_DRAWN)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        is_short = _text_width(figure, text[:middle].rstrip() + "…", size) <= width
        fits, too_long = (middle, too_long) if is_short else (fits, middle)
    return text[:fits].rstrip() + "…"


def _signed(number: float, digits: int) -> str:
    return f"{number:+.{digits}f}".replace("-", "−")


# ---------------------------------------------------------------------------------------------------------------------
# Claims
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForestRow:
    """One claim; effects and half widths in points, None (or NaN) where there is none."""

    name: str
    effect: float | None = None
    half: float | None = None  # of the effect's own 95 % interval; infinite: it reaches over the figure's edges
    study: float | None = None  # of the interval that holds for all of the study's claims at once
    published: float | None = None
    section: str = ""  # a heading, where it is not the one before
    at_least: bool = False  # what was published is a bound: "over 1 point"
    noise: float | None = None  # half width of the 95 % interval that the published pair of single runs has by itself
    verdict: str = ""
    runs: str = ""  # of each arm
    has_side: bool = True  # whether it has a direction


@_style()
def forest(rows: Sequence[ForestRow], xlabel: str = "effect, points", watermark: str = "") -> Figure:
    """A forest plot: for each claim the published effect, hollow, and the measured one with its two intervals.

    Rows are oriented so that the claimed direction, which is shaded, is right. All are of one kind of quantity, which
    `xlabel` names. The published effect has the interval of a pair of single runs. `watermark` is set across the plot.
    The axis is linear; an effect or interval that leaves the figure ends in an arrow, and its row has the number. Names
    are above the lines, which have the whole width.

    Raises:
        ValueError: without rows.
    """
    if not rows:
        raise ValueError("rows: is empty")
    left, right, lane, top, bottom = 10.0, 10.0, 15.0, 54.0, 38.0
    letters = 40
    names = [textwrap.wrap(row.name, letters) or [""] for row in rows]
    heads = [bool(row.section) and (i == 0 or rows[i - 1].section != row.section) for i, row in enumerate(rows)]
    body = sum(
        (len(name) + bool(row.verdict or row.runs)) * LINE_HEIGHT + lane + 7 + 17 * head
        for row, name, head in zip(rows, names, heads, strict=True)
    )
    figure = _figure(top + body + bottom)
    axes = _axes(figure, left, bottom, WIDTH - left - right, body)
    low, high = _scale(axes, rows, xlabel)
    axes.set_ylim(body, 0)
    if any(row.has_side for row in rows):
        axes.axvspan(0, high, color=GREEN, alpha=0.07, linewidth=0)
    _watermark(axes, watermark)
    axes.spines["left"].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.yaxis.set_major_locator(NullLocator())
    axes.tick_params(top=True, labeltop=True, length=3)
    beside = axes.get_yaxis_transform()  # x as a share of the width
    y = 0.0
    for row, name, head in zip(rows, names, heads, strict=True):
        if head:
            y += 17
            axes.text(0, y - 4, row.section, transform=beside, weight="bold", fontsize=SIZE, va="baseline")
        axes.text(1, y + 10, _effect_text(row), transform=beside, fontsize=SMALL, ha="right", va="baseline", alpha=0.75)
        for line in name:
            y += LINE_HEIGHT
            axes.text(0, y - 1.5, line, transform=beside, fontsize=SIZE, va="baseline")
        if row.verdict or row.runs:
            y += LINE_HEIGHT
            label = "; ".join(part for part in (row.verdict, row.runs) if part)
            axes.text(0, y - 1.5, _cut(figure, label, 296), transform=beside, fontsize=SMALL, va="baseline", alpha=0.75)
        strip = Rectangle((0, y + 1), 1, lane, transform=beside, facecolor=INK, alpha=0.05, linewidth=0)
        axes.add_patch(strip)
        axes.plot([0, 0], [y + 1, y + 1 + lane], color=INK, linewidth=0.8, solid_capstyle="butt")
        _interval(axes, row, y + 1 + lane / 2, low, high)
        y += lane + 7
    _forest_key(figure, any(row.at_least for row in rows))
    return figure


def _given(*numbers: float | None) -> list[float]:
    return [number for number in numbers if number is not None and not math.isnan(number)]


def _effect_text(row: ForestRow) -> str:
    if not _given(row.effect):
        return "no result"
    assert row.effect is not None
    half = row.half if _given(row.half) and row.half != math.inf else None
    digits = 2 if (half or 1) < 0.095 else 1
    return _signed(row.effect, digits) + ("" if half is None else f" ± {half:.{digits}f}")


def _scale(axes: Axes, rows: Sequence[ForestRow], xlabel: str) -> tuple[float, float]:
    """Set up the axis of effects and return its ends."""
    inner, outer, extents = [0.0], [0.0], []
    for row in rows:
        inner += _given(row.published)
        for effect, half in itertools.product(_given(row.effect), [0.0, *_given(row.half), *_given(row.study)]):
            ends = [end for end in (effect - half, effect + half) if math.isfinite(end)]
            outer += ends
            if half in (0.0, row.half):
                inner += ends
                extents.append(max(map(abs, ends), default=0.0))
    published = max((abs(each) for row in rows for each in _given(row.published)), default=0.0)
    # One effect may be many times the others, and the study interval of few runs many times the rest: cut off.
    most = min(max(map(abs, inner)), max(MOST_OF_MEDIAN * float(np.median(extents or [0.0])), 1.1 * published))
    reach = 3 * most if most == max(map(abs, inner)) else most
    reach = reach or 1.0
    low, high = max(min(inner + outer), -reach), min(max(inner + outer), reach)
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    sides = "against the claim ← {} → as claimed" if any(row.has_side for row in rows) else "{}"
    axes.set_xlabel(sides.format(xlabel))
    return low, high


def _interval(axes: Axes, row: ForestRow, y: float, low: float, high: float) -> None:
    if _given(row.effect):
        assert row.effect is not None
        for half, width in ((row.study, 1.0), (row.half, 3.4)):
            if not _given(half):
                continue
            assert half is not None
            ends = [min(max(end, low), high) for end in (row.effect - half, row.effect + half)]
            axes.plot(ends, [y, y], color=BLUE, linewidth=width, solid_capstyle="butt")
            for end, edge, arrow in ((row.effect - half, low, "<"), (row.effect + half, high, ">")):
                if end < low or end > high:
                    axes.plot(edge, y, marker=arrow, color=BLUE, markersize=6, clip_on=False, linestyle="none")
        if low <= row.effect <= high:
            axes.plot(row.effect, y, marker="o", color=BLUE, markersize=6.5, clip_on=False, linestyle="none")
        elif not _given(row.half):
            edge, arrow = (low, "<") if row.effect < low else (high, ">")
            axes.plot(edge, y, marker=arrow, color=BLUE, markersize=6, clip_on=False, linestyle="none")
    if _given(row.published):
        assert row.published is not None
        marker = ("<" if row.published < 0 else ">") if row.at_least else "D"
        hollow = {"markerfacecolor": "none", "markeredgewidth": 1.5, "linestyle": "none", "clip_on": False}
        if _given(row.noise):
            assert row.noise is not None
            ends = [max(row.published - row.noise, low), min(row.published + row.noise, high)]
            axes.plot(ends, [y + 4.5, y + 4.5], color=RED, linewidth=1, alpha=0.8, solid_capstyle="butt")
        axes.plot(row.published, y, marker=marker, color=RED, markersize=8, **hollow)


def _forest_key(figure: Figure, has_bounds: bool) -> None:
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.5, "linestyle": "none"}
    entries = [
        (Line2D([], [], color=BLUE, marker="o", markersize=6.5, linewidth=3.4), "measured, 95 % interval"),
        (Line2D([], [], color=BLUE, linewidth=1), "study-wise interval"),
        (Line2D([], [], color=RED, marker="D", markersize=7, **hollow), "published, with noise"),
    ]
    if has_bounds:
        entries.append((Line2D([], [], color=RED, marker="<", markersize=8, **hollow), "published, or more"))
    handles, texts = zip(*entries, strict=True)
    figure.legend(handles, texts, loc="upper left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0.3, columnspacing=1.2)


# ---------------------------------------------------------------------------------------------------------------------
# Learning curves
# ---------------------------------------------------------------------------------------------------------------------


@_style()
def curves(arms: Mapping[str, np.ndarray], ylabel: str, percent: bool = False) -> Figure:
    """Plot each arm's mean over seeds by epoch, with a band, from arrays [seeds, epochs]; `percent`: of fractions.

    The band is the range over seeds, or one standard deviation on either side if every arm with more than one seed has
    5 or more; the figure says which. A mean is over the seeds that have a number at that epoch.

    Raises:
        ValueError: without arms, or for arrays of another shape.
    """
    size = 100 if percent else 1
    figure, _ = _lines({name: size * values for name, values in _checked(arms).items()}, {}, ylabel)
    return figure


@_style()
def multiples(base: np.ndarray, arms: Mapping[str, np.ndarray], ylabel: str, percent: bool = False) -> Figure:
    """Plot each arm's learning curves in a panel of its own, with the base's mean in grey.

    Up to 5 seeds are thin lines, more a band of one standard deviation on either side of the mean.

    Arrays are [seeds, epochs], `percent`: of fractions. All panels have the same axes.

    Raises:
        ValueError: without arms, or for arrays of another shape.
    """
    size = 100 if percent else 1
    arms = {name: size * values for name, values in _checked(arms).items()}
    grey = size * _checked({"base": base})["base"]
    columns, width, height, left, right = 3, 86.0, 62.0, 36.0, 6.0
    gap, head, bottom = (WIDTH - left - right - columns * width) / (columns - 1), 22.0, 36.0
    rows = -(-len(arms) // columns)
    figure = _figure(rows * (head + height) + bottom)
    total = figure.get_figheight() * 72
    every = [grey, *arms.values()]
    epochs = max(values.shape[1] for values in every)
    numbers = np.concatenate([values[np.isfinite(values)] for values in every])
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)
    for place, (name, values) in enumerate(arms.items()):
        row, column = divmod(place, columns)
        axes = _axes(figure, left + column * (width + gap), total - (row + 1) * (head + height), width, height)
        axes.set_xlim(*((1, epochs) if epochs > 1 else (0.5, 1.5)))
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True) if epochs > 1 else FixedLocator([1]))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        is_last = place + columns >= len(arms)
        axes.tick_params(labelbottom=is_last, labelleft=column == 0, length=2, pad=2)
        for each, colour, thin in ((grey, GREY, False), (values, BLUE, True)):
            here = np.isfinite(each).any(0)
            x, known, alone = np.flatnonzero(here) + 1, each[:, here], "." if here.sum() == 1 else ""
            if thin and 1 < len(each) <= RANGE_UNDER:
                axes.plot(x, known.T, color=colour, linewidth=0.6, alpha=0.35, clip_on=False)
            elif thin and len(each) > 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # one seed has no deviation
                    mean, sd = np.nanmean(known, 0), np.nan_to_num(np.nanstd(known, 0, ddof=1))
                axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.18, linewidth=0)
            if here.any():
                width_ = 1.6 if thin else 1.3
                axes.plot(x, np.nanmean(known, 0), color=colour, linewidth=width_, marker=alone, clip_on=False)
        label = _cut(figure, name, width + gap - 4)
        axes.text(0, 1.05, label, transform=axes.transAxes, fontsize=SMALL, va="bottom")
        _grid(axes)
    figure.text(10 / WIDTH, 5 / total, f"{ylabel}, by epoch", fontsize=SMALL)
    return figure


@_style()
def speed(arms: Mapping[str, np.ndarray], threshold: float = 0.25, epochs: np.ndarray | None = None) -> Figure:
    """Plot figure 1: training error, a fraction [seeds, entries], by epoch and arm, and the epochs to a threshold.

    `epochs`: after how many epochs each entry was logged; None = after 1, 2, 3, ... The epochs to the threshold are the
    mean of `epochs_to` over the seeds that reach it and, if all do, its ratio to the first arm's.

    Raises:
        ValueError: without arms, or for arrays of another shape.
    """
    arms = _checked(arms)
    logged = np.arange(1.0, max(values.shape[1] for values in arms.values()) + 1) if epochs is None else epochs
    times = {name: np.array([epochs_to(row, threshold, logged) for row in values]) for name, values in arms.items()}
    base = next(iter(times.values())).mean()
    notes = {
        name: _reached(each, len(arms[name]), base if i else math.nan, float(logged[0]))
        for i, (name, each) in enumerate(times.items())
    }
    percent = {name: 100 * values for name, values in arms.items()}
    figure, axes = _lines(percent, notes, "training error, %", top=20, level=100 * threshold, epochs=logged)
    for each, (colour, _) in zip(times.values(), _ways(), strict=False):
        if np.isfinite(each).all() and len(each):
            axes.plot(each.mean(), 100 * threshold, marker="o", color=colour, markersize=5.5, zorder=4)
    words = f"Epochs to {100 * threshold:g} %"
    if len(times) == 2:
        (first, one), (second, other) = times.items()
        ratio = other.mean() / one.mean()
        if math.isfinite(ratio):
            words = f"{second} takes {ratio:.1f} times as many epochs to {100 * threshold:g} % as {first}"
    figure.text(10 / WIDTH, 1 - 4 / (72 * figure.get_figheight()), _cut(figure, words, WIDTH - 20, SIZE), va="top")
    return figure


def _reached(times: np.ndarray, seeds: int, base: float, first: float) -> str:
    there = times[np.isfinite(times)]
    if not len(there):
        return "never reached"
    words = ("at most " if (there == first).all() else "") + f"{there.mean():.1f} epochs"
    if len(there) < seeds:
        return f"{len(there)} of {seeds} seeds:\n{words}"
    return words + (f" ({there.mean() / base:.1f}×)" if math.isfinite(base) else "")


def _checked(arms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not arms:
        raise ValueError("arms: is empty")
    found = {name: np.asarray(values, dtype=np.float64) for name, values in arms.items()}
    for name, values in found.items():
        if values.ndim != 2:
            raise ValueError(f"arms: {name} has the shape {values.shape}; give [seeds, epochs]")
        found[name] = np.where(np.isfinite(values), values, np.nan)
    return found


def _ways() -> Iterator[tuple[str, Any]]:
    """Colours and line styles, different for up to 28 arms."""
    for line in itertools.cycle(LINES):
        for colour in COLOURS:
            yield colour, line


@dataclass(frozen=True)
class _End:
    """The point of a plot that an arm's name is connected to, NaN if it has none."""

    text: str
    x: float
    y: float
    colour: str
    line: Any = "-"
    marker: str = ""


def _lines(
    arms: dict[str, np.ndarray],
    notes: dict[str, str],
    ylabel: str,
    top: float = 6,
    level: float | None = None,
    epochs: np.ndarray | None = None,
) -> tuple[Figure, Axes]:
    """Plot means and bands of values [seeds, entries], logged after so many `epochs` each; None = after 1, 2, 3, ...

    `notes`: lines below names of arms. `level`: a horizontal line; the plot starts at 0.
    """
    counts = [int(np.isfinite(values).any(1).sum()) for values in arms.values()]
    many = [count for count in counts if count > 1]
    is_range = min(many, default=0) < RANGE_UNDER
    ends, bands = [], []
    for (name, values), (colour, line) in zip(arms.items(), _ways(), strict=False):
        here, text = np.isfinite(values).any(0), _wrapped(name)
        entries = values.shape[1]
        logged = np.arange(1.0, entries + 1) if epochs is None else epochs[:entries]
        x, known = logged[here], values[:, here]
        if not len(x):
            ends.append(_End(f"{text}\nno values", math.nan, math.nan, colour, line))
            continue
        mean = np.nanmean(known, 0)
        if is_range:
            low, high = np.nanmin(known, 0), np.nanmax(known, 0)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # one seed has no deviation
                deviation = np.nan_to_num(np.nanstd(known, 0, ddof=1))
            low, high = mean - deviation, mean + deviation
        text += f"\n{notes[name]}" if name in notes else ""
        bands.append((x, mean, low, high, colour, line))
        ends.append(_End(text, float(x[-1]), float(mean[-1]), colour, line))
    figure, axes = _with_names(ends, bottom=48, top=top)
    for x, mean, low, high, colour, line in bands:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, mean, color=colour, linestyle=line, marker="." if len(x) == 1 else "")
    first = 1.0 if epochs is None else float(epochs[0])
    last = max((x[-1] for x, *_ in bands), default=1)
    axes.set_xlim(*((first, last) if last > 1 else (0.5, 1.5)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]) if last > 1 else FixedLocator([1]))
    axes.set_ylabel(ylabel)
    axes.set_xlabel("epoch")
    figure.text(10 / WIDTH, 6 / (72 * figure.get_figheight()), _band_words(counts, is_range), fontsize=SMALL)
    if level is not None:
        axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.set_ylim(bottom=0)
    _grid(axes)
    _write_names(figure, axes, ends)
    return figure, axes


def _band_words(counts: list[int], is_range: bool) -> str:
    least, most = min((count for count in counts if count), default=0), max(counts)
    if most <= 1:
        return "one seed an arm"
    seeds = f"{least}" if least == most else f"{least} to {most}"
    return f"lines: mean of {seeds} seeds; bands: " + ("lowest to highest" if is_range else "±1 sd")


def _watermark(axes: Axes, text: str) -> None:
    if text:
        axes.text(
            0.5, 0.5, text, transform=axes.transAxes, fontsize=34, rotation=35, ha="center", va="center", alpha=0.12
        )


def _grid(axes: Axes) -> None:
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)


def _with_names(ends: list[_End], bottom: float, top: float, left: float = 40) -> tuple[Figure, Axes]:
    """Make a figure with axes, and room beside them for the names."""
    height = max(190.0, sum(_height(end) for end in ends) + 4)
    figure = _figure(bottom + height + top)
    widest = max(_text_width(figure, line) for end in ends for line in end.text.split("\n"))
    gutter = min(widest, MOST_NAMES) + 36
    return figure, _axes(figure, left, bottom, WIDTH - left - gutter, height)


def _wrapped(name: str) -> str:
    """Wrap a name, also after the punctuation within keys such as model.lrn=false."""
    lines = [""]
    for part in re.findall(r"[^\s.=_]*[.=_\s]*", name):
        if lines[-1] and len((lines[-1] + part).rstrip()) > MOST_LETTERS:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines) or "-"


def _height(end: _End) -> float:
    return LINE_HEIGHT * (end.text.count("\n") + 1) + 3


def _write_names(figure: Figure, axes: Axes, ends: list[_End]) -> None:
    """Write each name beside the axes, as near to the height of its line's end as the others allow, with a connector.

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
    ys = _spread([float(y) for _, y in points], heights, box.y0 - 4, box.y1 + 4)
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
            text = _cut(figure, line, MOST_NAMES)
            figure.text((box.x1 + 33) / width, (at - down) / height, text, fontsize=SMALL, va="center_baseline")


def _spread(wanted: list[float], sizes: list[float], low: float, high: float) -> list[float]:
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


# ---------------------------------------------------------------------------------------------------------------------
# Cost
# ---------------------------------------------------------------------------------------------------------------------


@_style()
def cost(points: Sequence[tuple[str, float, float, float]]) -> Figure:
    """Plot error against training time: (name, seconds, error, half width), errors as fractions.

    The half width is that of the error's interval, NaN if there is none. The axis of time is logarithmic if one arm
    took over four times as long as another.

    Raises:
        ValueError: without points.
    """
    if not points:
        raise ValueError("points: is empty")
    known = [(seconds, 100 * error, 100 * half) for _, seconds, error, half in points]
    known = [each if math.isfinite(each[0]) and each[0] > 0 and math.isfinite(each[1]) else None for each in known]
    ends = []
    for (name, *_), each, (way, kind) in zip(points, known, _marks(), strict=False):
        text = _wrapped(name)
        x, y = each[:2] if each else (math.nan, math.nan)
        ends.append(_End(text if each else f"{text}\nno values", x, y, way, marker=kind))
    longest = max((each[0] for each in known if each), default=1.0)
    unit, size = ("hours", 3600) if longest >= 2 * 3600 else ("minutes", 60) if longest >= 120 else ("seconds", 1)
    ends = [replace(end, x=end.x / size) for end in ends]
    figure, axes = _with_names(ends, bottom=36, top=6)
    for end, each in zip(ends, known, strict=True):
        if each:
            if math.isfinite(each[2]):
                axes.plot([end.x] * 2, [end.y - each[2], end.y + each[2]], color=end.colour, linewidth=1.2, alpha=0.7)
            axes.plot(end.x, end.y, marker=end.marker, color=end.colour, markersize=6, linestyle="none")
    xs = [end.x for end in ends if math.isfinite(end.x)]
    if xs and max(xs) > 4 * min(xs):
        axes.set_xscale("log")
        axes.set_xlim(min(xs) / 1.3, max(xs) * 1.3)
        ticks = [digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5)]
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if min(xs) / 1.3 <= tick <= max(xs) * 1.3]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"training time, {unit}")
    axes.set_ylabel("error, %")
    _grid(axes)
    _write_names(figure, axes, ends)
    return figure


@_style()
def rates(arms: Mapping[str, Sequence[tuple[float, float | None]]], ylabel: str) -> Figure:
    """Plot what trials of learning rates came to: (rate, value) in any order, lower is better.

    Lines join the mean of each rate's trials. A trial without a value is a cross above the others. Both axes are
    logarithmic, that of values only if none is 0, as an error may be.

    Raises:
        ValueError: without arms, or without a trial.
    """
    if not any(arms.values()):
        raise ValueError("arms: has no trial")
    ends, drawn = [], []
    every = [value for trials in arms.values() for _, value in trials if value is not None]
    for (name, trials), (way, marker), (_, line) in zip(arms.items(), _marks(), _ways(), strict=False):
        known = sorted((rate, value) for rate, value in trials if value is not None)
        means = {rate: float(np.mean([value for one, value in known if one == rate])) for rate, _ in known}
        lost = [rate for rate, value in trials if value is None]
        x, y = [*means.items()][-1] if means else (math.nan, math.nan)
        ends.append(_End(_wrapped(name) + ("" if means else "\nno value"), x, y, way, marker=marker))
        drawn.append((known, means, lost, way, marker, line))
    figure, axes = _with_names(ends, bottom=48, top=6)
    axes.set_xscale("log")
    low, high = (min(every), max(every)) if every else (1.0, 10.0)
    is_log = low > 0
    if is_log:
        axes.set_yscale("log")
        above = high * (max(high / low, 1.3)) ** 0.14
        ends_of_y = low / (above / low) ** 0.08, above * (above / low) ** 0.06
    else:
        above = 1.14 * (high or 1.0)
        ends_of_y = -0.08 * above, 1.06 * above
    for number, (known, means, lost, way, marker, line) in enumerate(drawn):
        axes.plot([*means], [*means.values()], color=way, linestyle=line)
        axes.plot(*(zip(*known, strict=True) if known else ([], [])), marker, color=way, markersize=5, linestyle="none")
        # Crosses of arms at one rate stand below each other.
        height = above * (above / low) ** (-0.045 * number) if is_log else above * (1 - 0.045 * number)
        axes.plot(lost, [height] * len(lost), "x", color=way, markersize=5.5)
    tried = sorted({rate for trials in arms.values() for rate, _ in trials})
    across = tried[0] / 1.4, tried[-1] * 1.4
    axes.set_xlim(across)
    axes.set_ylim(*ends_of_y)
    for axis, (least, most) in ((axes.xaxis, across), (axes.yaxis, ends_of_y))[: 1 + is_log]:
        span = most / least
        digits = range(1, 10) if span < 4 else (1, 2, 5) if span < 40 else (1,)
        ticks = [digit * 10.0**power for power in range(-9, 9) for digit in digits]
        axis.set_major_locator(FixedLocator([tick for tick in ticks if least <= tick <= most]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("learning rate")
    axes.set_ylabel(ylabel)
    if any(lost for _, _, lost, *_ in drawn):
        figure.text(10 / WIDTH, 6 / (72 * figure.get_figheight()), "×: no value, see the table", fontsize=SMALL)
    _grid(axes)
    _write_names(figure, axes, ends)
    return figure


@_style()
def dots(arms: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, watermark: str = "") -> Figure:
    """Plot every run as a dot, one line per arm, with the arm's mean and its 95 % interval over seeds.

    `arms`: the values of runs that trained, and of those that trained only partly, which are hollow. The band is one
    standard deviation on either side of the first arm's mean.

    Raises:
        ValueError: without arms.
    """
    if not arms:
        raise ValueError("arms: is empty")
    figure, axes = _lanes(list(arms), lane=19.0, top=6.0)
    first = np.asarray(next(iter(arms.values()))[0], dtype=float)
    if len(arms) > 1 and len(first) > 1:
        axes.axvspan(first.mean() - first.std(ddof=1), first.mean() + first.std(ddof=1), color=BLUE, alpha=0.1, lw=0)
    if len(arms) > 1 and len(first):
        axes.axvline(first.mean(), color=BLUE, linewidth=0.8, alpha=0.6)
    for row, (trained, partly) in enumerate(arms.values()):
        axes.axhline(row, color=INK, linewidth=0.5, alpha=0.15)
        axes.plot(trained, [row - 0.14] * len(trained), "o", color=BLUE, markersize=4.5, alpha=0.55, markeredgewidth=0)
        axes.plot(partly, [row - 0.14] * len(partly), "o", color=RED, markersize=5, markerfacecolor="none")
        if len(trained):
            mean, half = float(np.mean(trained)), mean_half_width(trained)
            if math.isfinite(half):
                axes.plot([mean - half, mean + half], [row + 0.22] * 2, color=INK, linewidth=2.2, solid_capstyle="butt")
            axes.plot([mean, mean], [row - 0.38, row + 0.38], color=INK, linewidth=1.3)
    _watermark(axes, watermark)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(xlabel)
    return figure


def _lanes(names: Sequence[str], lane: float, top: float) -> tuple[Figure, Axes]:
    """A figure with a line of height `lane` for each name, which stands left of it, and `top` free above."""
    bottom, left = 38.0, 116.0
    body = lane * len(names)
    figure = _figure(top + body + bottom)
    axes = _axes(figure, left, bottom, WIDTH - left - 10, body)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [_cut(figure, name, left - 10) for name in names])
    axes.tick_params(axis="y", length=0, pad=2)
    axes.spines["left"].set_visible(False)
    return figure, axes


def mean_half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean over seeds, by Student's t; NaN for fewer than two."""
    count = len(values)
    return quantile(0.975, count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan


@_style()
def gaps(arms: Mapping[str, tuple[float, float]], names: tuple[str, str], xlabel: str, watermark: str = "") -> Figure:
    """Plot two numbers of each arm, such as its training and its test error, with the gap between them as a line.

    Raises:
        ValueError: without arms.
    """
    if not arms:
        raise ValueError("arms: is empty")
    figure, axes = _lanes(list(arms), lane=17.0, top=24.0)
    for row, (one, other) in enumerate(arms.values()):
        axes.plot([one, other], [row, row], color=INK, linewidth=1.2, alpha=0.4)
        axes.plot(one, row, "o", color=BLUE, markersize=6, markerfacecolor="none", markeredgewidth=1.4)
        axes.plot(other, row, "o", color=BLUE, markersize=6)
    _watermark(axes, watermark)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(xlabel)
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.4}
    marks = [Line2D([], [], color=BLUE, marker="o", markersize=6, linestyle="none", **one) for one in (hollow, {})]
    figure.legend(marks, names, loc="upper left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0.3, handletextpad=0.1)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Classes
# ---------------------------------------------------------------------------------------------------------------------


@_style()
def class_errors(arms: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Plot the error on each class, from fractions [seeds, classes] of up to four arms: seeds as dots, means as lines.

    Of more than 30 seeds the first 30 are dots, and the mean is of all. By the first arm's mean, the largest first; of
    more than 20 classes the 10 with most and the 10 with fewest errors.

    Raises:
        ValueError: without arms, or for arrays of another shape.
    """
    if not arms:
        raise ValueError("arms: is empty")
    for name, values in arms.items():
        if values.ndim != 2 or values.shape[1] != len(names) or not len(values):
            raise ValueError(f"arms: {name} has the shape {values.shape}; give [seeds, {len(names)} classes]")
    arms = dict(itertools.islice(arms.items(), len(MARKERS)))
    order = np.argsort(-next(iter(arms.values())).mean(0), kind="stable")
    if len(order) > MOST_CLASSES:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    top = 8.0 + 14.0 * (len(arms) if len(arms) > 1 else 0)
    figure, axes = _lanes([names[int(index)] for index in order], lane=8.0 + 9.0 * len(arms), top=top)
    for place, (values, (colour, marker)) in enumerate(zip(arms.values(), _class_marks(), strict=False)):
        offset = (place + 0.5) / len(arms) * 0.8 - 0.4
        rows = np.arange(len(order)) + offset
        shown = 100 * values[:, order]
        dots_of = shown[:MOST_DOTS]
        style = {"color": colour, "markersize": 3.6, "alpha": 0.5, "markeredgewidth": 0, "linestyle": "none"}
        axes.plot(dots_of.ravel(), np.tile(rows, len(dots_of)), marker=marker, **style)
        for row, mean in zip(rows, shown.mean(0), strict=True):
            half = 0.34 / len(arms)
            axes.plot([mean, mean], [row - half, row + half], color=colour if len(arms) > 1 else INK, linewidth=1.6)
    for row in range(1, len(order)):
        axes.axhline(row - 0.5, color=INK, linewidth=0.5, alpha=0.12)
    if len(order) < len(names):
        axes.axhline(len(order) / 2 - 0.5, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel("top-1 error on a class, %")
    if len(arms) > 1:
        marks = [
            Line2D([], [], color=colour, marker=marker, markersize=5, linestyle="none")
            for _, (colour, marker) in zip(arms, _class_marks(), strict=False)
        ]
        labels = [_cut(figure, name, WIDTH - 40) for name in arms]
        figure.legend(marks, labels, loc="upper left", bbox_to_anchor=(0, 1), borderpad=0.3, handletextpad=0.1)
    return figure


def _class_marks() -> Iterator[tuple[str, str]]:
    return zip(COLOURS, MARKERS, strict=False)


@_style()
def confusion(shares: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot how often images of a class (rows) are given each class (columns), from fractions [classes, classes].

    For more than 20 classes the 20 most frequent confusions are bars instead.

    Raises:
        ValueError: for an array of another shape.
    """
    count = len(names)
    if shares.shape != (count, count) or not count:
        raise ValueError(f"shares: have the shape {shares.shape}; give [{count}, {count}]")
    if count > MOST_CLASSES:
        return _confusions(shares, names)
    longest = max(_text_width_of(name) for name in names)
    left = min(longest, 92.0) + 12
    side = WIDTH - left - 6
    top = min(longest, 92.0) + 12
    figure = _figure(top + side + 8)
    axes = _axes(figure, left, 8, side, side)
    axes.imshow(np.ma.masked_less(100 * shares, 0.05), cmap=_blues(), vmin=0, vmax=100, aspect="auto")
    labels = [_cut(figure, name, left - 8) for name in names]
    axes.set_yticks(range(count), labels)
    axes.set_xticks(range(count), labels, rotation=90)
    axes.tick_params(length=0, pad=2, top=True, labeltop=True, bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    size = min(SMALL, 0.36 * side / count)
    for row, column in itertools.product(range(count), range(count)):
        share = 100 * shares[row, column]
        if share >= 0.5 and size >= 5:
            colour = "white" if share > 55 else INK
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=size, color=colour)
    for place in range(count + 1):
        axes.axhline(place - 0.5, color=INK, linewidth=0.4, alpha=0.2)
        axes.axvline(place - 0.5, color=INK, linewidth=0.4, alpha=0.2)
    return figure


def _text_width_of(text: str) -> float:
    return _text_width(_figure(10), text[:MOST_DRAWN])


def _blues() -> LinearSegmentedColormap:
    """From transparent to blue, so that a page's background shows."""
    return LinearSegmentedColormap.from_list("blues", [(*to_rgb(BLUE), 0.04), (*to_rgb(BLUE), 1.0)])


def _confusions(shares: np.ndarray, names: Sequence[str]) -> Figure:
    others = np.where(np.eye(len(names), dtype=bool), 0.0, shares)
    order = np.argsort(-others, axis=None, kind="stable")[:MOST_CLASSES]
    pairs = [divmod(int(place), len(names)) for place in order]
    lane, bottom, left = 16.0, 38.0, 190.0
    figure = _figure(6 + lane * len(pairs) + bottom)
    axes = _axes(figure, left, bottom, WIDTH - left - 10, lane * len(pairs))
    axes.barh(range(len(pairs)), [100 * others[pair] for pair in pairs], color=BLUE, height=0.7)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    labels = [f"{names[row]} as {names[column]}" for row, column in pairs]
    axes.set_yticks(range(len(pairs)), [_cut(figure, label, left - 10) for label in labels])
    axes.tick_params(axis="y", length=0, pad=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.set_xlabel("% of the class's images")
    return figure


def _marks() -> Iterator[tuple[str, str]]:
    for marker in itertools.cycle(MARKERS):
        for colour in COLOURS:
            yield colour, marker


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


@_style()
def kernels(conv1: np.ndarray, groups: int) -> Figure:
    """Figure 3: the kernels [K, 3, S, S] of the first layer, one tower below the other, and how much of each is colour.

    Each kernel is scaled by its own largest weight, with 0 as mid-grey.

    Raises:
        ValueError: for kernels of another shape, or a number that does not divide into towers.
    """
    indices = colour_indices(conv1)
    if groups < 1 or len(conv1) % groups or not len(conv1):
        raise ValueError(f"groups={groups}: {len(conv1)} kernels do not divide into them")
    each = len(conv1) // groups
    columns = per_row(each)
    rows = -(-each // columns)
    side = conv1.shape[-1]
    cell = min((WIDTH - 20) / columns, 44.0)  # with the gap of one weight
    gap = cell / (side + 1)
    block = rows * cell - gap
    head = 20.0
    figure = _figure(groups * (head + block) + 8 * (groups - 1) + 8)
    total = figure.get_figheight() * 72
    for tower in range(groups):
        own = slice(tower * each, (tower + 1) * each)
        top = tower * (head + block + 8)
        name = f"Tower {tower + 1}" if groups > 1 else "All kernels"
        share = f"{name}: {100 * indices[own].mean():.0f} % of a kernel's energy is colour, on average"
        figure.text(10 / WIDTH, 1 - (top + 14) / total, share, va="baseline")
        picture = tiles(shown(conv1[own]), columns)
        axes = _axes(figure, 10, total - top - head - block, columns * cell - gap, block)
        _image(axes, picture)
    return figure


def _image(axes: Axes, image: np.ndarray, interpolation: str = "none", frame: str | None = None) -> None:
    """Show an image without axes; `frame`: the colour of a frame."""
    axes.imshow(image, interpolation=interpolation, aspect="auto")
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        spine.set_color(frame or INK)
        spine.set_linewidth(2.2)


@_style()
def answers_figure(found: Answers) -> Figure:
    """Plot figure 4, left: test images with their class, and the probabilities of the five most likely classes.

    The bar of the true class is green.
    """
    count = len(found.images)
    image, gap, column = 62.0, 10.0, (WIDTH - 30) / 2
    row = image + 24
    rows = -(-count // 2)
    figure = _figure(rows * row + 4)
    total = figure.get_figheight() * 72
    for number in range(count):
        left, top = 10 + (number % 2) * (column + gap), (number // 2) * row + 18
        true = _cut(figure, found.true[number], column, SIZE)
        figure.text(left / WIDTH, 1 - (top - 5) / total, true, va="baseline", weight="bold")
        axes = _axes(figure, left, total - top - image, image, image)
        _image(axes, found.images[number], "antialiased")
        width = column - image - 8
        bars = _axes(figure, left + image + 8, total - top - image, width, image)
        bars.axis("off")
        bars.set_xlim(0, 1)
        bars.set_ylim(5, 0)
        for rank, (name, chance) in enumerate(zip(found.names[number], found.probabilities[number], strict=True)):
            colour = GREEN if name == found.true[number] else BLUE
            bars.add_patch(Rectangle((0, rank + 0.06), chance, 0.88, facecolor=colour, alpha=0.45, linewidth=0))
            words = _cut(figure, name, width - 4)
            bars.text(0.02, rank + 0.5, words, va="center_baseline", fontsize=SMALL)
    return figure


@_style()
def neighbours_figure(found: Neighbours) -> Figure:
    """Plot figure 4, right: test images, each with its nearest training images by the network and by pixels.

    Neighbours of the test image's own class have a green frame.
    """
    count, nearest = found.by_layer.shown.shape[:2]
    gap, big = 5.0, 62.0
    small = min(44.0, (WIDTH - 20 - big - 14 - gap * (nearest - 1)) / nearest)
    row = 2 * small + gap + 14
    head, foot = 4.0, 10 + 5 * LINE_HEIGHT
    figure = _figure(head + count * row + foot)
    total = figure.get_figheight() * 72
    for number in range(count):
        top = head + number * row
        _image(_axes(figure, 10, total - top - big, big, big), found.images[number], "antialiased")
        name = _cut(figure, found.true[number], big)
        figure.text(10 / WIDTH, 1 - (top + big + 10) / total, name, fontsize=SMALL, va="baseline")
        for line, nearby in enumerate((found.by_layer, found.by_pixels)):
            for rank in range(nearest):
                left, y = 10 + big + 14 + rank * (small + gap), total - top - small - line * (small + gap)
                is_same = nearby.names[number][rank] == found.true[number]
                axes = _axes(figure, left, y, small, small)
                _image(axes, nearby.shown[number, rank], "antialiased", frame=GREEN if is_same else None)
    units, pixels = (
        f"{100 * each.precision:.0f}\xa0±\xa0{100 * each.standard_error:.0f}\xa0%"
        for each in (found.by_layer, found.by_pixels)
    )
    words = (
        f"Upper rows: nearest by {found.layer}; lower rows: by pixels; green: of the test image's class. Over "
        f"{found.queries:,} test images {units} and {pixels} of the {nearest} nearest are (± standard error). "
        f"Searched: {found.pool:,} of {found.train_images:,} training images."
    )
    for number, line in enumerate(textwrap.wrap(words, 62)):
        y = (foot - 14 - number * LINE_HEIGHT) / total
        figure.text(10 / WIDTH, y, line, fontsize=SMALL, va="baseline")
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


_TAG = re.compile(r"<[^!>][^>]*>")  # texts and comments are never changed: matplotlib escapes < and > in them


def save(figure: Figure, stem: Path, with_pdf: bool = False) -> None:
    """Write <stem>.png, on white, and <stem>.svg, to be inlined in a page: transparent, in the page's text colour.

    The SVG's text is text, in the page's font; its ids begin with the stem's name, so that they are unique in a page.
    `with_pdf`: also <stem>.pdf, for print: 113 mm wide, text of 8.5 and 9.5 points, fonts embedded. The same figure
    gives the same bytes.
    """
    raster, drawing = io.BytesIO(), io.BytesIO()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(printable(text.get_text()))  # a control character is no XML
    with _style():
        matplotlib.rcParams["svg.hashsalt"] = stem.name
        figure.savefig(raster, format="png", dpi=150, facecolor="white", metadata={"Software": None})
        nothing: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawing, format="svg", dpi=110, transparent=True, metadata=nothing)  # its images' resolution
        if with_pdf:
            for_print = io.BytesIO()
            matplotlib.rcParams["pdf.fonttype"] = 42  # some journals refuse matplotlib's default, Type 3
            metadata: Any = dict.fromkeys(("CreationDate", "Creator", "Producer"))
            figure.savefig(for_print, format="pdf", dpi=300, metadata=metadata)
            write_atomic(stem.with_name(f"{stem.name}.pdf"), for_print.getvalue())
    write_atomic(stem.with_name(f"{stem.name}.png"), raster.getvalue())
    write_atomic(stem.with_name(f"{stem.name}.svg"), _for_a_page(drawing.getvalue().decode(), stem.name))


def _for_a_page(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]  # without the document type, which names a file elsewhere
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # A style sheet would be the whole page's.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*>", _root, svg, count=1)
    used = {one for tag in _TAG.findall(svg) for one in re.findall(r'(?:url\(|href=")#([^)"]+)', tag)}
    prefix = re.sub(r"\W", "_", name)

    def changed(found: re.Match[str]) -> str:
        tag = found[0].replace(INK, "currentColor")
        tag = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", tag)
        tag = re.sub(r"font: ([^;\"]*?px)[^;\"]*", r"font: \1 system-ui, sans-serif", tag)
        tag = re.sub(r"data:image/png;base64,([^\"]*)", _smaller, tag)
        tag = re.sub(r' (?:d|x|y|transform|points)="[^"]*"', _rounded, tag)
        tag = re.sub(r' id="([^"]+)"', lambda own: f' id="{prefix}-{own[1]}"' if own[1] in used else "", tag)
        return re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", tag)

    return re.sub(r">\s+<", "><", _TAG.sub(changed, svg))


def _root(found: re.Match[str]) -> str:
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', found[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} '
        f'{height}" width="{width}pt" height="{height}pt" style="max-width: 100%; height: auto" '
        'stroke-linejoin="round" stroke-linecap="butt">'
    )


def _rounded(found: re.Match[str]) -> str:
    is_path = found[0].startswith(' d="')
    digits = 1 if is_path else 2
    text = re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.{digits}f}".rstrip("0").rstrip("."), found[0])
    if not is_path or re.search("[CQ]", text):
        return text
    return re.sub(r" \n(L )?", " ", text).replace(' "', '"')  # further points of a line need no L


def _smaller(found: re.Match[str]) -> str:
    """Convert a photograph to JPEG, unless it is smaller as PNG or has transparent parts, as the kernels have."""
    image = Image.open(io.BytesIO(base64.b64decode(found[1])))
    if np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        return found[0]
    packed = io.BytesIO()
    image.convert("RGB").save(packed, "JPEG", quality=85)
    text = f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return min(text, found[0], key=len)
