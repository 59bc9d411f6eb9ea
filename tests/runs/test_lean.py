"""The processes that train load no more packages than they need."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from alexlab.lean import UNUSED
from alexlab.runs.process import start_server


def _note(path: str) -> None:
    """What a process that trains has loaded as it begins, in a file."""
    Path(path).write_text(" ".join(sys.modules))


def test_no_packages_of_other_metrics(tmp_path: Path):
    start_server("alexlab.runs.worker")
    process = multiprocessing.get_context("forkserver").Process(target=_note, args=(str(tmp_path / "loaded"),))
    process.start()
    process.join()
    loaded = (tmp_path / "loaded").read_text().split()
    assert {"alexlab.runs.worker", "torchmetrics", "lightning", "torch._dynamo"} <= set(loaded)
    assert not set(UNUSED) & set(loaded)
