"""`--dry-run`: the runs of a command, those done already, and the time and space that the rest needs."""

from __future__ import annotations

from pathlib import Path

from alexlab.cli.columns import Column, factor_columns, print_columns
from alexlab.cli.forecast import Cost, load_note, past_costs, source, span
from alexlab.cli.prospects import print_allotment, print_prospects, reckon
from alexlab.cli.tables import common_settings, factors_of, seeds_shown, values_of
from alexlab.console import Console, plural
from alexlab.output import show_notice
from alexlab.runs.supervisor import forecast
from alexlab.study.records import RunData, finished_runs
from alexlab.sweep.plan import Plan


def print_forecast(plan: Plan, console: Console) -> None:
    """Print the plan, with an estimate for each run that is not done."""
    note = load_note()  # before steps are timed
    past = finished_runs(Path(plan.runs[0].config.paths.runs))
    costs = _costs(plan, past)
    names = factors_of(plan.runs)
    number, factors, seed = Column("#", right=True, rank=1), factor_columns(names), Column("seed", right=True)
    state, about, run_id = Column("state", wraps=True), Column("about", right=True), Column("run id")
    for place, run in enumerate(plan.runs, 1):
        number.cells.append(str(place))
        for column, value in zip(factors, values_of(run, names), strict=True):
            column.cells.append(value)
        seed.cells.append(seeds_shown(run.config.seed, run.config.data.seed))
        state.cells.append(str(run.record.status().get("state", "to do")).lower())
        about.cells.append("" if run.record.is_done else span(costs[run.arm].low, costs[run.arm].high))
        run_id.cells.append(run.run_id)
    console.print()
    if settings := common_settings(plan.runs, plan.varying):
        console.say(f"Settings: {settings}", "dim")
    print_columns("Plan (nothing is run)", [number, *factors, seed, state, about, run_id], console)
    _print_total(plan, costs, note, console)
    found = reckon(plan, past)
    print_prospects(found, console)
    if plan.study is not None and plan.study.base.study.budget is not None:
        print_allotment(plan, found, {arm: (cost.low + cost.high) / 2 for arm, cost in costs.items()}, console)


def _print_total(plan: Plan, costs: dict[str, Cost], note: str, console: Console) -> None:
    pending = [run for run in plan.runs if not run.record.is_done]
    runs = plural(len(plan.runs), "run")
    counts = f"{runs}: {len(plan.runs) - len(pending)} done, {len(pending)} to do."
    if not pending:
        console.say(counts)
        return
    low, high, size = (sum(getattr(costs[run.arm], name) for run in pending) for name in ("low", "high", "size"))
    alone = ", on one device" if any(run.config.trainer.devices > 1 for run in pending) else ""
    console.say(
        f"{counts} About {span(low, high)} on this machine{alone}, one after another, from "
        f"{source([costs[arm] for arm in dict.fromkeys(run.arm for run in pending)])}, and {size / 1e6:,.0f} MB{note}."
    )


def _costs(plan: Plan, past: list[RunData]) -> dict[str, Cost]:
    """The cost of a run, by arm; steps are timed only for arms with a run to do, and no finished one."""
    arms = {run.arm: run.config for run in plan.runs}
    known = past_costs(past, {arm: one.trainer.devices for arm, one in arms.items()})
    timed = {run.arm: run.config for run in plan.runs if run.arm not in known and not run.record.is_done}
    if timed:
        show_notice(f"timing some steps of {plural(len(timed), 'arm')} ...")
    measured = forecast(list(timed.values())) if timed else []
    return {**known, **{arm: Cost(*seconds, size) for arm, (seconds, size) in zip(timed, measured, strict=True)}}
