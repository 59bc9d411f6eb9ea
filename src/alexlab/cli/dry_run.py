"""`--dry-run`: the runs of a command, those done already, and the time and space that the rest needs."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from alexlab.cli.forecast import Cost, load_note, past_costs, source, span
from alexlab.cli.prospects import print_allotment, print_prospects, reckon
from alexlab.cli.tables import heading, new_table, seeds_shown, what
from alexlab.console import Console
from alexlab.output import show_notice
from alexlab.runs.supervisor import forecast
from alexlab.sweep.plan import Plan


def print_forecast(plan: Plan, console: Console) -> None:
    """Print the plan, with an estimate for each run that is not done."""
    note = load_note()  # before steps are timed
    costs = _costs(plan)
    table: Table = new_table("Plan (nothing is run)")
    table.add_column("#", justify="right")
    table.add_column(heading(plan.varying), ratio=1)
    table.add_column("seed", justify="right")
    table.add_column("state")
    table.add_column("about", justify="right", no_wrap=True)
    table.add_column("run id", no_wrap=True)
    for number, run in enumerate(plan.runs, 1):
        state = str(run.record.status().get("state", "to do"))
        about = "" if run.record.is_done else span(costs[run.arm].low, costs[run.arm].high)
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
    _print_total(plan, costs, note, console)
    found = reckon(plan)
    print_prospects(found, console)
    if plan.study is not None and plan.study.base.study.budget is not None:
        print_allotment(plan, found, {arm: (cost.low + cost.high) / 2 for arm, cost in costs.items()}, console)


def _print_total(plan: Plan, costs: dict[str, Cost], note: str, console: Console) -> None:
    pending = [run for run in plan.runs if not run.record.is_done]
    counts = f"{len(plan.runs)} runs: {len(plan.runs) - len(pending)} done, {len(pending)} to do."
    if not pending:
        console.print(counts)
        return
    low, high, size = (sum(getattr(costs[run.arm], name) for run in pending) for name in ("low", "high", "size"))
    alone = ", on one device" if any(run.config.trainer.devices > 1 for run in pending) else ""
    console.print(
        f"{counts} About {span(low, high)} on this machine{alone}, one after another, from "
        f"{source([costs[arm] for arm in dict.fromkeys(run.arm for run in pending)])}, and {size / 1e6:,.0f} MB{note}.",
        soft_wrap=True,
    )


def _costs(plan: Plan) -> dict[str, Cost]:
    """The cost of a run, by arm; steps are timed only for arms with a run to do, and no finished one."""
    arms = {run.arm: run.config for run in plan.runs}
    known = past_costs(Path(plan.runs[0].config.paths.runs), {arm: one.trainer.devices for arm, one in arms.items()})
    timed = {run.arm: run.config for run in plan.runs if run.arm not in known and not run.record.is_done}
    if timed:
        show_notice(f"timing some steps of {len(timed)} arm{'s' * (len(timed) != 1)} ...")
    measured = forecast(list(timed.values())) if timed else []
    return {**known, **{arm: Cost(*seconds, size) for arm, (seconds, size) in zip(timed, measured, strict=True)}}
