"""Compare someone else's error with the runs of one arm: percentile, prediction interval and possible differences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from alexlab.compose import Composer
from alexlab.config import Dataset, shown
from alexlab.study.claims import VIEWED, find_claims
from alexlab.study.departures import (
    PUBLISHED,
    SEEDS,
    Difference,
    OwnArm,
    Published,
    find_arm,
    find_differences,
    sweep_overrides,
)
from alexlab.study.records import Archive
from alexlab.study.samples import Samples
from alexlab.study.spreads import Sample
from alexlab.study.statistics import LEAST_RUNS, LEVEL, quantile

FULL_SIZE = 224  # pixels of the paper's crops


@dataclass(frozen=True)
class Figure:
    """An error reported by someone else; all numbers are fractions."""

    value: float
    runs: int = 1  # number of runs whose mean it is
    sd: float | None = None  # of those runs; None: assumed equal to that of one's own runs
    images: int | None = None  # number of test images, if not those of one's own runs


@dataclass(frozen=True)
class Placement:
    """Where a figure lies among the runs of an arm; errors as fractions."""

    figure: Figure
    runs: int
    mean: float
    sd: float | None  # over the runs; None for a single one
    below: int  # runs with less error
    half: float | None  # half width of the 95 % prediction interval around the mean; None for fewer than three runs
    equal: int = 0  # runs with the same error

    @property
    def gap(self) -> float:
        """The figure minus the runs' mean."""
        return self.figure.value - self.mean

    @property
    def percentile(self) -> float:
        """The share of the runs with less error, in per cent; those with the same error count half."""
        return 100 * (self.below + self.equal / 2) / self.runs

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % prediction interval for the other side's next result, clipped to 0 and 1."""
        if self.half is None:
            return None
        return max(0.0, self.mean - self.half), min(1.0, self.mean + self.half)

    @property
    def is_expected(self) -> bool | None:
        """Whether the figure lies in the interval; None if there is none."""
        return None if self.half is None else bool(abs(self.gap) <= self.half)


def place(figure: Figure, sample: Sample) -> Placement:
    """Place a figure among an arm's runs.

    The interval is Student's, for the mean of as many further runs as the figure has. For runs on the same test images
    the choice of images cancels. If the figure is from other images of the same kind, both choices add to the variance:
    the images' difficulty on either side and, if the other side has fewer images, the larger scatter of a run over
    them. Nothing is subtracted if it has more, since the runs' variance is not known well enough.
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
    """Variance of the error on one image: between images, and between runs within an image."""
    if sample.images is None:  # of a single test image
        mean = float(sample.values.mean())
        return mean * (1 - mean), 0.0
    count, shares = len(sample.images), sample.images.mean(axis=0)
    within = float((shares * (1 - shares)).mean()) * count / (count - 1)
    return max(0.0, float(shares.var(ddof=1)) - within / count), within


@dataclass(frozen=True)
class Question:
    """Figures to compare, and the recipe whose runs they are compared with."""

    figures: dict[str, Figure]  # by metric
    view: str | None = None  # None: unknown, assumed to be the average of ten
    like: list[str] = field(default_factory=list)  # overrides of the recipe; none: the one with the most finished runs


@dataclass(frozen=True)
class Comparison:
    """The answer, in numbers; errors as fractions."""

    question: Question
    view: str
    line: list[str]  # the overrides of the arm
    data: Dataset
    own: OwnArm | None
    images: int | None  # test images of one's own runs
    placements: dict[str, Placement]  # by metric; none without runs
    reference: Published | None  # the paper's own result, if there are no runs
    references: dict[str, float]  # its errors by metric, for the figure's view
    metric: str  # of the differences
    gap: float | None
    differences: list[Difference]  # those that would close the gap come first
    published: list[Published]  # results for the same data
    problems: list[str]

    @property
    def is_chosen_here(self) -> bool:
        """Whether the question named no recipe."""
        return not self.question.like

    @property
    def command(self) -> str:
        """The overrides of the sweep that trains the recipe itself."""
        return sweep_overrides(self.line, range(SEEDS))


def compare(
    question: Question, composer: Composer, archive: Archive, ignored: Collection[str], lenient: Collection[str]
) -> Comparison:
    """Find the runs that a question is about, place its figures among them, and list possible differences.

    `ignored`, `lenient`: keys in which those runs may differ from the recipe, as in `find_arm`; `lenient` ones only if
    the question does not set them.
    """
    line = question.like or _most_run(archive, composer)
    job = composer.job(line, stored=False)
    named = {one.partition("=")[0] for one in line}
    own = find_arm(archive, job.config, ignored, [name for name in lenient if name not in named])
    if own is not None:
        line = [*line, *(f"{name}={shown(value)}" for name, value in own.changes.items())]
    view = question.view or "ten"
    problems = [*archive.problems]
    placements: dict[str, Placement] = {}
    images = None
    if own is not None:
        samples = Samples({"own": own.runs}, problems)
        for metric, figure in question.figures.items():
            measured = samples.measured("own", metric, view)
            if measured is not None:
                placements[metric] = place(figure, measured.sample)
                images = None if measured.sample.images is None else measured.sample.images.shape[1]
    own = own if placements else None
    data, metric = job.config.data.name, next(iter(question.figures))
    is_full_size = (job.config.data.crop_size or 0) >= FULL_SIZE
    published = [one for one in PUBLISHED if one.data == data.name and is_full_size]
    reference, references = _reference(published, view) if own is None else (None, {})
    gap = placements[metric].gap if metric in placements else None
    if metric in references:
        gap = question.figures[metric].value - references[metric]
    found = find_differences(line, composer, archive, own, metric, view, ignored, question.view is None)
    ordered = sorted(found, key=lambda one: one.rank(gap))
    published = [one for one in published if one.view == view]
    return Comparison(
        question, view, line, data, own, images, placements, reference, references, metric, gap, ordered, published,
        [archive.named(problem) for problem in problems],
    )  # fmt: skip


def _reference(published: Sequence[Published], view: str) -> tuple[Published | None, dict[str, float]]:
    """The paper's own result, for this view if published, and its errors by metric for this view."""
    papers = sorted((one for one in published if "paper" in one.source), key=lambda one: one.view != view)
    if not papers:
        return None, {}
    [claim] = find_claims(["paper/ten_views"])  # ten views minus one
    sign = 0 if papers[0].view == view else -1 if view == "center" else 1
    return papers[0], {metric: (getattr(papers[0], metric) + sign * claim.published[metric]) / 100 for metric in VIEWED}


def _most_run(archive: Archive, composer: Composer) -> list[str]:
    """The recipe, with its model if not the default, that has the most finished runs under the paper's protocol."""
    counts: Counter[tuple[str, str]] = Counter()
    for run in archive.runs.values():
        labels = run.labels
        if run.is_done and labels.get("protocol") == "paper" and labels.get("ablation") == "none":
            counts[labels.get("recipe", ""), labels.get("model", "")] += 1
    for (recipe, model), _ in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        if recipe in composer.groups["recipe"] and model in composer.groups["model"]:
            usual = composer.job([f"recipe={recipe}"], stored=False).choices
            wanted = {"protocol": "paper", "model": model}
            return [f"recipe={recipe}", *(f"{name}={one}" for name, one in wanted.items() if usual[name] != one)]
    return ["recipe=imagenet2012"]
