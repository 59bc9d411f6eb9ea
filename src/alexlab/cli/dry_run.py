"""`--dry-run`: the runs of a command, those done already, and the time and space that the rest needs."""

from __future__ import annotations

from rich.table import Table

from alexlab.cli.prospects import print_allotment, print_prospects, reckon
from alexlab.cli.tables import heading, new_table, seeds_shown, what
from alexlab.console import Console
from alexlab.runs.supervisor import forecast
from alexlab.sweep.plan import Plan


def print_forecast(plan: Plan, console: Console) -> None:
    """Print the plan, with estimates from some timed steps of each arm that is not done."""
    pending = [run for run in plan.runs if not run.record.is_done]
    arms = {run.arm: run.config for run in pending}
    costs = dict(zip(arms, forecast(list(arms.values())), strict=True)) if arms else {}
    table: Table = new_table("Plan (nothing is run)")
    table.add_column("#", justify="right")
    table.add_column(heading(plan.varying), ratio=1)
    table.add_column("seed", justify="right")
    table.add_column("state")
    table.add_column("about", justify="right", no_wrap=True)
    table.add_column("run id", no_wrap=True)
    for number, run in enumerate(plan.runs, 1):
        state = str(run.record.status().get("state", "to do"))
        about = "" if run.record.is_done else duration(costs[run.arm][0])
        table.add_row(
            str(number),
            what(run, plan.varying),
            seeds_shown(run.config.seed, run.config.data.seed),
            state.lower(),
            about,
            run.run_id,
        )
    console.print()
    console.print(table)
    seconds = sum(costs[run.arm][0] for run in pending)
    size = sum(costs[run.arm][1] for run in pending)
    alone = ", on one device" if any(run.config.trainer.devices > 1 for run in pending) else ""
    console.print(
        f"{len(plan.runs)} runs: {len(plan.runs) - len(pending)} done, {len(pending)} to do. About {duration(seconds)} "
        f"on this machine{alone}, one after another, from some timed steps (loading not counted), "
        f"and {size / 1e6:,.0f} MB.",
        soft_wrap=True,
    )
    found = reckon(plan)
    print_prospects(found, console)
    if plan.study is not None and plan.study.base.study.budget is not None:
        print_allotment(plan, found, {arm: cost for arm, (cost, _) in costs.items()}, console)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
