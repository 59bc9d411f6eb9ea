"""The table that ends a command: the result of each run, and how far one seed can be trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from rich import box
from rich.table import Table

from alexlab.architecture import map_sides
from alexlab.config import Keep
from alexlab.console import Console
from alexlab.data.locate import fingerprint
from alexlab.files import write_atomic
from alexlab.runs.failure import ERROR, HINTS
from alexlab.runs.record import FAILED
from alexlab.study.intervals import paired_difference, wilson
from alexlab.study.records import RunData
from alexlab.sweep.plan import Plan, PlannedRun


class RunRow(NamedTuple):
    """A run of a plan, and what its record says."""

    planned: PlannedRun
    data: RunData


def read_rows(plan: Plan) -> list[RunRow]:
    """Read the records of a plan's runs, and remove what a finished one left that was killed in its last second.

    Raises:
        UserError: where a record is corrupt.
    """
    rows = [RunRow(run, RunData(run.record, run.record.seen())) for run in plan.runs]
    for run, data in rows:
        if data.result:  # which is there once it is done
            data.record.tidy(keeps_newest=run.config.checkpoint.keep is Keep.all)
    return rows


def print_table(plan: Plan, rows: list[RunRow], console: Console) -> None:
    """Print one row a run and, where an arm has several seeds, one row an arm."""
    many_seeds = len(plan.runs) > len({run.arm for run in plan.runs})
    console.print()
    console.print(_runs_table(rows, plan.varying, many_seeds))
    if many_seeds:
        console.print(_arms_table(rows, plan.varying))
    for line in _notes(plan, rows, many_seeds):
        console.print(line, style="dim", highlight=False)


def new_table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False)


def _runs_table(rows: list[RunRow], varying: list[str], many_seeds: bool) -> Table:
    table = new_table("Error on the test split, %")
    table.add_column(heading(varying), ratio=1, overflow="fold")
    if many_seeds:
        table.add_column("seed", justify="right")
    # Of the columns with errors, the ten views' are the paper's measure.
    for name in ("ten views\ntop-1", "\ntop-5", "centre\ntop-1", "\ntop-5", "ten top-1\n- first", "\nepochs", "\ns"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("\nrun id", no_wrap=True)
    base = next((row for row in rows if row.data.is_done), None) if rows and rows[0].data.is_done else None
    for row in rows:
        cells = [what(row.planned, varying)]
        if many_seeds:
            cells.append(seeds_shown(row.planned.config.seed, row.planned.config.data.seed))
        if row.data.is_done:
            test = row.data.result["test"]
            low, high = wilson(test["ten"]["top1_error"], test["images"])
            cells += [
                f"{_percent(test['ten']['top1_error'])}±{50 * (high - low):.1f}",
                _percent(test["ten"]["top5_error"]),
                _percent(test["center"]["top1_error"]),
                _percent(test["center"]["top5_error"]),
                _against(row, base, many_seeds),
                str(row.data.result["epochs"]),
                f"{row.data.result['seconds']:.0f}",
            ]
        else:
            cells += [row.data.state, *[""] * 6]
        table.add_row(*cells, row.planned.run_id)
    return table


def heading(varying: list[str]) -> str:
    return varying[0] if len(varying) == 1 else "what varied"


def what(run: PlannedRun, varying: list[str]) -> str:
    """What varied of a run, under that heading: the value alone where it is of one key."""
    return run.varied.removeprefix(f"{varying[0]}=") if len(varying) == 1 else one_a_line(run.varied)


def one_a_line(varied: str) -> str:
    """Put changes such as `a=1 b=[c, d]` on lines of their own."""
    return re.sub(r" (?=[a-z_.0-9]+=)", "\n", varied)


def seeds_shown(seed: int, data_seed: int | None) -> str:
    """A run's seed, and after a slash that of its data if it is another."""
    return str(seed) if seed == data_seed else f"{seed}/{data_seed}"


def _against(row: RunRow, base: RunRow | None, many_seeds: bool) -> str:
    if base is None or many_seeds or row is base:
        return ""
    if fingerprint(row.planned.config.data) != fingerprint(base.planned.config.data):
        return "other data"
    (mine, _), (others, _) = (one.data.wrong("top1_error", "ten") for one in (row, base))
    difference, half = paired_difference(mine, others)
    return f"{100 * difference:+.1f}±{100 * half:.1f}"


def _arms_table(rows: list[RunRow], varying: list[str]) -> Table:
    """Mean and standard deviation over an arm's seeds; failed runs are counted, not averaged."""
    table = new_table("Arms: mean ± standard deviation over seeds, %")
    table.add_column(heading(varying), ratio=1, overflow="fold")
    for name in ("\nseeds", "ten views\ntop-1", "\ntop-5", "centre\ntop-1", "\ntop-5", "ten top-1\n- first"):
        table.add_column(name, justify="right", no_wrap=True)
    arms: dict[str, list[RunRow]] = {}
    for row in rows:
        arms.setdefault(row.planned.arm, []).append(row)
    first = next(iter(arms.values()))
    for members in arms.values():
        done = [row for row in members if row.data.is_done]
        seeds = str(len(done)) if len(done) == len(members) else f"{len(done)} of {len(members)}"
        cells = [what(members[0].planned, varying), seeds]
        for kind in ("ten", "center"):
            for name in ("top1_error", "top5_error"):
                cells.append(_spread([row.data.result["test"][kind][name] for row in done]))
        mine, base = (
            [row.data.result["test"]["ten"]["top1_error"] for row in arm if row.data.is_done]
            for arm in (members, first)
        )
        if fingerprint(members[0].planned.config.data) != fingerprint(first[0].planned.config.data):
            cells.append("other data")
        else:
            cells.append(f"{100 * (mean(mine) - mean(base)):+.1f}" if mine and base and members is not first else "")
        table.add_row(*cells)
    return table


def _spread(errors: Sequence[float]) -> str:
    if not errors:
        return "-"
    return _percent(mean(errors)) + (f" ±{100 * stdev(errors):.1f}" if len(errors) > 1 else " (1 seed)")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _notes(plan: Plan, rows: list[RunRow], many_seeds: bool) -> list[str]:
    notes = []
    counts = sorted({row.data.result["test"]["images"] for row in rows if row.data.is_done})
    if images := " or ".join(f"{count:,}" for count in counts):
        notes.append(f"±: 95 % interval from the {images} test images alone, for these very weights.")
    starts = [seconds for row in rows if (seconds := row.data.result.get("seconds_start")) is not None]
    if starts:
        notes.append(f"From a run's process to its first step: {mean(starts):.1f} s.")
    if not many_seeds and len(plan.runs) > 1:
        notes.append("1 seed: no conclusion about the ablation. Seeds differ too: add seed=0,1,2,3,4 to see how much.")
    sides = {
        tuple(map_sides(run.config))
        for run in plan.runs
        if len(map_sides(run.config)) == len(map_sides(plan.runs[0].config))
    }
    if len(sides) > 1:
        shown = " and ".join(str(list(side)) for side in sorted(sides))
        notes.append(f"The arms' feature maps differ in size ({shown}), so more than the named keys differ.")
    for row in rows:
        if row.data.status.get("state") == FAILED:
            log = row.data.record.file("train.log")
            notes.append(f"{row.planned.run_id} {row.data.state}: {row.data.status.get('message', '')} ({log})")
    failed = [row.data.status for row in rows if row.data.status.get("state") == FAILED]
    failures = dict.fromkeys(status.get("failure", ERROR) for status in failed)
    return [*notes, *(f"{failure}: {HINTS.get(failure, HINTS[ERROR])}" for failure in failures)]


def write_sweep(plan: Plan, rows: list[RunRow], folder: Path) -> Path:
    """Write `runs/sweeps/<id>.json`: the sweep's runs and what they came to."""
    document = {
        "sweep_id": plan.sweep_id,
        "choices": {name: plan.choices[name] for name in ("protocol", "recipe", "model", "data")},
        "runs": [
            {
                "run_id": row.planned.run_id,
                "arm": row.planned.arm,
                "seed": row.planned.config.seed,
                "varied": row.planned.varied,
                "overrides": list(row.planned.overrides),
                "state": row.data.status.get("state"),
                "result": row.data.result or None,
            }
            for row in rows
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plan.sweep_id}.json"
    write_atomic(path, json.dumps(document, indent=1) + "\n")
    return path
