"""`make flaky` repeats a command beside busy loops, tells its failures, and leaves no loop."""

from __future__ import annotations

import os
import subprocess
import sys
from signal import SIGINT, SIGKILL

import pytest

from alexlab import threads
from alexlab.config import PROJECT_DIR
from support.commands import begin, descendants, living, told, until

# Without PYTHONSAFEPATH, which tests hand on: a benchmark imports its neighbour.
BUSY = ["env", "-u", "PYTHONSAFEPATH", sys.executable, str(PROJECT_DIR / "benchmarks" / "repeat.py")]


@pytest.mark.parametrize(("code", "failures"), [(0, 0), (3, 2)])
def test_failures_are_counted(code: int, failures: int):
    done = subprocess.run(
        [*BUSY, "2", sys.executable, "-c", f"raise SystemExit({code})"], capture_output=True, text=True
    )
    assert done.returncode == int(failures > 0)
    assert done.stdout.splitlines()[-1] == f"2 of 2 times, {failures} failures"


@pytest.mark.processes
def test_a_signal_while_the_command_starts_ends_it():
    process = begin([*BUSY, "1", "sh", "-c", "echo $$; kill -INT $PPID; exec sleep 600"])
    assert process.stdout is not None
    command = int(process.stdout.readline())
    until(lambda: process.poll() is not None)
    until(lambda: not living([command]))


@pytest.mark.parametrize("how", ["kill", "terminate", "interrupt"])
@pytest.mark.processes
def test_loops_end_with_what_started_them(how: str):
    process = begin([*BUSY, "1", "sh", "-c", "echo begun; exec sleep 600"])
    told(process, "begun")
    *loops, command = descendants(process.pid)
    assert len(loops) == threads.cores()
    {"kill": process.kill, "terminate": process.terminate, "interrupt": lambda: process.send_signal(SIGINT)}[how]()
    until(lambda: not living(loops))
    if how == "kill":  # then the command itself goes on
        os.kill(command, SIGKILL)
    until(lambda: not living([command]))
