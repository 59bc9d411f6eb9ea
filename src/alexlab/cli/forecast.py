"""How long runs take: from finished records of the same arm on the same machine, else from some timed steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from alexlab import threads
from alexlab.console import duration, plural
from alexlab.errors import UserError
from alexlab.runs.environment import cpu_model
from alexlab.study.records import RunData

_BUSY = 0.75  # load for each core above which a machine is busy


@dataclass(frozen=True)
class Cost:
    """What a run takes: seconds, from and to, and bytes of its record; `runs` finished ones say so, or timed steps."""

    low: float
    high: float
    size: int
    runs: int = 0


def past_costs(past: Sequence[RunData], arms: dict[str, int]) -> dict[str, Cost]:
    """The costs of those of the arms, each with its number of devices, that have finished on a machine like this.

    `past`: finished runs.
    """
    found: dict[str, list[tuple[float, int]]] = {}
    for run in past:
        with suppress(UserError, OSError):  # a corrupt record says nothing
            if run.arm in arms and is_like_here(run, arms[run.arm]):
                size = sum(path.stat().st_size for path in run.record.path.rglob("*") if path.is_file())
                found.setdefault(run.arm, []).append((run.result["seconds"], size))
    return {
        arm: Cost(min(s for s, _ in costs), max(s for s, _ in costs), round(median(b for _, b in costs)), len(costs))
        for arm, costs in found.items()
    }


def is_like_here(run: RunData, devices: int) -> bool:
    """Whether a run was trained on as many devices, by a processor like this machine's."""
    here = {"cpu": cpu_model(), "cpus": threads.cores(), "devices": devices}
    return all(run.environment.get(name) == value for name, value in here.items())


def load_note() -> str:
    """A note if other work keeps this machine's cores busy; empty if not."""
    load, cores = os.getloadavg()[0], threads.cores()
    return f"; the machine is busy: load {load:.1f} on {cores} cores" if load > _BUSY * cores else ""


def span(low: float, high: float) -> str:
    """`40 min to 1 h 10 min`, or one of them if they are nearly the same."""
    first, last = duration(low), duration(high)
    return first if first == last or high < 1.1 * low else f"{first} to {last}"


def source(costs: list[Cost]) -> str:
    """Where costs are from: finished runs, timed steps, or both."""
    runs = sum(cost.runs for cost in costs)
    parts = [plural(runs, "finished run")] if runs else []
    parts += ["some timed steps (loading not counted)"] if any(cost.runs == 0 for cost in costs) else []
    return " and ".join(parts)
