"""A sweep's report: every run as a point, learning curves, differences to the first arm with intervals; no verdicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.console import plural
from alexlab.errors import UserError
from alexlab.files import write_atomic
from alexlab.report import plots
from alexlab.report.cite import repeat_sweep
from alexlab.report.content import (
    NOTHING,
    PLAIN,
    Extras,
    number_text,
    range_text,
    sortable,
    surroundings,
    time_or_dash,
)
from alexlab.report.html import render
from alexlab.report.latex import table_latex
from alexlab.report.markdown import sweep_markdown
from alexlab.report.tables import csv_text
from alexlab.report.wording import arm_name
from alexlab.runs.names import split_changes
from alexlab.runs.record import FAILED
from alexlab.study.intervals import mean_and_sd, paired_difference
from alexlab.study.judgement import Arm
from alexlab.study.records import Archive, RunData
from alexlab.study.statistics import Effect, mean_half_width
from alexlab.study.sweep_statistics import SweepStatistics, analyse, effect_facts
from alexlab.study.sweeps import Sweep

INTERVALS = {"fixed": "this test set", "new": "new images", "decisive": "all at once"}
IMAGES_ALONE = "images alone"
READING = (
    ("Difference", "The top-1 error of an arm, ten views, minus that of the first arm, each averaged over its seeds."),
    ("This test set", "A 95 % interval for other seeds of the same arms, on the same test images."),
    ("New images", "A 95 % interval for other seeds and for other images of the same kind."),
    (
        "All at once",
        "As for new images, and wide enough that all of the table's intervals hold at once with 95 % confidence: "
        "among many differences some are large by chance.",
    ),
    (
        "Images alone",
        "If arms have one seed each: a 95 % interval for other images, for these weights; it does not cover seeds, "
        "which may differ by more.",
    ),
    (
        "Shared seeds",
        "If an arm starts from the first arm's initial weights, the part that its runs share with the first arm's on "
        "the same seeds is not an effect, so it is removed by a control variate.",
    ),
    (
        "No verdict",
        "A sweep states no claim before its runs, so it confirms and refutes none; study=NAME plans a test.",
    ),
)
ARM_COLUMNS = (
    *("arm", "done", "failed", "missing", "top1_error", "top1_sd", "top1_half", "difference", "fixed_half"),
    *(
        "new_half",
        "all_half",
        "images_half",
        "top5_error",
        "center_top1_error",
        "train_top1_error",
        "epochs",
        "seconds",
    ),
)
RUN_COLUMNS = (
    *("run_id", "arm", "seed", "state", "ten_top1_error", "ten_top5_error", "center_top1_error", "center_top5_error"),
    *("train_top1_error", "epochs", "seconds"),
)


@dataclass
class SweepReport:
    """The result of a sweep in numbers: fractions and seconds."""

    sweep: Sweep
    arms: list[Arm]
    statistics: SweepStatistics
    by_images: list[tuple[float, float] | None]  # difference and half width, of arms with a seed each
    archive: Archive = field(default_factory=lambda: Archive([]))

    @property
    def runs(self) -> list[RunData]:
        return [run for arm in self.arms for run in arm.runs]


def examine(sweep: Sweep) -> SweepReport:
    """Compare the arms of a sweep by the records of its runs."""
    named = name_arms([one.values for one in sweep.arms()])
    arms: dict[tuple[str, ...], Arm] = {}
    for run in sweep.runs:
        key = tuple(run.values.values())
        if key not in arms:
            arms[key] = Arm(named[len(arms)], [], math.nan, {})
        arm, place = arms[key], len(arms[key].planned)  # two runs of a seed may differ in data.seed
        arm.planned[place] = run.data.run_id
        if run.data.is_done:
            arm.runs.append(run.data)
        elif run.data.status.get("state") == FAILED:
            arm.failed.append(run.data)
        else:
            arm.missing[place] = run.data.run_id
    found = list(arms.values())
    return SweepReport(sweep, found, analyse(sweep.arms()), [_by_images(arm, found[0]) for arm in found])


def name_arms(values: Sequence[Mapping[str, str]]) -> list[str]:
    """Short names: an ablation by itself, a key by its last part if that is enough."""
    factors = list(dict.fromkeys(factor for one in values for factor in one))
    shorts = Counter(factor.rpartition(".")[2] for factor in factors)

    def change(factor: str, value: str) -> str:
        if factor == "ablation" or (factor == "arm" and len(factors) == 1):
            return value if len(factors) == 1 or value != "none" else "ablation=none"
        short = factor.rpartition(".")[2]
        return f"{short if shorts[short] == 1 else factor}={value}"

    return [" ".join(change(*item) for item in one.items()) or "all runs" for one in values]


def _by_images(arm: Arm, first: Arm) -> tuple[float, float] | None:
    if arm is first or len(arm.runs) != 1 or len(first.runs) != 1:
        return None
    try:
        (mine, labels), (others, other_labels) = (one.runs[0].wrong("top1_error", "ten") for one in (arm, first))
    except UserError:
        return None
    return paired_difference(mine, others) if labels == other_labels else None


def sweep_content(report: SweepReport) -> dict[str, Any]:
    """Everything that the page and its Markdown show, as text."""
    sweep, arms = report.sweep, report.arms
    labels = next((run.data.labels for run in sweep.runs if run.data.labels), {})
    settings = ", ".join(f"{name} {labels[name]}" for name in ("recipe", "protocol", "model") if name in labels)
    varied = ", ".join(sweep.factors) or "the seed alone"
    return {
        "title": f"Sweep {sweep.sweep_id}",
        "subtitle": f"{settings or 'no run has started'}; varied: {varied}.",
        "summary": sweep_summary(report),
        "arms": [_arm_row(report, place) for place in range(len(arms))],
        "intervals": _shown_intervals(report),
        "main_effects": [
            (one.factor, f"{one.base} → {one.value}", *_difference(one.effect))
            for one in report.statistics.main_effects
        ],
        "runs": [_run_row(arm_name(arm), run) for arm, run in every_run(report)],
        "problems": report.statistics.problems,
        "reading": READING,
        "repeat": repeat_sweep(sweep.sweep_id, [_line(arm) for arm in arms if arm.runs], report.runs),
        "provenance": [("Sweep", [sweep.sweep_id]), *surroundings(report.runs)],
    }


def sweep_summary(report: SweepReport) -> list[str]:
    """Sentences about the sweep as a whole."""
    arms = report.arms
    done, planned = len(report.runs), len(report.sweep.runs)
    failed = sum(len(arm.failed) for arm in arms)
    summary = [
        f"{done} of {plural(planned, 'run')} {'is' if planned == 1 else 'are'} finished; {failed or 'none'} failed."
    ]
    if len(arms) > 1:
        summary.append(
            f"Differences are relative to the first arm, {arm_name(arms[0])}. Without claims there are no verdicts."
        )
    if report.statistics.sensitivity is not None:
        summary.append(str(report.statistics.sensitivity))
    elif len(arms) > 1 and report.runs:
        summary.append(_why_no_intervals(report))
    return summary


def _why_no_intervals(report: SweepReport) -> str:
    """Why no difference of a sweep's arms has an interval over seeds."""
    if max(len(arm.runs) for arm in report.arms) == 1:
        return "One seed per arm cannot separate effects from the spread over seeds. Add seed=0,1,2,3,4 to measure it."
    if not report.arms[0].runs:
        return "The first arm has no finished run, so there are no differences."
    if any(effect is not None for effect in report.statistics.differences):
        return "All runs of an arm have the same error, so no spread over seeds was measured."
    return "No arm can be compared with the first one: its runs are missing, left out, or were tested on other images."


def _arm_row(report: SweepReport, place: int) -> dict[str, Any]:
    arm, facts = report.arms[place], arm_facts(report)[place]
    mean, half, sd = (_percent(facts[name]) for name in ("top1_error", "top1_half", "top1_sd"))
    effect, by_images = report.statistics.differences[place], report.by_images[place]
    difference, intervals = NOTHING, {}
    if effect is not None:
        difference, intervals = _difference(effect)
    elif by_images is not None:
        difference = number_text(100 * by_images[0], 2, True)
        low, high = (100 * (by_images[0] + sign * by_images[1]) for sign in (-1, 1))
        intervals = {IMAGES_ALONE: range_text(low, high, 2, True)}
    counts = f"{len(arm.runs)} / {len(arm.planned)}" + (f", {len(arm.failed)} failed" if arm.failed else "")
    return {
        "name": arm_name(arm),
        "error": number_text(mean, 2),
        "sd": "" if sd is None else f"± {number_text(sd, 2)}",
        "range": "" if mean is None or half is None else range_text(mean - half, mean + half, 2, False),
        "difference": difference,
        "intervals": intervals,
        "counts": counts,
        **{
            name: number_text(_percent(facts[name]), 2)
            for name in ("top5_error", "center_top1_error", "train_top1_error")
        },
        "epochs": number_text(facts["epochs"], 1).removesuffix(".0"),
        "time": time_or_dash(facts["seconds"]),
        "sort": {
            "error": sortable(mean),
            "difference": sortable(_percent(facts["difference"])),
            "time": sortable(facts["seconds"]),
        },
    }


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _difference(effect: Effect) -> tuple[str, dict[str, str]]:
    """In points, with each interval from end to end."""
    found = 100 * effect.difference
    halves = {label: getattr(effect, name) for name, label in INTERVALS.items()}
    return number_text(found, 2, True), {
        label: range_text(found - 100 * half, found + 100 * half, 2, True)
        for label, half in halves.items()
        if half is not None
    }


def _shown_intervals(report: SweepReport) -> list[str]:
    """The intervals that any arm has."""
    found = {}
    for effect, by_images in zip(report.statistics.differences, report.by_images, strict=True):
        if effect is not None:
            found.update({label: None for name, label in INTERVALS.items() if getattr(effect, name) is not None})
        elif by_images is not None:
            found[IMAGES_ALONE] = None
    return list(found)


def every_run(report: SweepReport) -> Iterator[tuple[Arm, RunData]]:
    arms = {id: arm for arm in report.arms for id in arm.planned.values()}
    return ((arms[run.data.run_id], run.data) for run in report.sweep.runs)


def _run_row(arm: str, run: RunData) -> dict[str, str]:
    facts = run_facts(arm, run)
    return {
        **{name: str(facts[name]) for name in ("run_id", "arm")},
        "seed": NOTHING if facts["seed"] is None else str(facts["seed"]),
        "state": "" if run.is_done else run.state,
        "error": number_text(_percent(facts["ten_top1_error"]), 2),
        "epochs": NOTHING if facts["epochs"] is None else str(facts["epochs"]),
        "time": time_or_dash(facts["seconds"]),
    }


def arm_facts(report: SweepReport) -> list[dict[str, Any]]:
    """One mapping per arm, by ARM_COLUMNS: fractions, half widths of 95 % intervals, seconds."""
    found = []
    for arm, effect, by_images in zip(report.arms, report.statistics.differences, report.by_images, strict=True):
        facts: dict[str, Any] = dict.fromkeys(ARM_COLUMNS)
        facts.update(arm=arm.name, done=len(arm.runs), failed=len(arm.failed), missing=len(arm.missing))
        mean, sd = mean_and_sd(arm.errors)
        if arm.runs:
            results = [run.result for run in arm.runs]
            facts.update(
                top1_error=mean,
                top5_error=float(np.mean([one["test"]["ten"]["top5_error"] for one in results])),
                center_top1_error=float(np.mean([one["test"]["center"]["top1_error"] for one in results])),
                train_top1_error=float(np.mean([one["train"]["center"]["top1_error"] for one in results])),
                epochs=float(np.mean([one["epochs"] for one in results])),
                seconds=float(np.mean([one["seconds"] for one in results])),
            )
            if len(arm.runs) > 1:
                facts.update(top1_sd=sd, top1_half=mean_half_width(arm.errors))
        facts.update(effect_facts(effect))
        if effect is None and by_images is not None:
            facts.update(difference=by_images[0], images_half=by_images[1])
        found.append(facts)
    return found


def run_facts(arm: str, run: RunData) -> dict[str, Any]:
    """A run by RUN_COLUMNS."""
    facts: dict[str, Any] = {**dict.fromkeys(RUN_COLUMNS), "run_id": run.run_id, "arm": arm, "seed": run.seed}
    facts["state"] = run.state
    if run.is_done:
        for view in ("ten", "center"):
            errors = run.result["test"][view]
            facts.update({f"{view}_{metric}": errors[metric] for metric in ("top1_error", "top5_error")})
        facts["train_top1_error"] = run.result["train"]["center"]["top1_error"]
        facts.update({name: run.result[name] for name in ("epochs", "seconds")})
    return facts


def _line(arm: Arm) -> list[str]:
    """The overrides that make an arm's runs, by their labels and data set."""
    labels = arm.runs[0].status.get("labels", {})
    line = [f"{name}={labels[name]}" for name in ("recipe", "protocol", "model") if name in labels]
    with suppress(UserError, KeyError, TypeError):
        line.append(f"data={arm.runs[0].settings['data']['name']}")
    label = str(labels.get("ablation", "none"))
    line += split_changes(label) if "=" in label else [f"ablation={label}"]
    seeds = dict.fromkeys(str(run.seed) for run in arm.runs if run.seed is not None)
    return [*line, f"seed={','.join(seeds)}"] if seeds else line


def write_sweep_report(report: SweepReport, folder: Path, extras: Extras = PLAIN) -> Path:
    """Write the report's files and return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "arms.csv", csv_text(ARM_COLUMNS, arm_facts(report)))
    rows = [run_facts(arm.name, run) for arm, run in every_run(report)]
    write_atomic(folder / "runs.csv", csv_text(RUN_COLUMNS, rows))
    content = sweep_content(report)
    write_atomic(folder / "arms.tex", _latex(content))
    drawn = plots.save_all(_plots(report, extras.pictures), folder, extras.pdf)
    write_atomic(folder / "report.md", sweep_markdown(content, drawn))
    write_atomic(folder / "report.html", render("sweep.html.j2", content, drawn))
    return folder / "report.html"


def _plots(report: SweepReport, pictures: str | None) -> Iterator[plots.Plot]:
    arms = [arm for arm in report.arms if arm.runs]
    yield from plots.seeds(arms)
    yield from plots.learning_curves(arms)
    yield from plots.overfitting(arms)
    yield from plots.classes(arms, report.archive)
    yield from plots.cost(arms)
    yield from plots.kernels(arms[:2], report.archive, [arm.name for arm in arms[:2]])
    if pictures is not None:
        yield from plots.answers_and_neighbours(arms, pictures)


def _latex(content: dict[str, Any]) -> str:
    names = content["intervals"]
    rows = [
        [
            arm["name"],
            arm["counts"],
            f"{arm['error']} {arm['sd']}".strip(),
            arm["difference"],
            *(arm["intervals"].get(name, NOTHING) for name in names),
        ]
        for arm in content["arms"]
    ]
    heads = ["Arm", "Runs", "Top-1 error, %", "Difference, points", *names]
    caption = f"{content['title']}: top-1 error, ten views, mean and standard deviation over seeds; 95 % intervals."
    return table_latex(heads, "llrr" + "r" * len(names), rows, caption)
