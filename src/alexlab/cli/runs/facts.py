"""What tables and JSON documents say of one run."""

from __future__ import annotations

from typing import Any

from alexlab.errors import UserError
from alexlab.runs.names import RunName, run_name
from alexlab.study.records import RunData

_LONGEST_LABEL = 2000  # characters: a record may come from anyone
_LABELS = ("recipe", "protocol", "model", "ablation", "arm")


def name_of(run: RunData) -> RunName:
    """The run's name; its configuration is read only where its label spells changes."""
    label = run.status.get("labels", {}).get("ablation", "")[:_LONGEST_LABEL]
    if "=" not in label:
        return run_name(label)
    try:
        return run_name(label, run.keys)
    except (UserError, OSError):
        return run_name(label)


def run_facts(run: RunData) -> dict[str, Any]:
    """A run by the names that its status.json, result.json and `load_runs` use: errors as fractions, times in seconds.

    `name`, `ablations`, `changes` and `settings` are those of `RunName`. None is what a run lacks, as one that is not
    done lacks errors.
    """
    name, status, result = name_of(run), run.status, run.result
    tested = result.get("test", {})
    errors = {
        view: {metric: tested.get(view, {}).get(metric) for metric in ("top1_error", "top5_error")}
        for view in ("ten", "center")
    }
    return {
        "run_id": run.run_id,
        **{key: status.get(key) for key in ("state", "failure", "message", "hint", "attempt", "started", "ended")},
        **{label: run.labels.get(label) for label in _LABELS},
        "name": name.arm,
        "ablations": list(name.ablations),
        "changes": name.changes,
        "settings": name.settings,
        "seed": run.seed,
        "test": {"images": tested.get("images"), **errors} if result else None,
        "epochs": result.get("epochs"),
        "seconds": result.get("seconds"),
    }
