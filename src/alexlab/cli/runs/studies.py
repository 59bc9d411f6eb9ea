"""`alexlab runs studies|forget`: the plans of studies."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alexlab.cli.columns import Column, print_columns
from alexlab.cli.runs.request import Planned, Request, read_plans
from alexlab.cli.tables import from_here
from alexlab.config import did_you_mean
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.runs.record import RUNNING


def list_studies(request: Request, console: Console) -> None:
    """Print the registered studies, one row each."""
    plans, problems = read_plans(request, console)
    if request.answer.is_wanted:
        folder = str(from_here(Path(request.source.name)))
        studies = [study_facts(plan) for plan in plans]
        request.answer.give("runs-studies/1", {"folder": folder, "studies": studies, "problems": problems})
        return
    columns = [Column("study", wraps=True), Column("recipe", wraps=True), Column("rate", rank=1)]
    columns += [Column("looks", right=True), Column("finished", right=True), Column("planned", rank=2)]
    for plan in plans:
        first, last = plan.looks[0], plan.looks[-1]
        planned = time.strftime("%m-%d %H:%M", time.localtime(first["planned"])) if "planned" in first else ""
        finished = f"{plan.finished} of {len(plan.run_ids)}"
        row = plan.path.stem, last["recipe"], last["rate"], str(len(plan.looks)), finished, planned
        for column, cell in zip(columns, row, strict=True):
            column.cells.append(cell)
    print_columns("Studies", columns, console)
    place = request.source if request.source.is_bundle else request.runs / "studies"
    console.print(f"{len(plans)} {'study' if len(plans) == 1 else 'studies'} in {place}", style="dim", soft_wrap=True)


def study_facts(plan: Planned) -> dict[str, Any]:
    """A study's facts, named as in its report's document: its last plan, and how many of its runs are finished."""
    last = plan.looks[-1]
    done = {run.run_id for run in plan.found if run.is_done}
    failed = {run.run_id for run in plan.found if run.is_terminal} - done

    def count(run_ids: Iterable[str]) -> dict[str, int]:
        planned = {*run_ids}
        ended = {"done": len(planned & done), "failed": len(planned & failed)}
        return {"planned": len(planned), **ended, "missing": len(planned) - sum(ended.values())}

    runs = count(run_id for arm in last["arms"] for run_id in arm["runs"].values())
    return {
        "study": last["id"],
        **{name: last[name] for name in ("name", "recipe", "protocol", "model", "data", "rate", "claims_digest")},
        "plan": last["digest"],
        "planned": last.get("planned"),
        "looks": len(plan.looks),
        "runs": runs,
        "is_interim": runs["missing"] > 0,
        "claims": [f"{claim['source']}/{claim['id']}" for claim in last["claims"]],
        "arms": [
            {"arm": arm["name"], "overrides": arm["overrides"], "lr": arm["lr"], **count(arm["runs"].values())}
            for arm in last["arms"]
        ],
    }


def forget(request: Request, console: Console) -> None:
    """Remove the plan of a study without results yet; later, that would hide that results had been seen."""
    [given] = request.ids
    plans = {plan.path.stem: plan for plan in read_plans(request, console)[0]}
    fitting = [given] if given in plans else [name for name in plans if name.startswith(given)]
    if len(fitting) != 1:
        near = (
            f"matches {', '.join(fitting)}; write more digits"
            if fitting
            else f"no such study{did_you_mean(given, plans)}"
        )
        raise UserError(f"{given}: {near}; `studies` lists them")
    plan = plans[fitting[0]]
    if plan.finished:
        raise UserError(
            f"{plan.path.stem}: {plan.finished} of its {len(plan.run_ids)} runs are finished, so its plan is kept: "
            "the report of a study with the same claims must say that this one was started"
        )
    if active := [run.run_id for run in plan.found if run.status["state"] == RUNNING]:
        raise UserError(f"{plan.path.stem}: its run {active[0]} is running, so its plan is kept; stop it first")
    plan.path.unlink()
    console.print(f"Removed {plan.path}; the records of its runs are kept.", soft_wrap=True)
