"""A sweep of `runs/sweeps/` as data: its factors, its runs with their values, and a tidy table of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexlab.config import Config, did_you_mean
from alexlab.errors import UserError
from alexlab.files import json_files
from alexlab.runs.record import Record
from alexlab.study.plans import check_names, matching
from alexlab.study.records import RunData
from alexlab.tree import ANY, INTEGER, NULL, TEXT, flatten, read_json

if TYPE_CHECKING:
    import pandas as pd

LAST = "last"
_MAX_BYTES = 2**28
_ID = "[0-9a-f]{12}"
_RUN = {"run_id": matching("the id of a run", _ID), "seed": INTEGER | NULL, "values": {ANY: TEXT}}
_SCHEMA = {
    "sweep_id": matching("the id of a sweep", _ID),
    "factors": [TEXT],
    "runs": [{**_RUN, "arm": TEXT, "varied": TEXT, "data_seed": INTEGER | NULL}],
}


@dataclass(frozen=True)
class SweepArm:
    """An arm of a sweep, with its finished runs, which differ only in the seed."""

    values: dict[str, str]  # by factor, as a user writes them
    runs: Sequence[RunData]


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    values: dict[str, str]  # by factor, as a user writes them
    seed: int | None
    data_seed: int | None
    data: RunData


@dataclass(frozen=True)
class Sweep:
    """A sweep with the current content of its runs' records."""

    sweep_id: str
    factors: list[str]  # the keys and groups that vary, seeds aside
    runs: list[SweepRun]

    def arms(self) -> list[SweepArm]:
        """Its arms in order, each with its finished runs."""
        runs: dict[tuple[str, ...], list[SweepRun]] = {}
        for run in self.runs:
            runs.setdefault(tuple(run.values.values()), []).append(run)
        return [
            SweepArm(members[0].values, [run.data for run in members if run.data.is_done]) for members in runs.values()
        ]


def read_sweep(which: str | Path, runs: str | Path | None = None) -> Sweep:
    """Read a sweep: `last`, the start of an id, or the path of its file.

    `runs`: the folder of records, by default `paths.runs`.

    Raises:
        UserError: if there is no such sweep, several match, or its file cannot be read.
    """
    path = find_sweep(which, Path(Config().paths.runs if runs is None else runs))
    document = read_sweep_file(path)
    found = []
    for run in document["runs"]:
        record = Record(path.parent.parent, run["run_id"])
        data = RunData(record, record.seen())
        found.append(SweepRun(run["values"], run["seed"], run.get("data_seed"), data))
    return Sweep(document["sweep_id"], document["factors"], found)


def read_sweep_file(path: Path) -> dict[str, Any]:
    """Read `sweeps/<id>.json`, which may be untrusted: no id in it leads out of a folder.

    Raises:
        UserError: if it is not such a file, or from an older version.
    """
    try:
        document = read_json(path, _SCHEMA, _MAX_BYTES)
        check_names(document, ("sweep_id", "runs"), "it")
        for run in document["runs"]:
            check_names(run, _RUN, "a run")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not the file of a sweep ({error})") from error
    if "factors" not in document:
        raise UserError(f"{path}: is from an older version; re-run the sweep's command, which trains nothing")
    return document


def find_sweep(which: str | Path, runs: Path) -> Path:
    """The file of a sweep; the arguments and errors are those of `read_sweep`."""
    given = Path(which).expanduser()
    if given.suffix == ".json":
        if given.is_file():
            return given
        raise UserError(f"sweep={which}: no such file")
    files = json_files(runs / "sweeps")
    if str(which) == LAST:
        if not files:
            raise UserError(f"sweep=last: there is no sweep in {runs}; paths.runs=FOLDER looks elsewhere")
        return max(files, key=lambda path: (path.stat().st_mtime_ns, path.name))
    fitting = [path for path in files if path.stem.startswith(str(which))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"sweep={which}: matches {', '.join(path.stem for path in fitting)}; write more digits")
    hint = did_you_mean(str(which), [path.stem for path in files]) or "; paths.runs=FOLDER looks elsewhere"
    raise UserError(f"sweep={which}: there is no such sweep in {runs}{hint}")


def load_sweep(which: str | Path = LAST, runs: str | Path | None = None) -> pd.DataFrame:
    """A sweep as a tidy table, one row a run.

    Columns: run_id, state, failure; each factor under its own name; seed, and data.seed if it differs; errors as
    `test.ten.top1_error` and so on (fractions), epochs, seconds. Runs that are not done have no errors (NaN). A
    factor's column has numbers or booleans if all of its values are such, else text, so that lists and null can be
    grouped by.

    The arguments and errors are those of `read_sweep`.
    """
    import pandas as pd  # takes half a second

    sweep = read_sweep(which, runs)
    columns = {factor: _column([run.values.get(factor, "") for run in sweep.runs]) for factor in sweep.factors}
    has_data_seeds = any(run.data_seed not in (None, run.seed) for run in sweep.runs)
    rows = []
    for place, run in enumerate(sweep.runs):
        status = run.data.status
        row: dict[str, Any] = {
            "run_id": run.data.run_id,
            "state": status.get("state"),
            "failure": status.get("failure"),
        }
        row.update({factor: column[place] for factor, column in columns.items()})
        row["seed"] = run.seed
        if has_data_seeds:
            row["data.seed"] = run.data_seed
        result = flatten({name: value for name, value in run.data.result.items() if name in ("test", "train")})
        row.update(result)
        row.update({name: run.data.result.get(name) for name in ("epochs", "seconds")})
        rows.append(row)
    return pd.DataFrame(rows)


def _column(values: list[str]) -> list[Any]:
    """A factor's values as booleans or numbers, if all of them are."""
    truths = {"true": True, "false": False}
    if all(value in truths for value in values):
        return [truths[value] for value in values]
    for kind in (int, float):
        with suppress(ValueError):
            numbers = [kind(value) for value in values]
            if all(INTEGER.holds(number) or isinstance(number, float) for number in numbers):
                return numbers
    return values
