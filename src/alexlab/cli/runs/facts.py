"""The facts about one run in tables and JSON documents."""

from __future__ import annotations

from typing import Any

from alexlab.errors import UserError
from alexlab.runs.names import RunName, run_name
from alexlab.study.records import RunData

_LONGEST_LABEL = 2000  # characters: a record may be untrusted
_LABELS = ("recipe", "protocol", "model", "ablation", "arm")


def name_of(run: RunData) -> RunName:
    """The run's name; its configuration is read only if its label spells out changes."""
    label = run.status.get("labels", {}).get("ablation", "")[:_LONGEST_LABEL]
    if "=" not in label:
        return run_name(label)
    try:
        return run_name(label, run.keys)
    except (UserError, OSError):
        return run_name(label)


def run_facts(run: RunData) -> dict[str, Any]:
    """A run's facts, named as in status.json, result.json and `load_runs`: errors as fractions, times in seconds.

    `name`, `ablations`, `changes` and `settings` are those of `RunName`. Missing facts are None, such as the errors of
    a run that is not done.
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
