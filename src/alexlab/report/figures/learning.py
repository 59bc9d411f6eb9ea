"""Learning curves: an error or a loss by epoch, and how fast arms learn, as in the paper's figure 1."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from alexlab.report.figures.canvas import (
    BLUE,
    GREY,
    INK,
    LINE_HEIGHT,
    SIZE,
    SMALL,
    WIDTH,
    add_axes,
    colours_and_lines,
    cut,
    draw_grid,
    make_figure,
    styled,
)
from alexlab.report.figures.labels import EndLabel, axes_with_labels, wrapped, write_labels
from alexlab.study.metrics import epochs_to

RANGE_UNDER = 5  # seeds: with fewer a band shows the range, else the standard deviation
MOST_OF_TITLE = 54  # characters of a line that fit above a plot


@styled()
def curves(arms: Mapping[str, np.ndarray], ylabel: str, percent: bool = False) -> Figure:
    """Plot each arm's mean over seeds by epoch, with a band, from arrays [seeds, epochs]; `percent`: of fractions.

    The band is the range over seeds, or one standard deviation on either side if every arm with more than one seed has
    5 or more; the figure says which. A mean is over the seeds that have a number at that epoch.

    Raises:
        ValueError: without arms, or for arrays of another shape.
    """
    arms = {name: (100 if percent else 1) * values for name, values in _checked(arms).items()}
    counts = [int(np.isfinite(values).any(1).sum()) for values in arms.values()]
    is_range = min((count for count in counts if count > 1), default=0) < RANGE_UNDER
    ends, bands = [], []
    for (name, values), (colour, line) in zip(arms.items(), colours_and_lines(), strict=False):
        here, text = np.isfinite(values).any(0), wrapped(name)
        x, known = np.flatnonzero(here) + 1.0, values[:, here]
        if not len(x):
            ends.append(EndLabel(f"{text}\nno values", math.nan, math.nan, colour, line))
            continue
        mean = np.nanmean(known, 0)
        if is_range:
            low, high = np.nanmin(known, 0), np.nanmax(known, 0)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # one seed has no deviation
                deviation = np.nan_to_num(np.nanstd(known, 0, ddof=1))
            low, high = mean - deviation, mean + deviation
        bands.append((x, mean, low, high, colour, line))
        ends.append(EndLabel(text, float(x[-1]), float(mean[-1]), colour, line))
    figure, axes = axes_with_labels(ends, bottom=48, top=6)
    for x, mean, low, high, colour, line in bands:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, mean, color=colour, linestyle=line, marker="." if len(x) == 1 else "")
    last = max((float(x[-1]) for x, *_ in bands), default=1.0)
    seeds, band = _seeds_words(list(arms.values())), "lowest to highest" if is_range else "±1 sd"
    note = "one seed an arm" if seeds is None else f"lines: mean of {seeds} seeds; bands: {band}"
    _finish(figure, axes, ends, ylabel, (1.0, last), note)
    return figure


@styled()
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
    gap, bottom = (WIDTH - left - right - columns * width) / (columns - 1), 36.0
    titles = [_in_two_lines(name, width + gap - 4) for name in arms]
    rows = [titles[first : first + columns] for first in range(0, len(titles), columns)]
    heads = [22.0 + LINE_HEIGHT * max(title.count("\n") for title in row) for row in rows]
    figure = make_figure(sum(heads) + len(rows) * height + bottom)
    total = figure.get_figheight() * 72
    every = [grey, *arms.values()]
    epochs = max(values.shape[1] for values in every)
    numbers = np.concatenate([values[np.isfinite(values)] for values in every])
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)
    for place, (title, values) in enumerate(zip(titles, arms.values(), strict=True)):
        row, column = divmod(place, columns)
        under = total - sum(heads[: row + 1]) - (row + 1) * height
        axes = add_axes(figure, left + column * (width + gap), under, width, height)
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
        axes.text(0, 1.05, title, transform=axes.transAxes, fontsize=SMALL, va="bottom")
        draw_grid(axes)
    figure.text(10 / WIDTH, 5 / total, f"{ylabel}, by epoch", fontsize=SMALL)
    return figure


def _in_two_lines(name: str, width: float) -> str:
    """Return the name if it fits, else in two lines, each shortened to fit."""
    ruler = make_figure(10)
    if cut(ruler, name, width) == name:
        return name
    first, *others = wrapped(name).split("\n")
    return "\n".join(cut(ruler, line, width) for line in (first, " ".join(others)) if line)


@styled()
def speed(arms: Mapping[str, np.ndarray], threshold: float = 0.25, epochs: np.ndarray | None = None) -> Figure:
    """Plot figure 1: the training error of every run by epoch, a fraction [seeds, entries], and how soon arms learn.

    `epochs`: after how many epochs each entry was logged; None = after 1, 2, 3, ... An arm's epochs to the threshold
    are the geometric mean of `epochs_to` over the seeds that reach it, since claims compare logarithms, and, if all
    do, its ratio to the first arm's.

    Raises:
        ValueError: without arms, or for arrays of another shape.
    """
    arms = _checked(arms)
    logged = np.arange(1.0, max(values.shape[1] for values in arms.values()) + 1) if epochs is None else epochs
    times = {name: np.array([epochs_to(row, threshold, logged) for row in values]) for name, values in arms.items()}
    first, *others = times
    base = _geometric_mean(times[first])
    words = f"Epochs to {100 * threshold:g} %"
    if len(others) == 1:
        ratio = _ratio(_geometric_mean(times[others[0]]), base)
        if math.isfinite(ratio):
            words = f"{others[0]} takes {ratio:.1f} times as many epochs to {100 * threshold:g} % as {first}"
    ends = []
    for (name, values), (colour, line) in zip(arms.items(), colours_and_lines(), strict=False):
        x, y = _end_of_arm(values, times[name], threshold, logged)
        note = _reached(times[name], base if name in others else math.nan, float(logged[0]))
        ends.append(EndLabel(f"{wrapped(name)}\n{note if math.isfinite(y) else 'no values'}", x, y, colour, line))
    title = textwrap.wrap(words, MOST_OF_TITLE)[:2]
    figure, axes = axes_with_labels(ends, bottom=48, top=8 + LINE_HEIGHT * len(title))
    longest = float(logged[0])
    for values, reached, end in zip(arms.values(), times.values(), ends, strict=True):
        for row in values:
            x, known = logged[: len(row)][np.isfinite(row)], 100 * row[np.isfinite(row)]
            width, alone = 1.6 if len(values) == 1 else 0.8, "." if len(x) == 1 else ""
            axes.plot(x, known, color=end.colour, linestyle=end.line, linewidth=width, marker=alone)
            longest = max([longest, *x])
        if len(reached) and np.isfinite(reached).all():
            axes.plot(end.x, end.y, marker="o", color=end.colour, markersize=5.5, zorder=4)
    axes.axhline(100 * threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.set_ylim(bottom=0)
    seeds = _seeds_words(list(arms.values()))
    each = "one seed an arm" if seeds is None else f"lines: {seeds} seeds; dots: geometric mean"
    _finish(figure, axes, ends, "training error, %", (float(logged[0]), longest), each)
    for number, text in enumerate(title):
        y = 1 - (4 + LINE_HEIGHT * number) / (72 * figure.get_figheight())
        figure.text(10 / WIDTH, y, cut(figure, text, WIDTH - 20, SIZE), va="top")
    return figure


def _geometric_mean(times: np.ndarray) -> float:
    """NaN unless all seeds reach the threshold."""
    if not len(times) or np.isnan(times).any():
        return math.nan
    with np.errstate(divide="ignore"):  # a time may be 0
        return float(np.exp(np.log(times).mean()))


def _ratio(time: float, base: float) -> float:
    return time / base if base else math.nan


def _end_of_arm(values: np.ndarray, times: np.ndarray, threshold: float, logged: np.ndarray) -> tuple[float, float]:
    """The point that an arm's name is connected to: its dot, else the end of its longest run; NaN without values."""
    if math.isfinite(mean := _geometric_mean(times)):
        return mean, 100 * threshold
    known = np.isfinite(values)
    if not known.any():
        return math.nan, math.nan
    row, entry = max(zip(*np.nonzero(known), strict=True), key=lambda place: place[1])
    return float(logged[entry]), 100 * float(values[row, entry])


def _reached(times: np.ndarray, base: float, first: float) -> str:
    there = times[np.isfinite(times)]
    if not len(there):
        return "never reached"
    mean = _geometric_mean(there)
    words = ("at most " if (there == first).all() else "") + f"{mean:.1f} epochs"
    if len(there) < len(times):
        return f"{len(there)} of {len(times)} seeds:\n{words}"
    ratio = _ratio(mean, base)
    return words + (f" ({ratio:.1f}×)" if math.isfinite(ratio) else "")


def _checked(arms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not arms:
        raise ValueError("arms: is empty")
    found = {name: np.asarray(values, dtype=np.float64) for name, values in arms.items()}
    for name, values in found.items():
        if values.ndim != 2:
            raise ValueError(f"arms: {name} has the shape {values.shape}; give [seeds, epochs]")
        found[name] = np.where(np.isfinite(values), values, np.nan)
    return found


def _finish(
    figure: Figure, axes: Axes, ends: list[EndLabel], ylabel: str, epochs: tuple[float, float], note: str
) -> None:
    """Set up the axes from the first to the last of `epochs`, and write the names and a note below."""
    first, last = epochs
    axes.set_xlim(*((first, last) if last > 1 else (0.5, 1.5)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]) if last > 1 else FixedLocator([1]))
    axes.set_ylabel(ylabel)
    axes.set_xlabel("epoch")
    figure.text(10 / WIDTH, 6 / (72 * figure.get_figheight()), note, fontsize=SMALL)
    draw_grid(axes)
    write_labels(figure, axes, ends)


def _seeds_words(arms: Sequence[np.ndarray]) -> str | None:
    """The number of seeds with values, such as `4 to 6`; None if no arm has more than one."""
    counts = [int(np.isfinite(values).any(1).sum()) for values in arms]
    least, most = min((count for count in counts if count), default=0), max(counts)
    if most <= 1:
        return None
    return f"{least}" if least == most else f"{least} to {most}"
