"""The error on each class, and which classes are taken for which."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from alexlab.report.figures.canvas import (
    BLUE,
    COLOURS,
    INK,
    MARKERS,
    MOST_DRAWN,
    SMALL,
    WIDTH,
    add_axes,
    cut,
    make_figure,
    styled,
    text_width,
)
from alexlab.report.figures.labels import axes_with_lanes

MOST_CLASSES = 20  # of a plot of classes
_MARKS = tuple(zip(COLOURS, MARKERS, strict=False))  # of each arm in it
MOST_ARMS = len(_MARKS)
MOST_DOTS = 30  # seeds of an arm in it


@styled()
def class_errors(arms: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Plot the error on each class, from fractions [seeds, classes] of up to four arms: seeds as dots, means as lines.

    With more than 30 seeds the first 30 are dots, and the mean is over all. Classes are sorted by the first arm's mean,
    the largest first; of more than 20, the 10 with the most and the 10 with the fewest errors are shown.

    Raises:
        ValueError: without arms, or for arrays of another shape.
    """
    if not arms:
        raise ValueError("arms: is empty")
    for name, values in arms.items():
        if values.ndim != 2 or values.shape[1] != len(names) or not len(values):
            raise ValueError(f"arms: {name} has the shape {values.shape}; give [seeds, {len(names)} classes]")
    arms = dict(itertools.islice(arms.items(), MOST_ARMS))
    order = np.argsort(-next(iter(arms.values())).mean(0), kind="stable")
    if len(order) > MOST_CLASSES:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    top = 8.0 + 14.0 * (len(arms) if len(arms) > 1 else 0)
    figure, axes = axes_with_lanes([names[int(index)] for index in order], lane=8.0 + 9.0 * len(arms), top=top)
    for place, (values, (colour, marker)) in enumerate(zip(arms.values(), _MARKS, strict=False)):
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
            for _, (colour, marker) in zip(arms, _MARKS, strict=False)
        ]
        labels = [cut(figure, name, WIDTH - 40) for name in arms]
        figure.legend(marks, labels, loc="upper left", bbox_to_anchor=(0, 1), borderpad=0.3, handletextpad=0.1)
    return figure


@styled()
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
    figure = make_figure(top + side + 8)
    axes = add_axes(figure, left, 8, side, side)
    axes.imshow(np.ma.masked_less(100 * shares, 0.05), cmap=_blues(), vmin=0, vmax=100, aspect="auto")
    labels = [cut(figure, name, left - 8) for name in names]
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
    return text_width(make_figure(10), text[:MOST_DRAWN])


def _blues() -> LinearSegmentedColormap:
    """From transparent to blue, so that a page's background shows."""
    return LinearSegmentedColormap.from_list("blues", [(*to_rgb(BLUE), 0.04), (*to_rgb(BLUE), 1.0)])


def _confusions(shares: np.ndarray, names: Sequence[str]) -> Figure:
    others = np.where(np.eye(len(names), dtype=bool), 0.0, shares)
    order = np.argsort(-others, axis=None, kind="stable")[:MOST_CLASSES]
    pairs = [divmod(int(place), len(names)) for place in order]
    lane, bottom, left = 16.0, 38.0, 190.0
    figure = make_figure(6 + lane * len(pairs) + bottom)
    axes = add_axes(figure, left, bottom, WIDTH - left - 10, lane * len(pairs))
    axes.barh(range(len(pairs)), [100 * others[pair] for pair in pairs], color=BLUE, height=0.7)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    labels = [f"{names[row]} as {names[column]}" for row, column in pairs]
    axes.set_yticks(range(len(pairs)), [cut(figure, label, left - 10) for label in labels])
    axes.tick_params(axis="y", length=0, pad=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.set_xlabel("% of the class's images")
    return figure
