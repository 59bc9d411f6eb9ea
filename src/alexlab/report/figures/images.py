"""Pictures: conv1's kernels (the paper's figure 3), answers and neighbours (figure 4)."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from alexlab.report.figures.canvas import (
    BLUE,
    GREEN,
    INK,
    LINE_HEIGHT,
    SIZE,
    SMALL,
    WIDTH,
    add_axes,
    cut,
    make_figure,
    styled,
)
from alexlab.study.colour import colour_indices
from alexlab.tiles import colours, per_row, tiles

if TYPE_CHECKING:  # made with torch, which takes seconds to load
    from alexlab.report.neighbours import Answers, Neighbours


@styled()
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
    figure = make_figure(groups * (head + block) + 8 * (groups - 1) + 8)
    total = figure.get_figheight() * 72
    for tower in range(groups):
        own = slice(tower * each, (tower + 1) * each)
        top = tower * (head + block + 8)
        name = f"Tower {tower + 1}" if groups > 1 else "All kernels"
        share = f"{name}: {100 * indices[own].mean():.0f} % of a kernel's energy is colour, on average"
        figure.text(10 / WIDTH, 1 - (top + 14) / total, share, va="baseline")
        picture = tiles(colours(conv1[own]), columns)
        axes = add_axes(figure, 10, total - top - head - block, columns * cell - gap, block)
        _image(axes, picture)
    return figure


@styled()
def answers_figure(found: Answers) -> Figure:
    """Plot figure 4, left: test images with their class, and the probabilities of the five most likely classes.

    The bar of the true class is green.
    """
    count = len(found.images)
    image, gap, column = 62.0, 10.0, (WIDTH - 30) / 2
    row = image + 24
    rows = -(-count // 2)
    figure = make_figure(rows * row + 4)
    total = figure.get_figheight() * 72
    for number in range(count):
        left, top = 10 + (number % 2) * (column + gap), (number // 2) * row + 18
        true = cut(figure, found.true[number], column, SIZE)
        figure.text(left / WIDTH, 1 - (top - 5) / total, true, va="baseline", weight="bold")
        axes = add_axes(figure, left, total - top - image, image, image)
        _image(axes, found.images[number], "antialiased")
        width = column - image - 8
        bars = add_axes(figure, left + image + 8, total - top - image, width, image)
        bars.axis("off")
        bars.set_xlim(0, 1)
        bars.set_ylim(5, 0)
        for rank, (name, chance) in enumerate(zip(found.names[number], found.probabilities[number], strict=True)):
            colour = GREEN if name == found.true[number] else BLUE
            bars.add_patch(Rectangle((0, rank + 0.06), chance, 0.88, facecolor=colour, alpha=0.45, linewidth=0))
            words = cut(figure, name, width - 4)
            bars.text(0.02, rank + 0.5, words, va="center_baseline", fontsize=SMALL)
    return figure


@styled()
def neighbours_figure(found: Neighbours) -> Figure:
    """Plot figure 4, right: test images, each with its nearest training images by the network and by pixels.

    Neighbours of the test image's own class have a green frame.
    """
    count, nearest = found.by_layer.shown.shape[:2]
    gap, big = 5.0, 62.0
    small = min(44.0, (WIDTH - 20 - big - 14 - gap * (nearest - 1)) / nearest)
    row = 2 * small + gap + 14
    head, foot = 4.0, 10 + 5 * LINE_HEIGHT
    figure = make_figure(head + count * row + foot)
    total = figure.get_figheight() * 72
    for number in range(count):
        top = head + number * row
        _image(add_axes(figure, 10, total - top - big, big, big), found.images[number], "antialiased")
        name = cut(figure, found.true[number], big)
        figure.text(10 / WIDTH, 1 - (top + big + 10) / total, name, fontsize=SMALL, va="baseline")
        for line, nearby in enumerate((found.by_layer, found.by_pixels)):
            for rank in range(nearest):
                left, y = 10 + big + 14 + rank * (small + gap), total - top - small - line * (small + gap)
                is_same = nearby.names[number][rank] == found.true[number]
                axes = add_axes(figure, left, y, small, small)
                _image(axes, nearby.shown[number, rank], "antialiased", frame=GREEN if is_same else None)
    units, pixels = found.by_layer.percentage(0), found.by_pixels.percentage(0)
    words = (
        f"Upper rows: nearest by {found.layer}; lower rows: by pixels; green: of the test image's class. Over "
        f"{found.queries:,} test images {units} and {pixels} of the {nearest} nearest are (± standard error). "
        f"Searched: {found.pool:,} of {found.train_images:,} training images."
    )
    for number, line in enumerate(textwrap.wrap(words, 62)):
        y = (foot - 14 - number * LINE_HEIGHT) / total
        figure.text(10 / WIDTH, y, line, fontsize=SMALL, va="baseline")
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
