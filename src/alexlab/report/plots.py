"""Choose the plots of a study's report: the paper's figures and the study's own, drawn by `alexlab.report.figures`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from alexlab.errors import UserError
from alexlab.report import figures
from alexlab.report.content import PlotOnPage
from alexlab.runs.record import Record
from alexlab.study.claims import METRICS
from alexlab.study.metrics import read_conv1
from alexlab.study.records import Archive
from alexlab.study.statistics import quantile
from alexlab.study.verdicts import Arm, Judgement, Row


def draw(judgement: Judgement, archive: Archive, folder: Path, with_pictures: bool = False) -> list[PlotOnPage]:
    """Draw every plot that the records have the numbers for, each as PNG and SVG in `folder`.

    `with_pictures`: figure 4 too, for which the base's first run that kept its weights is loaded, and its data.

    Raises:
        UserError: where figure 4 is wanted and no run has its weights, or its data are not here.
    """
    drawn = []
    for name, title, text, figure in _figures(judgement, archive, with_pictures):
        figures.save(figure, folder / name)
        drawn.append(PlotOnPage(title, text, (folder / f"{name}.svg").read_text("utf-8"), f"{name}.png"))
    return drawn


def _figures(
    judgement: Judgement, archive: Archive, with_pictures: bool
) -> Iterator[tuple[str, str, str, figures.Figure]]:
    arms = [arm for arm in judgement.arms if arm.runs]
    watermark = "REHEARSAL" if judgement.is_rehearsal else ""
    for name, title, xlabel, wanted in FORESTS:
        if rows := [_forest_row(row) for row in judgement.rows if wanted(row)]:
            text = (
                "Each effect is oriented so that right is the claimed direction. Published effects are hollow, with "
                "the 95 % noise of a pair of single runs; measured effects have their own 95 % interval (thick) and "
                "the study-wise one (thin)."
            )
            yield name, title, text, figures.forest(rows, xlabel, watermark)
    if errors := {arm.name: _runs_errors(arm) for arm in judgement.arms if arm.done}:
        text = "The top-1 error of every run, ten views; runs that trained only partly are hollow."
        yield "runs", "Every run", text, figures.dots(errors, "top-1 error, %", watermark)
    if learning := {arm.name: errors for arm in arms if (errors := _curve(arm, "val_top1_error")) is not None}:
        judged = {
            arm.name for row in judgement.rows if row.word is not None and row.effect is not None for arm in row.arms
        }
        named = judged or ({"none"} & learning.keys())
        text = "Validation error by epoch: mean over seeds, with a band" + (
            "; arms without a verdict are grey." if len(named) < len(learning) else "."
        )
        quiet = [learning[name] for name in learning if name not in named] if named else []
        shown = {name: errors for name, errors in learning.items() if name in named} or learning
        drawn = figures.curves(shown, "validation error, top-1, %", percent=True, others=quiet)
        yield "curves", "Learning curves", text, drawn
    speeds = [
        row
        for row in judgement.rows
        if row.claim.metric == "epochs_to_25" and row.claim.ratio and row.effect is not None
    ]
    for row in speeds[:1]:
        # The paper's ratio is how much longer the claim's arm takes, so the other one comes first.
        found = {
            arm.name: errors for arm in reversed(row.arms) if (errors := _curve(arm, "train_top1_error")) is not None
        }
        if len(found) == 2:
            text = "Training error by epoch, as in the paper's figure 1, on the augmented images."
            yield "figure_1", "Figure 1: how fast the nets learn", text, figures.speed(found)
    costs = [
        (arm.name, float(np.mean([run.result["seconds"] for run in arm.runs])), *_error(arm)) for arm in arms
    ]  # fmt: skip
    if costs:
        text = "Top-1 error, ten views, against the time of one run, with 95 % intervals over seeds."
        yield "cost", "Error and cost", text, figures.cost(costs)
    yield from _kernels(arms, archive)
    if with_pictures:
        yield from _pictures(arms)


def _is_of(metrics: tuple[str, ...]) -> Callable[[Row], bool]:
    return lambda row: row.effect is not None and not row.claim.ratio and row.claim.metric in metrics


# One axis for each kind of quantity: file, title, axis, and which rows.
FORESTS: tuple[tuple[str, str, str, Callable[[Row], bool]], ...] = (
    ("forest", "Claims about the error", "effect on the error, points", _is_of(("top1_error", "top5_error"))),
    ("forest_gap", "Claims about overfitting", "effect, points", _is_of(("gap", "train_top1_error"))),
    (
        "forest_ratio",
        "Ratios",
        "log2 of the ratio",
        lambda row: row.effect is not None and row.claim.ratio,
    ),
    ("forest_loss", "Claims about the loss", "effect, nats", _is_of(("train_loss", "first_epoch_loss"))),
    ("forest_colour", "Claims about colour", "difference of shares of colour", _is_of(("colour_gap",))),
)


def _forest_row(row: Row) -> figures.ForestRow:
    """The claim, oriented to the claimed direction; of a ratio the logarithm to base 2, so that 1 is twice as long."""
    assert row.effect is not None
    claim = row.claim
    sign = claim.sign or 1

    def turned(value: float) -> float:
        return value / math.log(2) if claim.ratio else value / METRICS[claim.metric][2]

    published = None if row.published is None else sign * turned(row.published)
    noise = quantile(0.975, row.effect.pair_df) * row.effect.run_sd if row.effect.pair_df > 0 else math.inf
    return figures.ForestRow(
        claim.statement,
        sign * turned(row.effect.difference),
        turned(row.effect.fixed),
        turned(row.effect.decisive),
        published,
        f"section {claim.section}" if claim.section[0].isdigit() else claim.section,
        claim.at_least,
        turned(float(noise)) if published is not None and math.isfinite(noise) else None,
        row.verdict or "no verdict",
        "/".join(map(str, row.counted)) + " runs",
        bool(claim.sign),
    )


def _runs_errors(arm: Arm) -> tuple[list[float], list[float]]:
    """In percent, of an arm's runs, and of those that trained only partly."""
    trained, partly = (
        [100 * run.result["test"]["ten"]["top1_error"] for run in runs] for runs in (arm.runs, arm.partly)
    )
    return trained, partly


def _curve(arm: Arm, column: str) -> np.ndarray | None:
    """[seeds, epochs], NaN after a run's end; None if no run has the column. A corrupt file is left out."""
    found = []
    for run in arm.runs:
        with suppress(UserError):
            found.append([math.nan if (value := epoch.get(column)) is None else value for epoch in run.epochs])
    longest = max(map(len, found), default=0)
    curves = np.array([[*values, *[math.nan] * (longest - len(values))] for values in found], dtype=float)
    return curves if np.isfinite(curves).any() else None


def _error(arm: Arm) -> tuple[float, float]:
    errors = [run.result["test"]["ten"]["top1_error"] for run in arm.runs]
    count = len(errors)
    half = quantile(0.975, count - 1) * np.std(errors, ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return float(np.mean(errors)), float(half)


def _kernels(arms: list[Arm], archive: Archive) -> Iterator[tuple[str, str, str, figures.Figure]]:
    """Figure 3 of the base, and of the net with one tower."""
    for arm in arms:
        if arm.name not in ("none", "ungrouped"):
            continue
        for run in arm.runs:
            try:
                groups = archive.config(run).model.groups
                figure = figures.kernels(read_conv1(run).astype(np.float64), groups)
            except Exception:  # of numpy, of zipfile, of the file system; or there are no colours, or no towers, to see
                continue
            halves = "one tower above the other" if groups > 1 else "of a net without towers"
            text = f"The kernels of conv1, {halves}: {arm.name}, seed {run.seed}."
            yield f"figure_3_{arm.name}", f"Figure 3: conv1's kernels, {arm.name}", text, figure
            break


def _pictures(arms: list[Arm]) -> Iterator[tuple[str, str, str, figures.Figure]]:
    from alexlab.report import neighbours

    kept = [run for arm in arms for run in arm.runs if run.record.file("checkpoints/last.ckpt").is_file()]
    if not kept:
        raise UserError("--pictures: no run of the study has its weights here; they are in checkpoints/ of each record")
    record = Record(kept[0].record.path.parent, kept[0].run_id)
    answers, near = neighbours.answers(record), neighbours.neighbours(record)
    text = f"Test images, their class, and the five most likely classes by {record.run_id}, ten views."
    yield "figure_4_answers", "Figure 4, left: answers", text, figures.answers_figure(answers)
    shares = " and ".join(
        f"{100 * found.precision:.1f} ± {100 * found.standard_error:.1f} % by {name}"
        for name, found in ((near.layer, near.by_layer), ("pixels", near.by_pixels))
    )
    text = (
        f"Test images and the nearest of {near.pool:,} training images, {record.run_id}. Of the six nearest, as many "
        f"have the image's class: {shares} (standard errors over {near.queries} test images)."
    )
    yield "figure_4_neighbours", "Figure 4, right: neighbours", text, figures.neighbours_figure(near)
