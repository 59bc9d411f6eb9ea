"""`alexlab runs compare`: how two runs or two sweeps differ, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from alexlab.cli.columns import Column, factor_columns, print_columns
from alexlab.cli.runs.facts import run_facts
from alexlab.cli.runs.request import Request, read_run
from alexlab.cli.tables import effect_shown, spread
from alexlab.config import shown
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.files import json_files
from alexlab.runs.record import find_records
from alexlab.study.intervals import paired_difference
from alexlab.study.records import RunData
from alexlab.study.surroundings import between_two
from alexlab.study.sweeps import LAST, Sweep, read_sweep
from alexlab.tree import NUMBER, flatten

if TYPE_CHECKING:
    from alexlab.study.sweep_statistics import SweepComparison

_TESTED = [f"test.{view}.{metric}" for view in ("ten", "center") for metric in ("top1_error", "top5_error")]


@dataclass(frozen=True)
class Compared:
    """A result of two runs; errors are fractions."""

    name: str  # dotted, as in result.json
    values: tuple[float | None, float | None]
    difference: float | None  # the second less the first
    images_half: float | None  # half of the difference's 95 % interval over the test images alone

    @property
    def is_error(self) -> bool:
        return self.name.endswith("_error")


def compare(request: Request, console: Console) -> None:
    """Print how two runs differ, or the arms of two sweeps if both ids name one."""
    if sweeps := _sweeps(request):
        _compare_sweeps(sweeps, request, console)
        return
    one, other = (read_run(request, given) for given in request.ids)
    keys = [name for name in dict.fromkeys([*one.keys, *other.keys]) if not name.startswith("paths.")]
    differing = {
        name: (one.keys.get(name), other.keys.get(name)) for name in keys if one.keys.get(name) != other.keys.get(name)
    }
    results = _results(one, other)
    if request.answer.is_wanted:
        content = {"runs": [run_facts(one), run_facts(other)], "differing": _changes(differing)}
        content["surroundings"] = [{"what": what, "values": values} for what, *values in between_two(one, other)]
        request.answer.give("runs-compare/1", {**content, "results": [asdict(result) for result in results]})
        return
    _print_runs(one, other, differing, results, console)


def _results(one: RunData, other: RunData) -> list[Compared]:
    """All errors and some other numbers of both runs."""
    found = []
    results = [flatten(run.result) for run in (one, other)]
    for name in dict.fromkeys([*results[0], *results[1]]):
        first, second = (result.get(name) for result in results)
        is_shown = name.endswith("_error") or name in ("train.center.loss", "epochs", "steps", "parameters", "seconds")
        if not is_shown or not all(value is None or NUMBER.holds(value) for value in (first, second)):
            continue
        if first is None or second is None:
            found.append(Compared(name, (first, second), None, None))
            continue
        paired = _paired(name, one, other)
        difference, half = (second - first, None) if paired is None else paired
        found.append(Compared(name, (first, second), difference, half))
    return found


def _paired(name: str, one: RunData, other: RunData) -> tuple[float, float] | None:
    """Difference and half width, image by image; None unless these are errors on the same test images."""
    same_images = one.result.get("data", {}).get("store") == other.result.get("data", {}).get("store")
    if name not in _TESTED or not same_images:
        return None
    _, view, metric = name.split(".")
    (first, classes), (second, others) = (run.wrong(metric, view) for run in (one, other))
    return paired_difference(second, first) if classes == others else None


def _changes(differing: Mapping[str, tuple[Any, Any]]) -> list[dict[str, Any]]:
    return [{"key": name, "values": list(values)} for name, values in differing.items()]


def _print_runs(
    one: RunData,
    other: RunData,
    differing: Mapping[str, tuple[Any, Any]],
    results: Sequence[Compared],
    console: Console,
) -> None:
    ids = (one.run_id, other.run_id)
    columns = [Column("key", wraps=True), *(Column(run_id, right=True, wraps=True) for run_id in ids)]
    for name, values in differing.items():
        for column, cell in zip(columns, (name, *map(shown, values)), strict=True):
            column.cells.append(cell)
    if differing:
        print_columns("Differences in configuration", columns, console)
    else:
        console.print("The configurations are the same.")
    console.print()
    if surroundings := between_two(one, other):
        columns = [Column("", wraps=True), *(Column(run_id, right=True, wraps=True) for run_id in ids)]
        for cells in surroundings:
            for column, cell in zip(columns, cells, strict=True):
                column.cells.append(cell)
        print_columns("Differences in code, packages and machine", columns, console)
        console.print()
    columns = [Column("", wraps=True), *(Column(run_id, right=True, wraps=True) for run_id in ids)]
    columns.append(Column("difference", right=True, rank=1))  # it follows from the two
    rows = [("state", one.state, other.state, "")]
    for result in results:
        first, second = (
            "" if value is None else f"{100 * value:.2f} %" if result.is_error else f"{value:,.6g}"
            for value in result.values
        )
        rows.append((result.name, first, second, _difference(result)))
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            column.cells.append(cell)
    print_columns("Results", columns, console)
    console.say("±: 95 % interval over the test images alone; it does not cover seeds.", "dim")


def _difference(result: Compared) -> str:
    if result.difference is None:
        return ""
    if not result.is_error:
        return f"{result.difference:+,.6g}"
    half = "" if result.images_half is None else f" ± {100 * result.images_half:.2f}"
    return f"{100 * result.difference:+.2f}{half}"


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


def _compare_sweeps(sweeps: list[Sweep], request: Request, console: Console) -> None:
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
    if request.answer.is_wanted:
        request.answer.give("runs-compare-sweeps/1", _document(sweeps, found))
        return
    _print_sweeps(sweeps, found, console)


def _document(sweeps: list[Sweep], found: SweepComparison) -> dict[str, Any]:
    from alexlab.study.sweep_statistics import effect_facts

    arms = []
    for cell in found.cells:
        facts = effect_facts(cell.effect)
        if cell.images is not None:
            facts["difference"], facts["images_half"] = cell.images
        arms.append({"values": cell.values, "top1_errors": cell.errors, "shares_runs": cell.shares_runs, **facts})
    return {
        "factors": sweeps[0].factors,
        "sweeps": [
            {"sweep_id": sweep.sweep_id, "alone": alone} for sweep, alone in zip(sweeps, found.alone, strict=True)
        ],
        "arms": arms,
        "differing": _changes(found.differing),
        "problems": found.problems,
    }


def _print_sweeps(sweeps: list[Sweep], found: SweepComparison, console: Console) -> None:
    factors = factor_columns(sweeps[0].factors or ["run"])
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
