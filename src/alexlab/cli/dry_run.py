"""`--dry-run`: the runs of a command, those done already, and the time and space that the rest needs."""

from __future__ import annotations

from alexlab.cli.columns import Column, factor_columns, print_columns
from alexlab.cli.prospects import print_allotment, print_prospects, reckon
from alexlab.cli.tables import common_settings, factors_of, seeds_shown, values_of
from alexlab.console import Console, duration
from alexlab.runs.supervisor import forecast
from alexlab.sweep.plan import Plan


def print_forecast(plan: Plan, console: Console) -> None:
    """Print the plan, with estimates from some timed steps of each arm that is not done."""
    pending = [run for run in plan.runs if not run.record.is_done]
    arms = {run.arm: run.config for run in pending}
    costs = dict(zip(arms, forecast(list(arms.values())), strict=True)) if arms else {}
    names = factors_of(plan.runs)
    number, factors, seed = Column("#", right=True, rank=1), factor_columns(names), Column("seed", right=True)
    state, about, run_id = Column("state", wraps=True), Column("about", right=True), Column("run id")
    for place, run in enumerate(plan.runs, 1):
        number.cells.append(str(place))
        for column, value in zip(factors, values_of(run, names), strict=True):
            column.cells.append(value)
        seed.cells.append(seeds_shown(run.config.seed, run.config.data.seed))
        state.cells.append(str(run.record.status().get("state", "to do")).lower())
        about.cells.append("" if run.record.is_done else duration(costs[run.arm][0]))
        run_id.cells.append(run.run_id)
    console.print()
    if settings := common_settings(plan.runs, plan.varying):
        console.say(f"Settings: {settings}", "dim")
    print_columns("Plan (nothing is run)", [number, *factors, seed, state, about, run_id], console)
    seconds = sum(costs[run.arm][0] for run in pending)
    size = sum(costs[run.arm][1] for run in pending)
    alone = ", on one device" if any(run.config.trainer.devices > 1 for run in pending) else ""
    runs = f"{len(plan.runs):,} run{'s' * (len(plan.runs) != 1)}"
    console.say(
        f"{runs}: {len(plan.runs) - len(pending)} done, {len(pending)} to do. About {duration(seconds)} on this "
        f"machine{alone}, one after another, from some timed steps (loading not counted), and {size / 1e6:,.0f} MB."
    )
    found = reckon(plan)
    print_prospects(found, console)
    if plan.study is not None and plan.study.base.study.budget is not None:
        print_allotment(plan, found, {arm: cost for arm, (cost, _) in costs.items()}, console)
