"""How long runs take: from finished records of the same arm on the same machine, else from some timed steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from alexlab import threads
from alexlab.console import duration, plural
from alexlab.data.store import gigabytes
from alexlab.errors import UserError
from alexlab.output import show_notice
from alexlab.runs.device import Device
from alexlab.runs.environment import cpu_model
from alexlab.runs.supervisor import forecast
from alexlab.study.records import RunData, finished_runs
from alexlab.sweep.plan import Plan, PlannedRun

_BUSY = 0.75  # load for each core above which a machine is busy


@dataclass(frozen=True)
class Cost:
    """The cost of a run: seconds (estimate, low and high), and bytes of its record.

    From `runs` finished runs; if there are none, from timed steps.
    """

    seconds: float
    low: float
    high: float
    size: int
    runs: int = 0


@dataclass(frozen=True)
class Estimate:
    """The cost of a plan's runs, by arm, and where it is from."""

    costs: dict[str, Cost]
    note: str  # on the machine's load, before steps were timed
    past: list[RunData]  # the finished runs in the plan's folder


def estimate(plan: Plan, device: Device | None) -> Estimate:
    """Estimate the cost of a plan's runs.

    `device`: the one on which this machine would train; None if unknown, as for a launcher's machines.

    Raises:
        UserError: if steps cannot be timed, as without the device asked for.
    """
    note = load_note()  # before steps are timed
    past = finished_runs(Path(plan.runs[0].config.paths.runs))
    return Estimate(_costs_by_arm(plan, past, device), note, past)


def _costs_by_arm(plan: Plan, past: Sequence[RunData], device: Device | None) -> dict[str, Cost]:
    """The cost of a run of each arm that has a run to do or that a budget pays for.

    Steps are timed only for those of which no run finished on a machine like this.

    `past`: finished runs.

    Raises:
        UserError: if steps cannot be timed, as without the device asked for.
    """
    arms = {run.arm: run.config for run in plan.runs}
    known = past_costs(past, {arm: one.trainer.devices for arm, one in arms.items()}, device)
    has_budget = plan.study is not None and plan.study.base.study.budget is not None
    timed = {run.arm: run.config for run in plan.runs if run.arm not in known and (has_budget or run.is_pending)}
    if timed:
        show_notice(f"timing some steps of {plural(len(timed), 'arm')} ...")
    measured = forecast(list(timed.values())) if timed else []
    by_steps = {
        arm: Cost(middle, low, high, size) for arm, ((low, middle, high), size) in zip(timed, measured, strict=True)
    }
    return {**known, **by_steps}


def past_costs(past: Sequence[RunData], arms: dict[str, int], device: Device | None) -> dict[str, Cost]:
    """The costs of the arms that have runs finished on a machine like this; `arms` has the number of devices of each.

    `past`: finished runs.
    """
    found: dict[str, list[tuple[float, int]]] = {}
    for run in past:
        with suppress(UserError, OSError):  # a corrupt record says nothing
            if run.arm in arms and is_like_here(run, arms[run.arm], device):
                found.setdefault(run.arm, []).append((run.result["seconds"], run.record.size))
    costs = {}
    for arm, pairs in found.items():
        seconds, sizes = zip(*pairs, strict=True)
        costs[arm] = Cost(median(seconds), min(seconds), max(seconds), round(median(sizes)), len(pairs))
    return costs


def is_like_here(run: RunData, devices: int, device: Device | None) -> bool:
    """Whether a run was trained on as many devices of the same model, if it is known, on a machine like this one."""
    here = {"cpu": cpu_model(), "cpus": threads.cores(), "devices": devices}
    is_same_device = device is None or run.result.get("device") == device.model
    return is_same_device and all(run.environment.get(name) == value for name, value in here.items())


def load_note() -> str:
    """The load of this machine, and whether other work keeps its cores busy."""
    load, cores = os.getloadavg()[0], threads.cores()
    return f"{'the machine is busy: ' if load > _BUSY * cores else ''}load {load:.1f} on {cores} cores"


def total_of(costs: Sequence[Cost]) -> Cost:
    """The total cost of runs one after another."""
    seconds, low, high = (sum(getattr(cost, name) for cost in costs) for name in ("seconds", "low", "high"))
    return Cost(seconds, low, high, sum(cost.size for cost in costs))


def total_shown(pending: Sequence[PlannedRun], costs: Mapping[str, Cost], note: str) -> str:
    """The time and space that runs take, with the time's range and source; `note`: on the load."""
    total = total_of([costs[run.arm] for run in pending])
    used = [costs[arm] for arm in dict.fromkeys(run.arm for run in pending)]
    alone = ", on one device" if any(run.config.trainer.devices > 1 for run in pending) else ""
    load = f"; {note}" if any(cost.runs == 0 for cost in used) else ""
    return (
        f"About {with_spread(total)} on this machine{alone}, one after another, from {source(used)}, and "
        f"{gigabytes(total.size)} of records and checkpoints{load}."
    )


def with_spread(cost: Cost) -> str:
    """`50 min (40 min to 1 h 10 min)`, or the first alone if they are nearly the same."""
    about, low, high = map(duration, (cost.seconds, cost.low, cost.high))
    return about if low == high or cost.high < 1.1 * cost.low else f"{about} ({low} to {high})"


def source(costs: list[Cost]) -> str:
    """Where costs are from: finished runs, timed steps, or both."""
    runs = sum(cost.runs for cost in costs)
    parts = [plural(runs, "finished run")] if runs else []
    parts += ["some timed steps (loading not counted)"] if any(cost.runs == 0 for cost in costs) else []
    return " and ".join(parts)
