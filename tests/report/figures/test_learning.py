"""Learning curves' bands, and the epochs to a training error."""

from __future__ import annotations

import numpy as np
import pytest

from alexlab.report.figures.learning import curves, multiples, speed
from alexlab.study.metrics import epochs_to
from support.figures import arms, texts


def test_a_band_is_named():
    def bands(found: dict[str, np.ndarray]) -> str:
        [words] = [text for text in texts(curves(found, "loss")) if "seed" in text]
        return words

    assert bands(arms(2, 3)) == "lines: mean of 3 seeds; bands: lowest to highest"
    assert bands(arms(2, 5)) == "lines: mean of 5 seeds; bands: ±1 sd"
    assert bands(arms(2, 1)) == "one seed an arm"
    assert bands({**arms(2, 7), "few": arms(1, 4)["model.arm_0=true"]}).endswith("lowest to highest")


def test_the_means_and_bands_that_are_drawn():
    values = arms(1, 6)["model.arm_0=true"]
    axes = curves({"arm": values}, "loss").axes[0]
    [line] = axes.lines
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), values.mean(0))
    [band] = axes.collections
    low, high = values.mean(0) - values.std(0, ddof=1), values.mean(0) + values.std(0, ddof=1)
    drawn = band.get_paths()[0].vertices
    assert isinstance(drawn, np.ndarray)
    for y in (*low, *high):
        assert np.abs(drawn[:, 1] - y).min() < 1e-12


def test_a_long_name_of_a_panel_has_two_lines():
    names = ["no_lrn", "model.activation=tanh", "model.activation=tanh model.init=lecun", "x" * 100]
    told = texts(multiples(np.ones((1, 2)), dict.fromkeys(names, np.ones((1, 2))), "loss"))
    assert {"no_lrn", "model.activation=\ntanh"} <= set(told)
    assert any(text.startswith("model.activation=\ntanh model") and text.endswith("…") for text in told)
    assert any(text.startswith("xxx") and text.endswith("…") and "\n" not in text for text in told)


def test_speed():
    fast, slow = np.linspace(0.9, 0.1, 5), np.linspace(0.9, 0.1, 9)
    told = texts(speed({"relu": fast[None], "tanh": slow[None]}))
    ratio = epochs_to(slow, 0.25) / epochs_to(fast, 0.25)
    assert epochs_to(fast, 0.25) == pytest.approx(1 + 0.65 / 0.2)
    assert f"tanh takes {ratio:.1f} times as many epochs to 25 % as relu" in " ".join(told)
    assert {"4.2 epochs", f"7.5 epochs ({ratio:.1f}×)"} <= set(told)
    never = np.full(5, 0.6)
    told = texts(speed({"relu": fast[None], "stuck": never[None], "mixed": np.stack([fast, never])}))
    assert {"never reached", "1 of 2 seeds:", "Epochs to 25 %"} <= set(told)
    assert "at most 1.0 epochs" in texts(speed({"at once": np.full((1, 3), 0.1)}))


def test_speed_of_errors_that_were_logged_within_epochs():
    epochs = np.array([0.3, 0.5, 0.8, 1.0])
    errors = np.array([[0.9, 0.4, 0.2, 0.1], [0.9, 0.5, 0.3, 0.2]])
    reached = [np.interp(-0.25, -row, epochs) for row in errors]  # errors fall, so their negatives rise
    mean = np.sqrt(np.prod(reached))
    figure = speed({"relu": errors}, epochs=epochs)
    assert f"{mean:.1f} epochs" in texts(figure)
    drawn = [(line.get_marker(), np.ravel(np.asarray(line.get_xdata(), float))) for line in figure.axes[0].lines]
    assert [xs for marker, xs in drawn if marker == "o"] == [pytest.approx([mean])]
    assert any(np.array_equal(xs, epochs) for _, xs in drawn)


def test_speed_compares_geometric_means_and_draws_every_run():
    """As the claim does, which compares logarithms."""
    epochs = np.arange(1.0, 21)

    def run(time: float) -> np.ndarray:  # at 25 % after `time`, and not logged any further than the next epoch
        return np.where(epochs < time + 1, 0.25 + 0.02 * (time - epochs), np.nan)

    relu, tanh = np.stack([run(2.0), run(4.5)]), np.stack([run(9.0), run(16.0)])
    figure = speed({"relu": relu, "tanh": tanh})
    assert {"3.0 epochs", "12.0 epochs (4.0×)", "lines: 2 seeds; dots: geometric mean"} <= set(texts(figure))
    lines = [np.asarray(line.get_ydata(), float) for line in figure.axes[0].lines if line.get_marker() != "o"]
    for row in (*relu, *tanh):
        assert any(np.array_equal(ys, 100 * row[np.isfinite(row)]) for ys in lines)


def test_a_long_sentence_above_a_plot_is_not_cut():
    fast, slow = np.linspace(0.9, 0.1, 5)[None], np.linspace(0.9, 0.1, 9)[None]
    told = " ".join(texts(speed({"base": fast, "model.activation=tanh model.init=lecun": slow})))
    assert "model.activation=tanh model.init=lecun takes 1.8 times as many epochs to 25 % as base" in told


def test_mistakes():
    for make in (lambda: curves({}, ""), lambda: speed({})):
        with pytest.raises(ValueError, match="is empty"):
            make()
    with pytest.raises(ValueError, match=r"arms: a has the shape \(3,\); give \[seeds, epochs\]"):
        curves({"a": np.ones(3)}, "loss")
