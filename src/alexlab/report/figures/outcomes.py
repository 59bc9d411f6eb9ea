"""Results of runs: every run's error, training against test error, error against time, and trials of learning rates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from alexlab.report.figures.canvas import (
    BLUE,
    COLOURS,
    INK,
    MARKERS,
    RED,
    SMALL,
    WIDTH,
    colours_and_lines,
    draw_grid,
    draw_watermark,
    styled,
)
from alexlab.report.figures.labels import EndLabel, axes_with_labels, axes_with_lanes, wrapped, write_labels
from alexlab.study.statistics import mean_half_width


@styled()
def dots(arms: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, watermark: str = "") -> Figure:
    """Plot every run as a dot, one line per arm, with the arm's mean and its 95 % interval over seeds.

    `arms`: the values of runs that trained, and of those that trained only partly, which are hollow. The band is one
    standard deviation on either side of the first arm's mean.

    Raises:
        ValueError: without arms.
    """
    if not arms:
        raise ValueError("arms: is empty")
    figure, axes = axes_with_lanes(list(arms), lane=19.0, top=6.0)
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
    draw_watermark(axes, watermark)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(xlabel)
    return figure


@styled()
def gaps(arms: Mapping[str, tuple[float, float]], names: tuple[str, str], xlabel: str, watermark: str = "") -> Figure:
    """Plot two numbers of each arm, such as its training and its test error, with the gap between them as a line.

    Raises:
        ValueError: without arms.
    """
    if not arms:
        raise ValueError("arms: is empty")
    figure, axes = axes_with_lanes(list(arms), lane=17.0, top=24.0)
    for row, (one, other) in enumerate(arms.values()):
        axes.plot([one, other], [row, row], color=INK, linewidth=1.2, alpha=0.4)
        axes.plot(one, row, "o", color=BLUE, markersize=6, markerfacecolor="none", markeredgewidth=1.4)
        axes.plot(other, row, "o", color=BLUE, markersize=6)
    draw_watermark(axes, watermark)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(xlabel)
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.4}
    marks = [Line2D([], [], color=BLUE, marker="o", markersize=6, linestyle="none", **one) for one in (hollow, {})]
    figure.legend(marks, names, loc="upper left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0.3, handletextpad=0.1)
    return figure


@styled()
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
        text = wrapped(name)
        x, y = each[:2] if each else (math.nan, math.nan)
        ends.append(EndLabel(text if each else f"{text}\nno values", x, y, way, marker=kind))
    longest = max((each[0] for each in known if each), default=1.0)
    unit, size = ("hours", 3600) if longest >= 2 * 3600 else ("minutes", 60) if longest >= 120 else ("seconds", 1)
    ends = [replace(end, x=end.x / size) for end in ends]
    figure, axes = axes_with_labels(ends, bottom=36, top=6)
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
    draw_grid(axes)
    write_labels(figure, axes, ends)
    return figure


@styled()
def rates(arms: Mapping[str, Sequence[tuple[float, float | None]]], ylabel: str) -> Figure:
    """Plot the results of learning-rate trials: (rate, value) in any order, lower is better.

    Lines join the mean of each rate's trials. A trial without a value is a cross above the others. Both axes are
    logarithmic, that of values only if none is 0, as an error may be.

    Raises:
        ValueError: without arms, or without a trial.
    """
    if not any(arms.values()):
        raise ValueError("arms: has no trial")
    ends, drawn = [], []
    every = [value for trials in arms.values() for _, value in trials if value is not None]
    for (name, trials), (way, marker), (_, line) in zip(arms.items(), _marks(), colours_and_lines(), strict=False):
        known = sorted((rate, value) for rate, value in trials if value is not None)
        means = {rate: float(np.mean([value for one, value in known if one == rate])) for rate, _ in known}
        lost = [rate for rate, value in trials if value is None]
        x, y = [*means.items()][-1] if means else (math.nan, math.nan)
        ends.append(EndLabel(wrapped(name) + ("" if means else "\nno value"), x, y, way, marker=marker))
        drawn.append((known, means, lost, way, marker, line))
    figure, axes = axes_with_labels(ends, bottom=48, top=6)
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
        # Crosses of arms at one rate are below each other.
        height = above * (above / low) ** (-0.045 * number) if is_log else above * (1 - 0.045 * number)
        axes.plot(lost, [height] * len(lost), "x", color=way, markersize=5.5)
    tried = sorted({rate for trials in arms.values() for rate, _ in trials})
    across = tried[0] / 1.4, tried[-1] * 1.4
    axes.set_xlim(across)
    axes.set_ylim(*ends_of_y)
    for axis, (least, most) in ((axes.xaxis, across), (axes.yaxis, ends_of_y))[: 1 + is_log]:
        span = most / least
        digits = (1, 1.5, *range(2, 10)) if span < 4 else (1, 2, 5) if span < 40 else (1,)
        ticks = [digit * 10.0**power for power in range(-9, 9) for digit in digits]
        axis.set_major_locator(FixedLocator([tick for tick in ticks if least <= tick <= most]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("learning rate")
    axes.set_ylabel(ylabel)
    if any(lost for _, _, lost, *_ in drawn):
        figure.text(10 / WIDTH, 6 / (72 * figure.get_figheight()), "×: no value, see the table", fontsize=SMALL)
    draw_grid(axes)
    write_labels(figure, axes, ends)
    return figure


def _marks() -> Iterator[tuple[str, str]]:
    """Colours and markers, different for up to 28 arms."""
    for marker in itertools.cycle(MARKERS):
        for colour in COLOURS:
            yield colour, marker
