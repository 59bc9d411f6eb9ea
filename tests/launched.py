"""What the tests of launchers share: a command in a session of its own, watched while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexlab.config import PROJECT_DIR

TRAIN = [sys.executable, str(PROJECT_DIR / "src" / "train.py")]


def start(line: list[str], more: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`more`: for its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "ALEXLAB", "SLURM"))}
    return subprocess.Popen(
        [*TRAIN, *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**kept, "COLUMNS": "100", **(more or {})},
    )


def finish(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str]:
    """Its exit status and output; it is killed where it takes longer."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def run(line: list[str], more: dict[str, str] | None = None, seconds: float = 120) -> tuple[int, str]:
    return finish(start(line, more), seconds)


def until(is_so: Callable[[], Any], seconds: float = 60) -> Any:
    """What a question answers once that is not nothing."""
    deadline = time.monotonic() + seconds
    while not (answer := is_so()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def under_way(runs: Path, number: int) -> list[Path]:
    """The records of runs that have trained an epoch and go on; empty until there are so many."""
    found = [path.parent for path in sorted(runs.glob("*/metrics.csv")) if list(path.parent.glob("claim.*"))]
    return found if len(found) >= number else []


def statuses(runs: Path) -> list[tuple[str, int]]:
    read = [json.loads(path.read_text()) for path in sorted(runs.glob("*/status.json"))]
    return [(status["state"], status["attempt"]) for status in read]


def owner(record: Path) -> int:
    """The process that works on a run: that of its launcher."""
    [claim] = record.glob("claim.*")
    return json.loads(claim.read_text())["pid"]


def living(pids: list[int]) -> list[str]:
    """Those of these processes that are there; what has ended, and only its parent has not looked, is not."""
    listing = subprocess.run(["ps", "-wweo", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listing.splitlines()]
    return [" ".join(row) for row in rows if int(row[0]) in pids and not row[1].startswith("Z")]
