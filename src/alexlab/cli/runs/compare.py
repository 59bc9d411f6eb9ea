"""`alexlab runs compare`: in what two runs or two sweeps differ, and by how much."""

from __future__ import annotations

from typing import Any

from alexlab.cli.columns import Column, factor_columns, print_columns
from alexlab.cli.runs.request import Request, read_run
from alexlab.cli.tables import effect_shown, spread
from alexlab.config import shown
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.files import json_files
from alexlab.runs.record import find_records
from alexlab.study.intervals import paired_difference
from alexlab.study.records import RunData
from alexlab.study.sweeps import LAST, Sweep, read_sweep
from alexlab.tree import NUMBER, flatten

_TESTED = [f"test.{view}.{metric}" for view in ("ten", "center") for metric in ("top1_error", "top5_error")]


def compare(request: Request, console: Console) -> None:
    if sweeps := _sweeps(request):
        _compare_sweeps(sweeps, console)
        return
    one, other = (read_run(request, given) for given in request.ids)
    ids = (one.run_id, other.run_id)
    keys = [name for name in dict.fromkeys([*one.keys, *other.keys]) if not name.startswith("paths.")]
    differing = [name for name in keys if one.keys.get(name) != other.keys.get(name)]
    columns = [Column("key", wraps=True), *(Column(run_id, right=True, wraps=True) for run_id in ids)]
    for name in differing:
        for column, cell in zip(columns, (name, *(shown(run.keys.get(name)) for run in (one, other))), strict=True):
            column.cells.append(cell)
    if differing:
        print_columns("Configuration: what differs", columns, console)
    else:
        console.print("The configurations are the same.")
    console.print()
    columns = [Column("", wraps=True), *(Column(run_id, right=True, wraps=True) for run_id in ids)]
    columns.append(Column("difference", right=True))
    rows = [("state", one.state, other.state, "")]
    results = [flatten(run.result) for run in (one, other)]
    for name in dict.fromkeys([*results[0], *results[1]]):
        values = [result.get(name) for result in results]
        is_error = name.endswith("_error")
        is_shown = is_error or name in ("train.center.loss", "epochs", "steps", "parameters", "seconds")
        if not is_shown or not all(value is None or NUMBER.holds(value) for value in values):
            continue
        first, second = (
            "" if value is None else f"{100 * value:.2f} %" if is_error else f"{value:,.6g}" for value in values
        )
        rows.append((name, first, second, _difference(name, values, one, other)))
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            column.cells.append(cell)
    print_columns("Results", columns, console)
    console.say("±: 95 % interval over the test images alone; it does not cover seeds.", "dim")


def _sweeps(request: Request) -> list[Sweep]:
    """The sweeps that both ids name; empty if they name runs."""
    known = [path.stem for path in json_files(request.runs / "sweeps")]
    is_sweep = [
        given == LAST or given.endswith(".json") or any(name.startswith(given) for name in known)
        for given in request.ids
    ]
    runs = [record.run_id for record in find_records(request.runs)]
    if not all(is_sweep) or any(name.startswith(given) for given in request.ids for name in runs):
        return []
    return [read_sweep(given, request.runs) for given in request.ids]


def _compare_sweeps(sweeps: list[Sweep], console: Console) -> None:
    from alexlab.study.sweep_statistics import compare  # SciPy takes a second to import

    one, other = sweeps
    if set(one.factors) != set(other.factors):
        factors = ["; ".join([", ".join(sweep.factors) or "seeds alone"]) for sweep in sweeps]
        raise UserError(
            f"compare: {one.sweep_id} varies {factors[0]}, {other.sweep_id} {factors[1]}; compare sweeps of the same "
            "factors, or runs by their ids"
        )
    found = compare(one.arms(), other.arms())
    if not found.cells:
        raise UserError(f"compare: {one.sweep_id} and {other.sweep_id} have no arm in common")
    factors = factor_columns(one.factors or ["run"])
    columns = [Column(f"top-1\n{sweep.sweep_id}", right=True) for sweep in sweeps]
    seeds, difference = Column("seeds", right=True, rank=1), Column("difference", right=True)
    for cell in found.cells:
        for column in factors:
            column.cells.append(cell.values.get(column.heading, "all"))
        for column, values in zip(columns, cell.errors, strict=True):
            column.cells.append(spread(values))
        seeds.cells.append(" / ".join(str(len(values)) for values in cell.errors))
        if cell.shares_runs:
            difference.cells.append("same runs")
        elif cell.effect is not None:
            difference.cells.append(effect_shown(cell.effect))
        elif cell.images is not None:
            difference.cells.append("{:+.1f} ±{:.1f} *".format(*(100 * value for value in cell.images)))
        else:
            difference.cells.append("")
    columns = [*factors, *columns, seeds, difference]
    print_columns("Ten views, top-1 error, %: each arm of both sweeps", columns, console)
    number = sum(cell.effect is not None for cell in found.cells)
    if number:
        whose = "the difference" if number == 1 else f"all {number} differences at once"
        console.say(f"±: 95 % interval of {whose}, for new seeds and new test images.", "dim")
    if any(cell.images is not None for cell in found.cells):
        console.say("*: one seed; the interval is over the test images alone and does not cover seeds.", "dim")
    if found.differing:
        changes = (f"{name} {shown(before)} → {shown(after)}" for name, (before, after) in found.differing.items())
        console.say(f"All arms differ in: {', '.join(changes)}.", "dim")
    for sweep, alone in zip(sweeps, found.alone, strict=True):
        if alone:
            console.say(f"Only in {sweep.sweep_id}: {'; '.join(alone)}.", "dim")
    for problem in found.problems:
        console.say(problem, "dim")


def _difference(name: str, values: list[Any], one: RunData, other: RunData) -> str:
    if None in values:
        return ""
    change = values[1] - values[0]
    if not name.endswith("_error"):
        return f"{change:+,.6g}"
    same_images = one.result.get("data", {}).get("store") == other.result.get("data", {}).get("store")
    if name not in _TESTED or not same_images:
        return f"{100 * change:+.2f}"
    _, view, metric = name.split(".")
    (first, classes), (second, others) = (run.wrong(metric, view) for run in (one, other))
    if classes != others:
        return f"{100 * change:+.2f}"
    difference, half = paired_difference(second, first)
    return f"{100 * difference:+.2f} ± {100 * half:.2f}"
