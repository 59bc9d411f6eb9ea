"""The table that ends a command: what each run came to, and how far one seed can be trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from alexlab.architecture import map_sides
from alexlab.config import ConfigError
from alexlab.data.locate import fingerprint
from alexlab.files import write_whole
from alexlab.runs.failure import HINTS
from alexlab.runs.record import DONE, FAILED
from alexlab.study.intervals import paired_difference, wilson
from alexlab.sweep.plan import Plan, PlannedRun


@dataclass(frozen=True)
class RunRow:
    """One run with what it came to; `result` is empty where it is not done."""

    run: PlannedRun
    status: dict[str, Any]
    result: dict[str, Any]

    @property
    def done(self) -> bool:
        return self.status.get("state") == DONE


def read_rows(plan: Plan) -> list[RunRow]:
    rows = [RunRow(run, run.record.seen(), run.record.result()) for run in plan.runs]
    for row in rows:
        if row.done and not row.result:
            folder = row.run.record.path
            raise ConfigError(f"{folder}: is DONE and has no result.json; remove it to have the run done again")
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
    base = next((row for row in rows if row.done), None) if rows and rows[0].done else None
    for row in rows:
        cells = [what(row.run, varying)]
        if many_seeds:
            cells.append(seeds_shown(row.run.config.seed, row.run.config.data.seed))
        if row.done:
            test = row.result["test"]
            low, high = wilson(test["ten"]["top1_error"], test["images"])
            cells += [
                f"{_percent(test['ten']['top1_error'])}±{50 * (high - low):.1f}",
                _percent(test["ten"]["top5_error"]),
                _percent(test["center"]["top1_error"]),
                _percent(test["center"]["top5_error"]),
                _against(row, base, many_seeds),
                str(row.result["epochs"]),
                f"{row.result['seconds']:.0f}",
            ]
        else:
            cells += [_state(row), *[""] * 6]
        table.add_row(*cells, row.run.run_id)
    return table


def heading(varying: list[str]) -> str:
    return varying[0] if len(varying) == 1 else "what varied"


def what(run: PlannedRun, varying: list[str]) -> str:
    """What varied of a run, under that heading: the value alone where it is of one key."""
    return run.varied.removeprefix(f"{varying[0]}=") if len(varying) == 1 else one_a_line(run.varied)


def one_a_line(varied: str) -> str:
    """Changes such as `a=1 b=[c, d]`, each on a line of its own."""
    return re.sub(r" (?=[a-z_.0-9]+=)", "\n", varied)


def seeds_shown(seed: int, data_seed: int | None) -> str:
    """A run's seed, and behind a stroke the data's where it is another."""
    return str(seed) if seed == data_seed else f"{seed}/{data_seed}"


def _against(row: RunRow, base: RunRow | None, many_seeds: bool) -> str:
    if base is None or many_seeds or row is base:
        return ""
    if fingerprint(row.run.config.data) != fingerprint(base.run.config.data):
        return "other data"
    difference, half = paired_difference(_wrong(row), _wrong(base))
    return f"{100 * difference:+.1f}±{100 * half:.1f}"


def _wrong(row: RunRow) -> np.ndarray:
    with np.load(row.run.record.file("predictions.npz")) as arrays:
        return arrays["ten_top5"][:, 0] != arrays["labels"]


def _state(row: RunRow) -> str:
    state = row.status.get("state", "not run")
    return f"{state}: {row.status['failure']}" if "failure" in row.status else state


def _arms_table(rows: list[RunRow], varying: list[str]) -> Table:
    """Mean and standard deviation over an arm's seeds; failed runs are counted, not averaged."""
    table = new_table("Arms: mean ± standard deviation over seeds, %")
    table.add_column(heading(varying), ratio=1, overflow="fold")
    for name in ("\nseeds", "ten views\ntop-1", "\ntop-5", "centre\ntop-1", "\ntop-5", "ten top-1\n- first"):
        table.add_column(name, justify="right", no_wrap=True)
    arms: dict[str, list[RunRow]] = {}
    for row in rows:
        arms.setdefault(row.run.arm, []).append(row)
    first = next(iter(arms.values()))
    for members in arms.values():
        done = [row for row in members if row.done]
        seeds = str(len(done)) if len(done) == len(members) else f"{len(done)} of {len(members)}"
        cells = [what(members[0].run, varying), seeds]
        for kind in ("ten", "center"):
            for name in ("top1_error", "top5_error"):
                cells.append(_spread([row.result["test"][kind][name] for row in done]))
        mine, base = ([row.result["test"]["ten"]["top1_error"] for row in arm if row.done] for arm in (members, first))
        if fingerprint(members[0].run.config.data) != fingerprint(first[0].run.config.data):
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
    images = " or ".join(f"{count:,}" for count in sorted({row.result["test"]["images"] for row in rows if row.done}))
    if images:
        notes.append(f"±: 95 % interval from the {images} test images alone, for these very weights.")
    starts = [seconds for row in rows if (seconds := row.result.get("seconds_start")) is not None]
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
        if row.status.get("state") == FAILED:
            log = row.run.record.file("train.log")
            notes.append(f"{row.run.run_id} {_state(row)}: {row.status['message']} ({log})")
    failures = dict.fromkeys(row.status["failure"] for row in rows if row.status.get("state") == FAILED)
    return [*notes, *(f"{failure}: {HINTS[failure]}" for failure in failures)]


def write_sweep(plan: Plan, rows: list[RunRow], folder: Path) -> Path:
    """Write `runs/sweeps/<id>.json`: the sweep's runs and what they came to."""
    document = {
        "sweep_id": plan.sweep_id,
        "choices": {name: plan.choices[name] for name in ("protocol", "recipe", "model", "data")},
        "runs": [
            {
                "run_id": row.run.run_id,
                "arm": row.run.arm,
                "seed": row.run.config.seed,
                "varied": row.run.varied,
                "overrides": list(row.run.overrides),
                "state": row.status.get("state"),
                "result": row.result or None,
            }
            for row in rows
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plan.sweep_id}.json"
    write_whole(path, json.dumps(document, indent=1) + "\n")
    return path
