"""Reports as plain data for `--json`: what the tables and CSV files say, under the same names."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexlab.report.sweep import SweepReport, arm_facts, every_run, run_facts, sweep_summary
from alexlab.report.wording import summary
from alexlab.report.write import claim_facts, submitters_table
from alexlab.study.comparison import Comparison, Figure, Placement
from alexlab.study.departures import Difference, Published, train_command
from alexlab.study.intervals import mean_and_sd
from alexlab.study.judgement import Arm, Judgement
from alexlab.study.records import Archive, RunData
from alexlab.study.statistics import LEVEL
from alexlab.study.sweep_statistics import effect_facts


def study_document(judgement: Judgement, archive: Archive, page: Path) -> dict[str, Any]:
    """A judged study. Claims are in the published unit, as in claims.csv; the errors of arms are fractions.

    `page`: the path of its report.
    """
    plan = judgement.plan
    return {
        "study": plan["id"],
        **{name: plan[name] for name in ("name", "recipe", "protocol", "model", "data", "rate", "claims_digest")},
        "plan": plan.get("digest"),
        "planned": plan.get("planned"),
        "looks": judgement.looks,
        "runs": {
            "planned": len(judgement.planned),
            "done": judgement.done,
            "failed": len({run.run_id for arm in judgement.arms for run in arm.failed}),
            "missing": judgement.missing,
        },
        "family": judgement.family,
        "is_rehearsal": judgement.is_rehearsal,
        "is_interim": judgement.is_interim,
        "command": judgement.command,
        "claims": [
            {**claim_facts(row), "compared": [arm.name for arm in row.arms], "is_context": row.claim.is_context}
            for row in judgement.rows
        ],
        "arms": [_arm(arm, archive) for arm in judgement.arms],
        "submitters": submitters_table(judgement),
        "rates": [asdict(arm) for arm in judgement.trials],
        "summary": summary(judgement),
        "problems": judgement.problems,
        "page": str(page),
    }


def _arm(arm: Arm, archive: Archive) -> dict[str, Any]:
    mean, sd = mean_and_sd(arm.errors)
    counts = {"done": arm.runs, "failed": arm.failed, "partly_trained": arm.partly, "unplanned": arm.unplanned}
    roles = {run.run_id: role for role, runs in counts.items() for run in runs}
    seeds = {run_id: seed for seed, run_id in arm.planned.items()} | {run.run_id: run.seed for run in arm.unplanned}
    return {
        "arm": arm.name,
        "overrides": arm.overrides,
        "lr": arm.lr,
        "planned": len(arm.planned),
        "done": arm.done,
        "failed": len(arm.failed),
        "partly_trained": len(arm.partly),
        "missing": len(arm.missing),
        "top1_error": mean,
        "top1_sd": sd,
        "seconds": arm.seconds,
        "runs": [
            {
                "run_id": run_id,
                "seed": seed,
                **_state(archive.runs.get(run_id)),
                "counted_as": roles.get(run_id, "missing"),
            }
            for run_id, seed in seeds.items()
        ],
    }


def sweep_document(report: SweepReport, page: Path) -> dict[str, Any]:
    """A sweep, with the names of arms.csv and runs.csv: fractions, half widths of 95 % intervals, seconds.

    `page`: the path of its report.
    """
    sweep, statistics = report.sweep, report.statistics
    values = [arm.values for arm in sweep.arms()]
    runs = {run.data.run_id: run for run in sweep.runs}
    return {
        "sweep_id": sweep.sweep_id,
        "factors": sweep.factors,
        "arms": [{**facts, "values": own} for facts, own in zip(arm_facts(report), values, strict=True)],
        "runs": [
            {
                **run_facts(arm.name, run),
                **_state(run),
                "data_seed": runs[run.run_id].data_seed,
                "values": runs[run.run_id].values,
            }
            for arm, run in every_run(report)
        ],
        "main_effects": [
            {"factor": one.factor, "base": one.base, "value": one.value, **effect_facts(one.effect)}
            for one in statistics.main_effects
        ],
        "sensitivity": None if statistics.sensitivity is None else asdict(statistics.sensitivity),
        "summary": sweep_summary(report),
        "problems": statistics.problems,
        "page": str(page),
    }


def comparison_document(found: Comparison) -> dict[str, Any]:
    """An error compared with the runs of a recipe: all errors are fractions, including published ones."""
    question, own = found.question, found.own
    return {
        "overrides": found.line,
        "is_chosen_here": found.is_chosen_here,
        "data": found.data.name,
        "view": found.view,
        "is_view_given": question.view is not None,
        "own": None
        if own is None
        else {"runs": [run.run_id for run in own.runs], "failed": own.lost, "images": found.images},
        "figures": [_figure(metric, figure, found) for metric, figure in question.figures.items()],
        "reference": None if found.reference is None else _published(found.reference),
        "published": [_published(one) for one in found.published],
        "metric": found.metric,
        "gap": found.gap,
        "differences": [_difference(one) for one in found.differences],
        "command": train_command(found.command),
        "problems": found.problems,
    }


def _figure(metric: str, figure: Figure, found: Comparison) -> dict[str, Any]:
    placement = found.placements.get(metric)
    return {
        "metric": metric,
        "value": figure.value,
        "n": figure.runs,
        "sd": figure.sd,
        "images": figure.images,
        "placement": None if placement is None else _placement(placement),
        "reference": found.references.get(metric),
    }


def _placement(one: Placement) -> dict[str, Any]:
    interval = None if one.interval is None else {"level": LEVEL, "low": one.interval[0], "high": one.interval[1]}
    return {
        "n": one.runs,
        "mean": one.mean,
        "sd": one.sd,
        "difference": one.gap,
        "below": one.below,
        "equal": one.equal,
        "percentile": one.percentile,
        "interval": interval,
        "is_expected": one.is_expected,
    }


def _published(one: Published) -> dict[str, Any]:
    errors = {"top1_error": one.top1_error / 100, "top5_error": one.top5_error / 100}
    return {"source": one.source, "data": one.data, "view": one.view, **errors}


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "name": one.name,
        "override": one.override,
        "key": one.key,
        "values": None if one.values is None else [*one.values],
        "effect": one.effect,
        "half": one.half,
        "is_bound": one.at_least,
        "runs": [*one.runs],
        "source": one.source or None,
        "command": None if one.command is None else train_command(one.command),
    }


def _state(run: RunData | None) -> dict[str, str | None]:
    """State and class of failure; None for a run that has not started."""
    status = {} if run is None else run.status
    return {"state": status.get("state"), "failure": status.get("failure")}
