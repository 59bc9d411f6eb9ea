"""`--dry-run`: the runs of a command, those done already, and the time and space that the rest needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alexlab.cli.columns import Column, factor_columns, print_columns
from alexlab.cli.forecast import Cost, estimate, total_of, total_shown
from alexlab.cli.prospects import (
    Affordable,
    afford,
    plan_prospects,
    print_allotment,
    print_prospects,
    prospect_facts,
)
from alexlab.cli.tables import common_settings, factors_of, print_settings, seeds_shown, values_of
from alexlab.console import Console, duration, plural
from alexlab.runs.device import Device
from alexlab.study.planning import Prospect
from alexlab.sweep.plan import Plan, PlannedRun
from alexlab.validate import hours


@dataclass(frozen=True)
class Forecast:
    """A plan, its cost and what it can show."""

    plan: Plan
    device: Device | None  # the one on which this machine would train; None if unknown, as for a launcher's machines
    costs: dict[str, Cost]  # of a run, by arm
    note: str  # on the machine's load
    prospects: list[Prospect]

    @cached_property
    def affordable(self) -> Affordable | None:
        """The study that `study.budget` hours allow; None without such a budget.

        Raises:
            UserError: if the budget settles no claim.
        """
        seconds = {arm: cost.seconds for arm, cost in self.costs.items()}
        return afford(self.plan, self.prospects, seconds)

    @property
    def pending(self) -> list[PlannedRun]:
        """The runs that the command would start."""
        return [run for run in self.plan.runs if run.is_pending]


def make_forecast(plan: Plan, device: Device | None) -> Forecast:
    """Estimate the cost of each run to do, and compute what a study's plan can show."""
    found = estimate(plan, device)
    return Forecast(plan, device, found.costs, found.note, plan_prospects(plan, found.past))


def print_forecast(forecast: Forecast, console: Console) -> None:
    """Print the plan, with an estimate for each run to do."""
    plan, costs = forecast.plan, forecast.costs
    names = factors_of(plan.runs)
    number, factors, seed = Column("#", right=True, rank=1), factor_columns(names), Column("seed", right=True)
    state, about, run_id = Column("state", wraps=True), Column("about", right=True), Column("run id")
    for place, run in enumerate(plan.runs, 1):
        number.cells.append(str(place))
        for column, value in zip(factors, values_of(run, names), strict=True):
            column.cells.append(value)
        seed.cells.append(seeds_shown(run.config.seed, run.config.data.seed))
        state.cells.append(str(run.record.status().get("state", "to do")).lower())
        about.cells.append(duration(costs[run.arm].seconds) if run.is_pending else "")
        run_id.cells.append(run.run_id)
    console.print()
    print_settings(plan, console)
    print_columns("Plan (dry run)", [number, *factors, seed, state, about, run_id], console)
    _print_total(plan, costs, forecast.pending, forecast.note, console)
    print_prospects(forecast.prospects, console)
    if forecast.affordable is not None:
        print_allotment(forecast.affordable, forecast.prospects, console)


def forecast_document(forecast: Forecast) -> dict[str, Any]:
    """The plan for `--json`: seconds, bytes, and prospects in their claims' units."""
    plan, pending, affordable, device = forecast.plan, forecast.pending, forecast.affordable, forecast.device
    used = [forecast.costs[arm] for arm in dict.fromkeys(run.arm for run in pending)]
    return {
        "choices": {
            name: None if name in plan.varying else option
            for name, option in plan.choices.items()
            if not name.startswith("hydra/") or name == "hydra/launcher"
        },
        "device": None if device is None else {"name": device.name, "unused_gpu": device.unused_gpu},
        "factors": plan.varying,
        "settings": common_settings(plan),
        "runs": [_run(run, forecast.costs) for run in plan.runs],
        "total": {
            "runs": len(plan.runs),
            "done": _finished(plan),
            "to_do": len(pending),
            **_summed([forecast.costs[run.arm] for run in pending]),
            "finished_runs": sum(cost.runs for cost in used),
            "is_timed": any(cost.runs == 0 for cost in used),
        },
        "is_round_of_trials": plan.study is not None and bool(plan.study.round),
        "prospects": [prospect_facts(one) for one in forecast.prospects],
        "budget": None
        if affordable is None
        else {
            "hours": affordable.hours,
            "runs": affordable.chosen.runs,
            "base_runs": affordable.chosen.base_runs,
            "seconds": affordable.chosen.seconds,
            "claims": [claim.name for claim in affordable.chosen.claims],
            "left_out": [claim.name for claim in affordable.chosen.left_out],
            "overrides": affordable.overrides,
        },
    }


def _run(run: PlannedRun, costs: dict[str, Cost]) -> dict[str, Any]:
    status = run.record.status()
    return {
        "run_id": run.run_id,
        "arm": run.arm,
        "name": run.name.arm,
        "values": run.values,
        "overrides": list(run.overrides),
        "seed": run.config.seed,
        "data_seed": run.config.data.seed,
        "state": status.get("state"),
        "failure": status.get("failure"),
        **_summed([costs[run.arm]] if run.is_pending else []),
    }


def _finished(plan: Plan) -> int:
    return sum(run.record.is_done and not run.is_pending for run in plan.runs)  # a try-out repeats finished ones


def _summed(costs: list[Cost]) -> dict[str, float]:
    total = total_of(costs)
    return {
        "seconds": total.seconds,
        "seconds_low": total.low,
        "seconds_high": total.high,
        "bytes": total.size,
    }


def _print_total(plan: Plan, costs: dict[str, Cost], pending: list[PlannedRun], note: str, console: Console) -> None:
    done = _finished(plan)
    failed = len(plan.runs) - done - len(pending)  # as a result, which is not retried
    before = f", {failed} failed before" if failed else ""
    counts = f"{plural(len(plan.runs), 'run')}: {done} done{before}, {len(pending)} to do."
    if not pending:
        console.say(counts)
        return
    console.say(f"{counts} {total_shown(pending, costs, note)}")
    if (budget := pending[0].config.max_hours) is not None:
        seconds, ended = 3600 * hours("max_hours", budget), 0
        for run in pending:
            seconds -= costs[run.arm].seconds
            ended += seconds >= 0
        console.say(f"max_hours={budget}: about {ended} of these {len(pending)} end in that time, one after another.")
