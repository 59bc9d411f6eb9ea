"""The effects of a study's claims, published and measured, as a forest plot."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from alexlab.report.figures.canvas import (
    BLUE,
    GREEN,
    INK,
    LINE_HEIGHT,
    RED,
    SIZE,
    SMALL,
    WIDTH,
    add_axes,
    cut,
    draw_watermark,
    make_figure,
    styled,
)

MOST_OF_MEDIAN = 6.0  # times the median of all rows; an effect of a forest that reaches farther is cut off


@dataclass(frozen=True)
class ForestRow:
    """One claim; effects and half widths in points, or of ratios in octaves (log2), None (or NaN) if missing."""

    name: str
    effect: float | None = None
    half: float | None = None  # of the effect's 95 % interval; infinite: it extends beyond the figure
    study: float | None = None  # of the interval that holds for all of the study's claims at once
    published: float | None = None
    section: str = ""  # a heading, shown if it differs from the row before
    at_least: bool = False  # the published effect is a bound: "over 1 point"
    noise: float | None = None  # half width of the 95 % interval that the published pair of single runs has by itself
    verdict: str = ""
    runs: str = ""  # of each arm
    has_side: bool = True  # whether it has a direction


@styled()
def forest(
    rows: Sequence[ForestRow], xlabel: str = "effect, points", watermark: str = "", is_ratio: bool = False
) -> Figure:
    """A forest plot: for each claim the published effect, hollow, and the measured one with its two intervals.

    Rows are oriented so that the claimed direction, which is shaded, is right. All are of one kind of quantity, which
    `xlabel` names. The published effect has the interval of a pair of single runs. `watermark` is set across the plot.
    The axis is linear, or of ratios logarithmic; an effect or interval that leaves the figure ends in an arrow, and its
    row has the number. Names are above the lines, which have the whole width.

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
    figure = make_figure(top + body + bottom)
    axes = add_axes(figure, left, bottom, WIDTH - left - right, body)
    low, high = _scale(axes, rows, xlabel, is_ratio)
    axes.set_ylim(body, 0)
    if any(row.has_side for row in rows):
        axes.axvspan(0, high, color=GREEN, alpha=0.07, linewidth=0)
    draw_watermark(axes, watermark)
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
        effect = (_ratio_text if is_ratio else _effect_text)(row)
        axes.text(1, y + 10, effect, transform=beside, fontsize=SMALL, ha="right", va="baseline", alpha=0.75)
        for line in name:
            y += LINE_HEIGHT
            axes.text(0, y - 1.5, line, transform=beside, fontsize=SIZE, va="baseline")
        if row.verdict or row.runs:
            y += LINE_HEIGHT
            label = "; ".join(part for part in (row.verdict, row.runs) if part)
            axes.text(0, y - 1.5, cut(figure, label, 296), transform=beside, fontsize=SMALL, va="baseline", alpha=0.75)
        strip = Rectangle((0, y + 1), 1, lane, transform=beside, facecolor=INK, alpha=0.05, linewidth=0)
        axes.add_patch(strip)
        axes.plot([0, 0], [y + 1, y + 1 + lane], color=INK, linewidth=0.8, solid_capstyle="butt")
        _interval(axes, row, y + 1 + lane / 2, low, high)
        y += lane + 7
    _forest_key(figure, rows)
    return figure


def _given(*numbers: float | None) -> list[float]:
    return [number for number in numbers if number is not None and not math.isnan(number)]


def _effect_text(row: ForestRow) -> str:
    if not _given(row.effect):
        return "no result"
    assert row.effect is not None
    half = row.half if _given(row.half) and row.half != math.inf else None
    digits = min(max(1, math.ceil(-math.log10((half or 1) / 0.95))), 6)  # enough to show that the half width is not 0
    return _signed(row.effect, digits) + ("" if half is None else f" ± {half:.{digits}f}")


def _ratio_text(row: ForestRow) -> str:
    """Such as `7.20× (6.01 to 8.63)`."""
    if not _given(row.effect):
        return "no result"
    assert row.effect is not None
    text = f"{2**row.effect:.2f}×"
    if _given(row.half) and row.half is not None and math.isfinite(row.half):
        text += f" ({2 ** (row.effect - row.half):.2f} to {2 ** (row.effect + row.half):.2f})"
    return text


def _signed(number: float, digits: int) -> str:
    return f"{number:+.{digits}f}".replace("-", "−")


def _scale(axes: Axes, rows: Sequence[ForestRow], xlabel: str, is_ratio: bool) -> tuple[float, float]:
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
    if is_ratio:
        axes.set_xticks(ticks := _ratio_ticks(low, high), [f"{2**tick:.3g}×" for tick in ticks])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    sides = "against the claim ← {} → as claimed" if any(row.has_side for row in rows) else "{}"
    axes.set_xlabel(sides.format(xlabel))
    return low, high


def _ratio_ticks(low: float, high: float) -> list[float]:
    """Octaves within the axis: whole ones if it has two or more, else those of evenly spaced ratios."""
    if high - low >= 2:
        ticks = MaxNLocator(7, integer=True).tick_values(low, high)
    else:
        ratios = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(2**low, 2**high)
        ticks = [math.log2(ratio) for ratio in ratios if ratio > 0]
    return [float(tick) for tick in ticks if low <= tick <= high]


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


def _forest_key(figure: Figure, rows: Sequence[ForestRow]) -> None:
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.5}
    published = [row for row in rows if _given(row.published)]
    entries = [(Line2D([], [], color=BLUE, marker="o", markersize=6.5, linewidth=3.4), "measured, 95 % interval")]
    if any(_given(row.study) and row.study != row.half for row in rows):
        entries.append((Line2D([], [], color=BLUE, linewidth=1), "study-wise interval"))
    if not all(row.at_least for row in published):
        has_noise = any(_given(row.noise) for row in published)
        line = Line2D([], [], color=RED, marker="D", markersize=7, linewidth=1, **hollow)
        line.set_linestyle("-" if has_noise else "none")
        entries.append((line, "published, with noise" if has_noise else "published"))
    if any(row.at_least for row in published):
        entries.append(
            (Line2D([], [], color=RED, marker="<", markersize=8, linestyle="none", **hollow), "published, or more")
        )
    handles, texts = zip(*entries, strict=True)
    figure.legend(handles, texts, loc="upper left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0.3, columnspacing=1.2)
