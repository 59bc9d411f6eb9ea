"""`alexlab runs show`: everything that is known about one run."""

from __future__ import annotations

import time
from pathlib import Path

from alexlab.cli.runs.facts import name_of, run_facts
from alexlab.cli.runs.request import Request, read_run, seed_text
from alexlab.cli.tables import from_here
from alexlab.console import Console, duration, wrap
from alexlab.data.store import gigabytes
from alexlab.tree import flatten


def show_run(request: Request, console: Console) -> None:
    """Print the status, labels and results of one run, and the size of its record."""
    one = read_run(request, request.ids[0])
    path = Path(request.source.named(str(one.record.path)))
    if request.answer.is_wanted:
        place = {"path": str(from_here(path)), "bytes": one.record.size}
        request.answer.give("runs-show/1", {"run": run_facts(one), "result": one.result or None, **place})
        return
    name = name_of(one)
    lines = {"run id": one.run_id, "state": one.state}
    lines.update({key: str(one.status[key]) for key in ("message", "hint") if key in one.status})
    lines.update(one.labels)
    lines.update({"ablation": name.arm, "settings": name.noted} if name.settings else {"ablation": name.arm})
    lines["seed"] = seed_text(one)
    lines["attempt"] = str(one.status.get("attempt", ""))
    for key in ("started", "ended"):
        if key in one.status:
            lines[key] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.status[key]))
    for key, value in flatten(one.result).items():
        if not key.startswith(("labels.", "run_id", "status", "seed", "attempt", "version")):
            lines[key] = f"{value:.6g}" if isinstance(value, float) else str(value)
    if one.result.get("seconds", 0) >= 60:
        lines["seconds"] += f" ({duration(one.result['seconds'])})"
    width = max(map(len, lines))
    for key, value in lines.items():
        first, *rest = wrap(value, max(console.width - width - 2, 1))
        console.print("\n".join([f"{key:{width}}  {first}".rstrip(), *(" " * (width + 2) + line for line in rest)]))
    console.print(f"{path}/  {gigabytes(one.record.size)}", style="dim", soft_wrap=True)
