"""`alexlab runs list`: one row per run."""

from __future__ import annotations

import time
from pathlib import Path

from alexlab.cli.columns import Column, print_columns
from alexlab.cli.runs.facts import run_facts
from alexlab.cli.runs.request import Request, read_runs
from alexlab.cli.tables import from_here
from alexlab.console import Console, duration, plural
from alexlab.runs.names import BASE
from alexlab.study.records import RunData

_LONGEST_ARM = 200  # characters: a record may be untrusted


def list_runs(request: Request, console: Console) -> None:
    """Print the runs that pass the filters, one row each."""
    found, problems = read_runs(request, console)
    if request.answer.is_wanted:
        runs = [run_facts(run) for run in found]
        folder = str(from_here(Path(request.source.name)))
        request.answer.give("runs-list/1", {"folder": folder, "runs": runs, "problems": problems})
        return
    print_runs(found, "Runs", console)
    states = [run.state for run in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    runs = plural(len(found), "run")
    console.say(f"{runs} in {request.source}{': ' * bool(counts)}{counts}", "dim")


def print_runs(found: list[RunData], title: str, console: Console) -> None:
    """Print a table of runs; settings that all of them share are printed above it."""
    arm, seed, recipe = Column("arm", wraps=True), Column("seed", right=True), Column("recipe", rank=2)
    state, error = Column("state", wraps=True), Column("top-1, %", right=True)
    time_, began, run_id = Column("time", right=True, rank=3), Column("started", rank=1), Column("run id")
    rows = [run_facts(run) for run in found]
    own = [{**row["changes"], **row["settings"]} for row in rows]
    shared = {key: value for key, value in (own[0] if own else {}).items() if all(one.get(key) == value for one in own)}
    for run, row, changes in zip(found, rows, own, strict=True):
        top1 = row["test"] and row["test"]["ten"]["top1_error"]
        start, seconds = row["started"], row["seconds"]
        lines = [*row["ablations"], *(f"{key}={value}" for key, value in changes.items() if key not in shared)]
        arm.cells.append((" ".join(lines) or BASE)[:_LONGEST_ARM])
        seed.cells.append("" if row["seed"] is None else str(row["seed"]))
        recipe.cells.append(row["recipe"] or "")
        state.cells.append(run.state)
        error.cells.append("" if top1 is None else f"{100 * top1:.1f}")
        time_.cells.append("" if seconds is None else duration(seconds))
        began.cells.append("" if start is None else time.strftime("%m-%d %H:%M", time.localtime(start)))
        run_id.cells.append(row["run_id"])
    if shared:
        console.say(f"Settings: {' '.join(f'{key}={value}' for key, value in shared.items())}", "dim")
    print_columns(title, [arm, seed, recipe, state, error, time_, began, run_id], console)
