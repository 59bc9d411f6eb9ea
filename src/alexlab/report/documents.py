"""Reports as plain data for `--json`: what the tables and CSV files say, under the same names."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexlab.report.content import error_and_sd
from alexlab.report.sweep import SweepReport, arm_facts, every_run, run_facts, sweep_summary
from alexlab.report.wording import summary
from alexlab.report.write import claim_facts, submitters_table
from alexlab.study.records import Archive, RunData
from alexlab.study.sweep_statistics import effect_facts
from alexlab.study.verdicts import Arm, Judgement


def study_document(judgement: Judgement, archive: Archive, page: Path) -> dict[str, Any]:
    """A judged study. Claims are in the published unit, as in claims.csv; errors of arms are fractions.

    `page`: of its report.
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
    mean, sd = error_and_sd(arm.runs)
    counts = {"done": [*arm.runs], "failed": [*arm.failed, *arm.partly], "unplanned": arm.unplanned}
    roles = {run.run_id: role for role, runs in counts.items() for run in runs}
    seeds = {run_id: seed for seed, run_id in arm.planned.items()} | {run.run_id: run.seed for run in arm.unplanned}
    return {
        "arm": arm.name,
        "overrides": arm.overrides,
        "lr": arm.lr,
        "planned": len(arm.planned),
        "done": arm.done,
        "failed": arm.lost,
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
    """A sweep by the names of arms.csv and runs.csv: fractions, half widths of 95 % intervals, seconds.

    `page`: of its report.
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


def _state(run: RunData | None) -> dict[str, str | None]:
    """State and class of failure; None for a run that has not begun."""
    status = {} if run is None else run.status
    return {"state": status.get("state"), "failure": status.get("failure")}
