"""Records as one table."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from alexlab.errors import UserError
from alexlab.runs import bundle
from alexlab.runs.names import run_name
from alexlab.runs.record import find_records
from alexlab.study.records import RunData, why_left_out
from alexlab.tree import flatten


def load_runs(path: str | Path) -> pd.DataFrame:
    """All runs of a folder of records, or of a bundle of them, one row each.

    Columns: run_id, state, failure, protocol, recipe, ablation, arm, seed; `name`, which is `ablation` without keys
    that only set the scale (`data.train_images=300`), which are in the column `settings`; errors as
    `test.ten.top1_error` and so
    on (fractions); epochs, seconds; every key of the configuration as `config.<key>`. Runs that are not done have no
    errors (NaN). An empty folder gives an empty table. A record that is corrupt, from another version of the code or a
    copy of another record is left out with a UserWarning that names it.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        UserError: if a file is not a bundle.
    """
    source = bundle.source(Path(path))
    if not source.folder.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of records")
    rows = []
    for record in find_records(source.folder):
        try:
            rows.append(_row(RunData(record, record.status())))
        except (UserError, OSError) as error:
            warnings.warn(source.named(why_left_out(record, error)), stacklevel=2)
    return pd.DataFrame(rows)


def _row(run: RunData) -> dict[str, Any]:
    row: dict[str, Any] = {"run_id": run.run_id, "state": run.status["state"], "failure": run.status.get("failure")}
    row.update(run.status.get("labels", {}))
    if "ablation" in row:
        name = run_name(row["ablation"], run.keys)
        row.update(name=name.arm, settings=name.noted)
    if run.keys:
        row["seed"] = run.keys.get("seed")
        row.update({f"config.{name}": value for name, value in run.keys.items()})
    result = flatten(run.result)
    row.update(
        {
            name: value
            for name, value in result.items()
            if name not in row and not name.startswith(("labels.", "status"))
        }
    )
    return row
