"""Records as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from alexlab.runs.record import Record
from alexlab.tree import flatten


def load_runs(path: str | Path) -> pd.DataFrame:
    """All runs below a folder of records, one row each.

    Columns: run_id, state, failure, protocol, recipe, ablation, arm, seed; errors as `test.ten.top1_error` and so on
    (fractions); epochs, seconds; every key of the configuration as `config.<key>`. Runs that are not done have no
    errors (NaN). An empty folder gives an empty table.

    Raises:
        FileNotFoundError: where there is no such folder.
        ConfigError: where a record is of another version of the code, or damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of records")
    rows = [_row(status) for status in sorted(path.glob("*/status.json"))]
    return pd.DataFrame(rows)


def _row(status_file: Path) -> dict[str, Any]:
    folder = status_file.parent
    record = Record(folder.parent, folder.name)
    status = record.status()
    row: dict[str, Any] = {"run_id": record.run_id, "state": status["state"], "failure": status.get("failure")}
    row.update(status.get("labels", {}))
    if keys := record.keys():
        row["seed"] = keys["seed"]
        row.update({f"config.{name}": value for name, value in keys.items()})
    if status["state"] == "DONE":
        result = flatten(record.result())
        row.update(
            {
                name: value
                for name, value in result.items()
                if name not in row and not name.startswith(("labels.", "status"))
            }
        )
    return row
