"""Choose the plots of a study's report: the paper's figures and the study's own, drawn by `alexlab.report.figures`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexlab.console import printable_line
from alexlab.data.class_names import class_names
from alexlab.data.names import readable
from alexlab.errors import UserError
from alexlab.report.content import Extras, PlotOnPage, in_order
from alexlab.report.figures import by_class, effects, images, learning, outcomes
from alexlab.report.figures.saving import save
from alexlab.report.wording import arm_name, readable_name, trial_metric
from alexlab.runs.record import Record
from alexlab.study.claims import METRICS
from alexlab.study.colour import colour_indices
from alexlab.study.judgement import Arm, Judgement, Row
from alexlab.study.metrics import read_conv1
from alexlab.study.rates import SPEED, ArmTrials
from alexlab.study.records import Archive, RunData
from alexlab.study.statistics import mean_half_width, quantile

if TYPE_CHECKING:  # `alexlab.report.figures` takes care that matplotlib can be imported
    from matplotlib.figure import Figure

MOST_TOGETHER = 4  # arms whose learning curves share a plot; more have one each
NOISE = 0.03  # a first layer whose share of colour is this close to that of random weights has learnt little

_LONGEST_CLASS = 40  # characters of a class's name on an axis


@dataclass(frozen=True)
class Plot:
    """A figure with the name of its files, its title and its caption."""

    name: str
    title: str
    text: str
    figure: Figure


def draw(judgement: Judgement, archive: Archive, folder: Path, extras: Extras) -> list[PlotOnPage]:
    """Draw every plot of a study that the records have the numbers for, each as PNG and SVG in `folder`.

    Raises:
        UserError: if figure 4 is wanted and no run has its weights, or its data are missing.
    """
    return save_all(_of_study(judgement, archive, extras.pictures), folder, extras.pdf)


def save_all(plots: Iterable[Plot], folder: Path, with_pdf: bool) -> list[PlotOnPage]:
    """Write the files of plots and return them as a page shows them."""
    drawn = []
    for plot in plots:
        save(plot.figure, folder / plot.name, with_pdf)
        svg = (folder / f"{plot.name}.svg").read_text("utf-8")
        drawn.append(PlotOnPage(plot.title, plot.text, svg, f"{plot.name}.png"))
    return drawn


def _of_study(judgement: Judgement, archive: Archive, pictures: str | None) -> Iterator[Plot]:
    arms = [arm for arm in judgement.arms if arm.runs]
    if judgement.is_choosing:
        yield from _rates(judgement.trials)
        yield from _trial_curves(judgement.trials, arms)
        return
    watermark = "REHEARSAL" if judgement.is_rehearsal else ""
    yield from seeds(judgement.arms, watermark)
    for name, title, xlabel, wanted in FORESTS:
        if rows := [_forest_row(row) for row in in_order(judgement.rows) if wanted(row)]:
            text = (
                "Effects are oriented so that the claimed direction is to the right. Published effects are hollow, "
                "with the 95 % interval of single runs; measured effects have the 95 % interval for "
                "new images, or for this test set if that is not known (thick), and the study-wise one (thin)."
            )
            drawn = effects.forest(rows, xlabel, watermark, is_ratio=name == RATIOS)
            yield Plot(name, title, text, drawn)
    yield from learning_curves(arms)
    speeds = [
        row
        for row in judgement.rows
        if row.claim.metric == "epochs_to_25" and row.claim.ratio and row.effect is not None
    ]
    for row in speeds[:1]:
        # The paper's ratio is how much longer the claim's arm takes, so the other one comes first.
        found, epochs = _training_curves({arm_name(arm): arm.runs for arm in reversed(row.arms)})
        if len(found) == 2:
            text = "Training error by epoch, as in the paper's figure 1, on the augmented images."
            yield Plot("figure_1", "Figure 1: how fast the nets learn", text, learning.speed(found, epochs=epochs))
    if any(row.claim.metric in ("gap", "train_top1_error") and row.effect is not None for row in judgement.rows):
        yield from overfitting(arms, watermark)
    yield from _rates(judgement.trials)
    yield from cost(arms)
    yield from classes(arms[:1], archive)
    yield from kernels(arms, archive, ("none", "ungrouped"))
    if pictures is not None:
        yield from answers_and_neighbours(arms, pictures)


def _rates(trials: list[ArmTrials]) -> Iterator[Plot]:
    """The results of each arm's learning-rate trials; unfinished ones are left out."""
    found = {
        readable_name(arm.arm): [
            (one.lr, one.value if one.value is None or arm.metric == SPEED else 100 * one.value)
            for one in arm.trials
            if one.is_finished
        ]
        for arm in trials
    }
    if any(found.values()):
        what = trial_metric(trials[0].metric)
        text = f"Trials: {what}, on seeds that the comparison does not use. Lines join means."
        yield Plot("rates", "Learning rates", text, outcomes.rates(found, what))


def _trial_curves(trials: list[ArmTrials], arms: Sequence[Arm]) -> Iterator[Plot]:
    """Training error by epoch of each arm's trials, if they are chosen by it."""
    runs = {run.run_id: run for arm in arms for run in arm.runs}
    for number, arm in enumerate(trials):
        if arm.metric != SPEED:
            continue
        by_rate: dict[str, list[RunData]] = {}
        for one in sorted(arm.trials, key=lambda one: one.lr):
            if one.run_id in runs:
                by_rate.setdefault(f"{one.lr:g}", []).append(runs[one.run_id])
        found, epochs = _training_curves(by_rate)
        if found:
            name = readable_name(arm.arm)
            text = "Training error by epoch for each learning rate, on the augmented images."
            yield Plot(f"trials_{number}", f"Trials of {name}", text, learning.speed(found, epochs=epochs))


# --- Of any arms: a study's, or a sweep's


def seeds(arms: Sequence[Arm], watermark: str = "") -> Iterator[Plot]:
    if errors := {arm_name(arm): _runs_errors(arm) for arm in arms if arm.done}:
        text = (
            "The top-1 error of every run, ten views. Below the dots: the arm's mean with its 95 % interval over seeds"
            + ("; the band is the first arm's mean ± 1 sd." if len(errors) > 1 else ".")
            + (" Partly trained runs are hollow." if any(arm.partly for arm in arms) else "")
        )
        yield Plot("runs", "Every run", text, outcomes.dots(errors, "top-1 error, %", watermark))


def learning_curves(arms: Sequence[Arm]) -> Iterator[Plot]:
    found = {arm_name(arm): errors for arm in arms if (errors := _curve(arm.runs, "val_top1_error")) is not None}
    ylabel = "validation error, top-1, %"
    if 0 < len(found) <= MOST_TOGETHER:
        text = "Validation error by epoch: mean over seeds, with a band."
        yield Plot("curves", "Learning curves", text, learning.curves(found, ylabel, percent=True))
    elif found:
        first, *others = found
        text = (
            f"Validation error by epoch: the mean, with up to {learning.RANGE_UNDER} seeds as thin lines and more as a "
            f"band of ±1 sd; in grey the mean of {first}."
        )
        drawn = learning.multiples(found[first], {name: found[name] for name in others}, ylabel, percent=True)
        yield Plot("curves", "Learning curves", text, drawn)


def overfitting(arms: Sequence[Arm], watermark: str = "") -> Iterator[Plot]:
    def mean(arm: Arm, split: str) -> float:
        return 100 * float(np.mean([run.result[split]["center"]["top1_error"] for run in arm.runs]))

    found = {arm_name(arm): (mean(arm, "train"), mean(arm, "test")) for arm in arms}
    if found:
        text = "The mean error on training images and on test images, both by the centre view: the line is the gap."
        drawn = outcomes.gaps(found, ("training", "test"), "top-1 error, centre view, %", watermark)
        yield Plot("overfitting", "Training and test error", text, drawn)


def cost(arms: Sequence[Arm]) -> Iterator[Plot]:
    costs = [
        (arm_name(arm), float(np.mean([run.result["seconds"] for run in arm.runs])), *_error(arm)) for arm in arms
    ]  # fmt: skip
    if costs:
        text = "Top-1 error, ten views, against the time of one run, with 95 % intervals over seeds."
        yield Plot("cost", "Error and cost", text, outcomes.cost(costs))


def _class_names(run: RunData, archive: Archive) -> list[str]:
    """The classes as the run's record names them, else by the configuration; short enough for an axis."""
    known = class_names(archive.config(run).data)
    recorded = run.result.get("data", {}).get("classes")
    if not isinstance(recorded, list) or len(recorded) != len(known):
        return known
    names = readable([printable_line(name)[:_LONGEST_CLASS] for name in recorded], {})  # a record may be untrusted
    return names if len(set(names)) == len(names) else known


def classes(arms: Sequence[Arm], archive: Archive) -> Iterator[Plot]:
    """The error on each class for up to four arms, and the first arm's confusions, from runs that have predictions.

    Left out if the arms have different classes.
    """
    found: dict[str, np.ndarray] = {}
    names: list[str] = []
    shares: np.ndarray | None = None
    for arm in arms[: by_class.MOST_ARMS]:
        errors = []
        for run in arm.runs:
            with suppress(UserError):  # the claims' metrics have reported it
                own = _class_names(run, archive)
                if (names := names or own) != own:
                    return
                confused = run.confusions(len(own))
                counts = np.maximum(confused.sum(1, keepdims=True), 1)
                errors.append(1 - np.diag(confused) / counts[:, 0])
                if arm is arms[0]:
                    shares = confused / counts + (0 if shares is None else shares)
        if errors:
            found[arm_name(arm)] = np.stack(errors)
    if not found or len(names) < 2:
        return
    each = "Dots are seeds, lines are means; ten views"
    some = f", the {by_class.MOST_CLASSES // 2} classes with most and with fewest errors"
    text = f"{each}{some if len(names) > by_class.MOST_CLASSES else ''}: {', '.join(found)}."
    yield Plot("classes", "Error by class", text, by_class.class_errors(found, names))
    if shares is not None:
        name = arm_name(arms[0])
        text = f"The % of a class's images (rows) that are classified as each class (columns); {name}, mean over seeds."
        if len(names) > by_class.MOST_CLASSES:
            text = f"The most frequent confusions, in % of the images of the first class; {name}, mean over seeds."
        yield Plot("confusion", "Confusions", text, by_class.confusion(shares / len(found[name]), names))


def _is_of(metrics: tuple[str, ...]) -> Callable[[Row], bool]:
    return lambda row: row.effect is not None and not row.claim.ratio and row.claim.metric in metrics


RATIOS = "forest_ratio"
# One axis for each kind of quantity: file, title, axis, and which rows.
FORESTS: tuple[tuple[str, str, str, Callable[[Row], bool]], ...] = (
    ("forest", "Claims about the error", "effect on the error, points", _is_of(("top1_error", "top5_error"))),
    ("forest_gap", "Claims about overfitting", "effect, points", _is_of(("gap", "train_top1_error"))),
    (RATIOS, "Ratios", "ratio", lambda row: row.effect is not None and row.claim.ratio),
    ("forest_loss", "Claims about the loss", "effect, nats", _is_of(("train_loss", "first_epoch_loss"))),
    ("forest_colour", "Claims about colour", "difference of shares of colour", _is_of(("colour_gap",))),
)


def _forest_row(row: Row) -> effects.ForestRow:
    """The claim, oriented to the claimed direction; of a ratio the logarithm to base 2, so that 1 is twice as long."""
    assert row.effect is not None
    claim = row.claim
    sign = claim.sign or 1

    def turned(value: float) -> float:
        return value / math.log(2) if claim.ratio else value / METRICS[claim.metric][2]

    published = None if row.published is None else sign * turned(row.published)
    noise = quantile(0.975, row.effect.pair_df) * row.effect.run_sd if row.effect.pair_df > 0 else math.inf
    return effects.ForestRow(
        claim.statement,
        sign * turned(row.effect.difference),
        turned(row.effect.fixed if row.effect.new is None else row.effect.new),
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
    """Errors in percent of an arm's runs, and of its partly trained ones."""
    trained, partly = (
        [100 * run.result["test"]["ten"]["top1_error"] for run in runs] for runs in (arm.runs, arm.partly)
    )
    return trained, partly


def _curve(runs: Sequence[RunData], column: str) -> np.ndarray | None:
    """[seeds, epochs], NaN after a run's end; None if no run has the column. A corrupt file is left out."""
    found = []
    for run in runs:
        with suppress(UserError):
            found.append([math.nan if (value := epoch.get(column)) is None else value for epoch in run.epochs])
    curves = _stacked(found)
    return curves if np.isfinite(curves).any() else None


def _training_curves(arms: Mapping[str, Sequence[RunData]]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Training errors [seeds, entries] by arm, as the claims' metric has them, and the epochs of the entries.

    A run whose errors cannot be read, or were logged at other epochs than those of the longest run, is left out.
    """
    read: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in arms}
    for name, runs in arms.items():
        for run in runs:
            with suppress(UserError):
                read[name].append(run.train_errors)
    longest = max((epochs for curves in read.values() for epochs, _ in curves), key=len, default=None)
    comparable = {
        name: [errors for epochs, errors in curves if np.array_equal(epochs, longest[: len(epochs)])]
        for name, curves in read.items()
        if longest is not None
    }
    return {name: _stacked(errors) for name, errors in comparable.items() if errors}, longest


def _stacked(rows: Sequence[Sequence[float] | np.ndarray]) -> np.ndarray:
    """[seeds, entries], NaN after a run's end."""
    longest = max(map(len, rows), default=0)
    return np.array([[*values, *[math.nan] * (longest - len(values))] for values in rows], dtype=float)


def _error(arm: Arm) -> tuple[float, float]:
    return float(np.mean(arm.errors)), mean_half_width(arm.errors)


def kernels(arms: Sequence[Arm], archive: Archive, names: Sequence[str]) -> Iterator[Plot]:
    """Figure 3 for one run of each named arm."""
    for arm in arms:
        if arm.name not in names:
            continue
        for run in arm.runs:
            try:
                groups, conv1 = archive.config(run).model.groups, read_conv1(run).astype(np.float64)
                figure, colour = images.kernels(conv1, groups), float(colour_indices(conv1).mean())
            except Exception:  # from numpy, zipfile or the file system; or there are no colours, or no towers, to see
                continue
            halves = "one tower above the other" if groups > 1 else "of a net without towers"
            name = arm_name(arm)
            text = f"The kernels of conv1, {halves}: {name}, seed {run.seed}."
            if abs(colour - 2 / 3) < NOISE:
                text += (
                    " Random weights have 67 % of their energy in colour; these kernels are near that, so little has "
                    "been learnt."
                )
            file = re.sub(r"[^A-Za-z0-9_]+", "_", name)
            yield Plot(f"figure_3_{file}", f"Figure 3: conv1's kernels, {name}", text, figure)
            break


def answers_and_neighbours(arms: list[Arm], cache: str) -> Iterator[Plot]:
    """Figure 4 for the first run whose weights are here; `cache` is the folder of the stores.

    Raises:
        UserError: if no run has its weights, or the run's store is not in `cache`.
    """
    from alexlab.report import neighbours

    kept = [run for arm in arms for run in arm.runs if run.record.file("checkpoints/last.ckpt").is_file()]
    if not kept:
        raise UserError("--pictures: no run has its weights here; they are in checkpoints/ of each record")
    record = Record(kept[0].record.path.parent, kept[0].run_id)
    answers, near = neighbours.answers(record, cache=cache), neighbours.neighbours(record, cache=cache)
    text = f"Test images, their class, and the five most likely classes by {record.run_id}, ten views."
    yield Plot("figure_4_answers", "Figure 4, left: answers", text, images.answers_figure(answers))
    shares = f"{near.by_layer.percentage(1)} by {near.layer} and {near.by_pixels.percentage(1)} by pixels"
    text = (
        f"Test images and the nearest of {near.pool:,} training images, {record.run_id}. Of the six nearest, the "
        f"share with the image's class is {shares} (standard errors over {near.queries} test images)."
    )
    yield Plot("figure_4_neighbours", "Figure 4, right: neighbours", text, images.neighbours_figure(near))
