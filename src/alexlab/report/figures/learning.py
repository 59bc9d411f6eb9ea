"""Learning curves: an error or a loss by epoch, and how fast arms learn, as in the paper's figure 1."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

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


@styled()
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
    for each, (colour, _) in zip(times.values(), colours_and_lines(), strict=False):
        if np.isfinite(each).all() and len(each):
            axes.plot(each.mean(), 100 * threshold, marker="o", color=colour, markersize=5.5, zorder=4)
    words = f"Epochs to {100 * threshold:g} %"
    if len(times) == 2:
        (first, one), (second, other) = times.items()
        ratio = other.mean() / one.mean()
        if math.isfinite(ratio):
            words = f"{second} takes {ratio:.1f} times as many epochs to {100 * threshold:g} % as {first}"
    figure.text(10 / WIDTH, 1 - 4 / (72 * figure.get_figheight()), cut(figure, words, WIDTH - 20, SIZE), va="top")
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
    for (name, values), (colour, line) in zip(arms.items(), colours_and_lines(), strict=False):
        here, text = np.isfinite(values).any(0), wrapped(name)
        entries = values.shape[1]
        logged = np.arange(1.0, entries + 1) if epochs is None else epochs[:entries]
        x, known = logged[here], values[:, here]
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
        text += f"\n{notes[name]}" if name in notes else ""
        bands.append((x, mean, low, high, colour, line))
        ends.append(EndLabel(text, float(x[-1]), float(mean[-1]), colour, line))
    figure, axes = axes_with_labels(ends, bottom=48, top=top)
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
    draw_grid(axes)
    write_labels(figure, axes, ends)
    return figure, axes


def _band_words(counts: list[int], is_range: bool) -> str:
    least, most = min((count for count in counts if count), default=0), max(counts)
    if most <= 1:
        return "one seed an arm"
    seeds = f"{least}" if least == most else f"{least} to {most}"
    return f"lines: mean of {seeds} seeds; bands: " + ("lowest to highest" if is_range else "±1 sd")
