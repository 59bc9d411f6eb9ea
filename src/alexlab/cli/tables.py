"""The table that ends a command: the result of each run, and how far one seed can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from alexlab.architecture import map_sides
from alexlab.cli.columns import Column, factor_columns, print_columns
from alexlab.config import Keep
from alexlab.console import Console, duration, plural
from alexlab.data.locate import fingerprint
from alexlab.runs.failure import ERROR, HINTS
from alexlab.runs.record import FAILED
from alexlab.study.intervals import mean_and_sd, paired_difference, wilson
from alexlab.study.records import RunData
from alexlab.study.sweeps import SweepArm
from alexlab.sweep.plan import Plan, PlannedRun

if TYPE_CHECKING:
    from alexlab.study.statistics import Effect
    from alexlab.study.sweep_statistics import SweepStatistics


class RunRow(NamedTuple):
    """A run of a plan, and what its record says."""

    planned: PlannedRun
    data: RunData


def read_rows(plan: Plan) -> list[RunRow]:
    """Read the records of a plan's runs, and tidy up after finished runs that were killed in their last second.

    Raises:
        UserError: if a record is corrupt.
    """
    rows = [RunRow(run, RunData(run.record, run.record.seen())) for run in plan.runs]
    for run, data in rows:
        if data.result:  # which exists once it is done
            data.record.tidy(keeps_newest=run.config.checkpoint.keep is Keep.all)
    return rows


def print_table(plan: Plan, rows: list[RunRow], console: Console) -> None:
    """Print one row per run and, if an arm has several seeds, one row per arm with its interval."""
    many_seeds = len(plan.runs) > len({run.arm for run in plan.runs})
    console.print()
    print_settings(plan, console)
    _print_runs(plan, rows, many_seeds, console)
    statistics = None
    if many_seeds:
        statistics = _print_arms(plan, rows, console)
    for line in _notes(plan, rows, many_seeds, statistics):
        console.say(line, "dim")


def common_settings(plan: Plan) -> dict[str, str]:
    """Settings in which all runs differ from their recipe, by key, except what varies and an ablation's own keys."""
    names = [run.name for run in plan.runs]
    found = [{**name.changes, **name.settings} for name in names]
    common = {key: value for key, value in found[0].items() if all(one.get(key) == value for one in found)}
    return {key: value for key, value in common.items() if key not in plan.varying}


def print_settings(plan: Plan, console: Console) -> None:
    """Print the settings in which all runs differ from their recipe."""
    if settings := common_settings(plan):
        console.say(f"Settings: {' '.join(f'{key}={value}' for key, value in settings.items())}", "dim")


def factors_of(runs: Sequence[PlannedRun]) -> list[str]:
    """The headings of what varies; `run` if only the seed varies."""
    return list(dict.fromkeys(name for run in runs for name in run.values)) or ["run"]


def values_of(run: PlannedRun, factors: Sequence[str]) -> list[str]:
    """A run's values of these factors, or its name."""
    return [run.values.get(name, "") for name in factors] if run.values else [run.name.arm]


def seeds_shown(seed: int, data_seed: int | None) -> str:
    """A run's seed, followed by a slash and the data's seed if that differs."""
    return str(seed) if seed == data_seed else f"{seed}/{data_seed}"


def _print_runs(plan: Plan, rows: list[RunRow], many_seeds: bool, console: Console) -> None:
    names = factors_of(plan.runs)
    factors = factor_columns(names)
    seed, state = Column("seed", right=True), Column("state", wraps=True)
    # Of the columns with errors, the ten views' are the paper's measure.
    ten1, ten5 = Column("ten views\ntop-1", right=True), Column("\ntop-5", "ten views top-5", right=True, rank=3)
    center1, center5 = (
        Column("centre\ntop-1", right=True, rank=4),
        Column("\ntop-5", "centre top-5", right=True, rank=5),
    )
    against, epochs = Column("top-1\nvs first", right=True, rank=1), Column("epochs", right=True, rank=6)
    time, run_id = Column("time", right=True, rank=2), Column("run id")
    base = next((row for row in rows if row.data.is_done), None) if rows and rows[0].data.is_done else None
    for row in rows:
        for column, value in zip(factors, values_of(row.planned, names), strict=True):
            column.cells.append(value)
        seed.cells.append(seeds_shown(row.planned.config.seed, row.planned.config.data.seed))
        state.cells.append("" if row.data.is_done else row.data.state)
        run_id.cells.append(row.planned.run_id)
        if not row.data.is_done:
            for column in (ten1, ten5, center1, center5, against, epochs, time):
                column.cells.append("")
            continue
        test = row.data.result["test"]
        low, high = wilson(test["ten"]["top1_error"], test["images"])
        ten1.cells.append(f"{_percent(test['ten']['top1_error'])}±{50 * (high - low):.1f}")
        ten5.cells.append(_percent(test["ten"]["top5_error"]))
        center1.cells.append(_percent(test["center"]["top1_error"]))
        center5.cells.append(_percent(test["center"]["top5_error"]))
        against.cells.append(_against(row, base))
        epochs.cells.append(str(row.data.result["epochs"]))
        time.cells.append(duration(row.data.result["seconds"]))
    columns = [*factors, seed] if many_seeds else factors
    if any(state.cells):
        columns = [*columns, state]
    if any(row.data.is_done for row in rows):
        columns = [*columns, ten1, ten5, center1, center5]
        if not many_seeds and any(against.cells):
            columns.append(against)
        if len({*epochs.cells} - {""}) > 1:
            columns.append(epochs)
        columns.append(time)
    print_columns("Error on the test split, %", [*columns, run_id], console, hint="see the records")


def _against(row: RunRow, base: RunRow | None) -> str:
    if base is None or row is base:
        return ""
    if fingerprint(row.planned.config.data) != fingerprint(base.planned.config.data):
        return "other data"
    (mine, _), (others, _) = (one.data.wrong("top1_error", "ten") for one in (row, base))
    difference, half = paired_difference(mine, others)
    return f"{100 * difference:+.1f}±{100 * half:.1f}"


def _print_arms(plan: Plan, rows: list[RunRow], console: Console) -> SweepStatistics:
    """Mean and standard deviation over an arm's seeds; failed runs are counted, not averaged."""
    from alexlab.study.sweep_statistics import analyse  # SciPy takes a second to import

    arms: dict[str, list[RunRow]] = {}
    for row in rows:
        arms.setdefault(row.planned.arm, []).append(row)
    names = factors_of(plan.runs)
    made = [
        SweepArm(members[0].planned.values, [row.data for row in members if row.data.is_done])
        for members in arms.values()
    ]
    statistics = analyse(made)
    factors, seeds = factor_columns(names), Column("seeds", right=True)
    errors = {
        (view, metric): Column(f"{title}\n{top}", f"{named} {top}", right=True, rank=rank)
        for view, metric, title, named, top, rank in (
            ("ten", "top1_error", "ten views", "ten views", "top-1", 0),
            ("ten", "top5_error", "", "ten views", "top-5", 1),
            ("center", "top1_error", "centre", "centre", "top-1", 2),
            ("center", "top5_error", "", "centre", "top-5", 3),
        )
    }
    against = Column("top-1\nvs first", right=True)
    first = next(iter(arms.values()))
    for members, effect in zip(arms.values(), statistics.differences, strict=True):
        done = [row for row in members if row.data.is_done]
        for column, value in zip(factors, values_of(members[0].planned, names), strict=True):
            column.cells.append(value)
        seeds.cells.append(str(len(done)) if len(done) == len(members) else f"{len(done)} of {len(members)}")
        for (view, metric), column in errors.items():
            column.cells.append(spread([row.data.result["test"][view][metric] for row in done]))
        mine, base = (
            [row.data.result["test"]["ten"]["top1_error"] for row in arm if row.data.is_done]
            for arm in (members, first)
        )
        if members is first or not (mine and base):
            against.cells.append("")
        elif fingerprint(members[0].planned.config.data) != fingerprint(first[0].planned.config.data):
            against.cells.append("other data")
        elif effect is None:
            against.cells.append(f"{100 * (mean(mine) - mean(base)):+.1f}")
        else:
            against.cells.append(effect_shown(effect))
    columns = [*factors, seeds, *errors.values(), *([against] if len(arms) > 1 else [])]
    console.print()
    print_columns("Arms: mean ± standard deviation over seeds, %", columns, console, hint="see the records")
    if statistics.main_effects:
        factor, change = Column("factor", wraps=True), Column("from, to", wraps=True)
        effects = Column("top-1", right=True)
        for one in statistics.main_effects:
            factor.cells.append(one.factor)
            change.cells.append(f"{one.base} → {one.value}")
            effects.cells.append(effect_shown(one.effect))
        console.print()
        print_columns("Main effects: one factor, averaged over the others", [factor, change, effects], console)
    return statistics


def effect_shown(effect: Effect) -> str:
    """A difference of errors in points, with its interval."""
    return f"{100 * effect.difference:+.1f} ±{100 * effect.decisive:.1f}"


def spread(errors: Sequence[float]) -> str:
    """Mean and standard deviation of errors, in %."""
    centre, sd = mean_and_sd(errors)
    if centre is None:
        return "-"
    return _percent(centre) + (" (1 seed)" if sd is None else f" ±{100 * sd:.1f}")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _notes(plan: Plan, rows: list[RunRow], many_seeds: bool, statistics: SweepStatistics | None) -> list[str]:
    notes = []
    counts = sorted({row.data.result["test"]["images"] for row in rows if row.data.is_done})
    if images := " or ".join(f"{count:,}" for count in counts):
        of = "± of a run" if many_seeds else "±"
        notes.append(f"{of}: 95 % interval over the {images} test images alone; it does not cover seeds.")
    epochs = {row.data.result["epochs"] for row in rows if row.data.is_done}
    if len(epochs) == 1 and len(rows) > 1:
        notes[-1] += f" Each run: {plural(epochs.pop(), 'epoch')}."
    if not many_seeds and len(plan.runs) > 1:
        notes.append("1 seed: no conclusion about the ablation. Seeds differ too: add seed=0,1,2,3,4 to see how much.")
    if statistics is not None:
        notes += _sweep_notes(statistics)
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


def _sweep_notes(statistics: SweepStatistics) -> list[str]:
    """Notes on the intervals of a sweep with seeds, and on its sensitivity."""
    notes = []
    number = sum(one is not None for one in statistics.differences)
    if number:
        whose = "the difference" if number == 1 else f"all {number} differences at once"
        paired = any(one is not None and one.correlation is not None for one in statistics.differences)
        how = " Runs of one seed are compared with each other." if paired else ""
        notes.append(f"vs first ±: 95 % interval of {whose}, for new seeds and new test images.{how}")
    if statistics.sensitivity is not None:
        notes.append(str(statistics.sensitivity))
    return [*notes, *statistics.problems]


def from_here(path: Path) -> Path:
    """A path as the user would type it: relative to the current folder if it is below that."""
    with suppress(ValueError):
        return path.absolute().relative_to(Path.cwd())
    return path
