"""Records of a plan's runs, made up, and what a command's table prints of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping

import numpy as np

from alexlab.compose import to_yaml
from alexlab.console import Console
from alexlab.runs.record import DONE, FAILED, RECORD_VERSION
from alexlab.sweep.plan import Plan

IMAGES = 2000


def fill(
    plan: Plan,
    errors: Mapping[int, float],
    failed: int | None = None,
    seconds: float = 51.3,
    stopped: int | None = None,
) -> None:
    """Write made-up records for a plan's runs; `failed` diverged, and from `stopped` on none is done."""
    for number, run in enumerate(plan.runs):
        record = run.record
        record.path.mkdir(parents=True)
        record.file("config.yaml").write_text(to_yaml(run.config))
        kept = {"run_id": run.run_id, "version": RECORD_VERSION, "attempt": 1, "labels": run.labels, "started": 1.7e9}
        record.file("status.json").write_text(json.dumps({**kept, "state": DONE}))
        if number == failed:
            record.set_status(FAILED, failure="diverged", message="the training loss of epoch 3 is nan")
            continue
        wrong = np.arange(IMAGES) < round(IMAGES * errors[number])
        top5 = np.zeros((IMAGES, 5), int)
        top5[wrong, 0] = 1
        arrays = {f"{view}_top5": top5 for view in ("ten", "center")}
        np.savez(record.file("predictions.npz"), labels=np.zeros(IMAGES, int), **arrays)  # pyright: ignore[reportArgumentType]
        both = {"top1_error": float(wrong.mean()), "top5_error": 0.0}
        result = {"epochs": 20, "seconds": seconds, "test": {"images": IMAGES, "center": both, "ten": both}}
        result |= {"seed": run.config.seed, "data": {"store": "made"}}
        record.file("result.json").write_text(json.dumps(result))


def printed(show: Callable[[Console], object], width: int) -> str:
    """What is printed on a terminal of so many columns."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    show(console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
