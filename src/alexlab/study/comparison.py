"""Someone else's error beside the runs of one arm: its percentile, and the prediction interval for a further run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from alexlab.study.statistics import LEAST_RUNS, LEVEL, Sample, quantile


@dataclass(frozen=True)
class Figure:
    """An error that someone else reports; all numbers as fractions."""

    value: float
    runs: int = 1  # that it is the mean of
    sd: float | None = None  # of those runs; None: taken to scatter as one's own do
    images: int | None = None  # test images, if they are others than one's own runs were tested on


@dataclass(frozen=True)
class Placement:
    """Where a figure lies among the runs of an arm; errors as fractions."""

    figure: Figure
    runs: int
    mean: float
    sd: float | None  # over the runs; None for a single one
    below: int  # how many of the runs have less error
    half: float | None  # half width of the 95 % prediction interval around the mean; None for fewer than three runs
    equal: int = 0  # how many of the runs have the same error

    @property
    def gap(self) -> float:
        """The figure less the runs' mean."""
        return self.figure.value - self.mean

    @property
    def percentile(self) -> float:
        """The share of the runs with less error, in per cent; those with the same error count half."""
        return 100 * (self.below + self.equal / 2) / self.runs

    @property
    def interval(self) -> tuple[float, float] | None:
        """The errors that the other side's next result would have with 95 %; none is below 0 or above 1."""
        if self.half is None:
            return None
        return max(0.0, self.mean - self.half), min(1.0, self.mean + self.half)

    @property
    def is_expected(self) -> bool | None:
        """Whether the figure lies in the interval; None if there is none."""
        return None if self.half is None else bool(abs(self.gap) <= self.half)


def place(figure: Figure, sample: Sample) -> Placement:
    """Place a figure among an arm's runs.

    The interval is Student's, for the mean of as many further runs as the figure has. Between runs on the same test
    images the choice of images cancels. If the figure is from other images of the same kind, both choices add to the
    variance: the images' difficulty on either side, and where the other side has fewer images, the further scatter of
    a run over them. Nothing is taken off where it has more: the runs' variance is known too badly for that.
    """
    values = sample.values
    count, mean = len(values), float(values.mean())
    below, equal = (int(np.count_nonzero(which)) for which in (values < figure.value, values == figure.value))
    sd = math.sqrt(sample.variance) if count > 1 else None
    if sd is None or count < LEAST_RUNS:
        return Placement(figure, count, mean, sd, below, None, equal)
    own, df = sd**2, count - 1.0
    hard, within = (0.0, 0.0) if figure.images is None else _by_image(sample)
    number = 1 if sample.images is None else sample.images.shape[1]
    theirs = own if figure.images is None else own + max(0.0, within * (1 / figure.images - 1 / number))
    if figure.sd is not None:
        theirs = figure.sd**2
    of_runs = own / count + theirs / figure.runs
    if figure.sd is not None and of_runs > 0:  # Welch and Satterthwaite
        squares = (own / count) ** 2 / df + (theirs / figure.runs) ** 2 / (figure.runs - 1)
        df = of_runs**2 / squares
    of_images = 0.0 if figure.images is None else hard * (1 / number + 1 / figure.images)
    both = of_runs + of_images
    df = df * (both / of_runs) ** 2 if of_runs > 0 else math.inf
    return Placement(figure, count, mean, sd, below, math.sqrt(both) * quantile(1 - (1 - LEVEL) / 2, df), equal)


def _by_image(sample: Sample) -> tuple[float, float]:
    """Variance of being wrong, of one image: between images, and between runs within an image."""
    if sample.images is None:  # of a single test image
        mean = float(sample.values.mean())
        return mean * (1 - mean), 0.0
    count, shares = len(sample.images), sample.images.mean(axis=0)
    within = float((shares * (1 - shares)).mean()) * count / (count - 1)
    return max(0.0, float(shares.var(ddof=1)) - within / count), within
