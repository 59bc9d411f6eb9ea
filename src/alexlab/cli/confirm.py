"""The question before a large sweep starts."""

from __future__ import annotations

import sys

from alexlab.cli.forecast import estimate, total_of, total_shown
from alexlab.console import Console, ask, duration, plural
from alexlab.errors import UserError
from alexlab.runs.device import Device
from alexlab.sweep.plan import Plan

# All ablations with two seeds, the example of --help, are fewer; a grid with one comma too many is quickly more.
MANY_RUNS = 100


def may_start(plan: Plan, device: Device | None, is_sure: bool, console: Console) -> bool:
    """Whether a plan's runs may start; a sweep with more than 100 runs to do shows the hours that they take and asks.

    A study, whose file names its runs, and a try-out do not ask. `device`: see `estimate`; `is_sure`: --yes was given.

    Raises:
        UserError: if there is no terminal to ask, or the hours cannot be forecast.
    """
    pending = [run for run in plan.runs if run.is_pending]
    if is_sure or plan.study is not None or plan.is_tryout or len(pending) <= MANY_RUNS:
        return True
    if not sys.stdin.isatty():
        raise UserError(
            f"{plural(len(pending), 'run')} to do: more than {MANY_RUNS} need confirmation, but stdin is not a "
            "terminal; pass --yes"
        )
    found = estimate(plan, device)
    console.say(f"{plural(len(pending), 'run')} to do. {total_shown(pending, found.costs, found.note)}")
    total = total_of([found.costs[run.arm] for run in pending])
    return ask(f"Start {plural(len(pending), 'run')} (about {duration(total.seconds)})?")
