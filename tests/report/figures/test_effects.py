"""A forest's words, its axis, and which rows have a side."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from alexlab.report.figures.effects import ForestRow, forest
from support.figures import ODD_ROWS, texts


def test_a_side_is_shaded_where_one_speaks_for_a_claim():
    """A configuration against itself has none."""
    shaded = []
    for has_side in (True, False):
        figure = forest([ForestRow("a", 1.0, 0.5, has_side=has_side)])
        shaded.append([patch for axes in figure.axes for patch in axes.patches if patch.get_alpha() == 0.07])
    assert list(map(len, shaded)) == [1, 0]


def test_a_forest_tells_each_effect():
    told = texts(forest([*ODD_ROWS, ForestRow("Fine", -1.25, 0.5)]))
    assert told.count("no result") == 2
    assert "−1.2 ± 0.5" in told
    assert "+0.5" in told
    assert "−60.00 ± 0.04" in told
    assert "+0.006 ± 0.008" in texts(forest([ForestRow("Small", 0.0062, 0.0083)]))
    assert "+0.0 ± 0.0" in texts(forest([ForestRow("Equal", 0.0, 0.0)]))
    assert "against the claim ← effect, points → as claimed" in told
    assert "effect, points" in texts(forest([ForestRow("Without a side", 1.0, has_side=False)]))


def test_a_forest_is_linear_and_one_huge_effect_does_not_squeeze_the_others():
    axes = forest([ForestRow("Huge", -60.0, 0.04), *[ForestRow(f"c{i}", 0.3 * i, 0.5, 1.0) for i in range(5)]]).axes[0]
    assert axes.get_xscale() == "linear"
    low, high = axes.get_xlim()
    assert high - low < 20
    arrows = [line for line in axes.lines if line.get_marker() == "<"]
    assert [float(np.asarray(line.get_xdata(), float)[0]) for line in arrows] == [low]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([ForestRow("a", 1.0, 0.5)], []),
        ([ForestRow("a", 1.0, 0.5, 0.5)], []),
        ([ForestRow("a", 1.0, 0.5, 0.8)], ["study-wise interval"]),
        ([ForestRow("a", 1.0, 0.5, published=-1.4)], ["published"]),
        ([ForestRow("a", 1.0, 0.5, published=-1.4, noise=2.0)], ["published, with noise"]),
        ([ForestRow("a", 1.0, 0.5, published=4.0, at_least=True)], ["published, or more"]),
        (ODD_ROWS, ["study-wise interval", "published, with noise", "published, or more"]),
    ],
)
def test_the_key_names_only_what_is_drawn(rows: list[ForestRow], named: list[str]):
    [legend] = forest(rows).legends
    assert [one.get_text() for one in legend.get_texts()] == ["measured, 95 % interval", *named]


def ratio_ticks(figure: Figure) -> dict[str, float]:
    return {tick.label1.get_text(): float(tick.get_loc()) for tick in figure.axes[0].xaxis.get_major_ticks()}


def test_ratios_are_shown_as_ratios():
    """Their rows are in octaves."""
    row = ForestRow("Six times", np.log2(7.2), np.log2(1.2), np.log2(1.2), published=np.log2(6))
    figure = forest([row], "ratio", is_ratio=True)
    assert "7.20× (6.00 to 8.64)" in texts(figure)
    assert "against the claim ← ratio → as claimed" in texts(figure)
    assert ratio_ticks(figure) == {"1×": 0, "2×": 1, "4×": 2, "8×": 3}
    near = forest([ForestRow("Near 1", np.log2(0.86), np.log2(1.06))], "ratio", is_ratio=True)
    assert ratio_ticks(near)["0.9×"] == pytest.approx(np.log2(0.9))
    unbounded = forest([ForestRow("One run", -1.0, np.inf, np.inf)], "ratio", is_ratio=True)
    assert "0.50×" in texts(unbounded)


def test_a_forest_without_rows_is_refused():
    with pytest.raises(ValueError, match="is empty"):
        forest([])
