"""Repeat a command beside one busy loop per core, and count how often it fails: `make flaky`.

python tests/busy.py 10 python -m pytest -m processes
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alexlab import threads


@contextmanager
def busy_loops() -> Iterator[list[int]]:
    """Context in which each core that this process may use has a loop to run, by their process ids."""
    start = multiprocessing.get_context("fork").Process
    loops = [start(target=_burn, args=(os.getpid(),)) for _ in range(threads.cores())]
    try:
        for loop in loops:
            loop.start()
        yield [loop.pid for loop in loops if loop.pid is not None]
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def _burn(parent: int) -> None:
    while os.getppid() == parent:  # it ends with this one, also where that is killed
        for _ in range(1_000_000):
            pass


def main() -> int:
    times, command = int(sys.argv[1]), sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has let it ignore them
        signal.signal(number, lambda *_: sys.exit(1))
    failures = 0
    with busy_loops():
        for number in range(1, times + 1):
            failures += subprocess.run(command, check=False).returncode != 0
            print(f"{number} of {times} times, {failures} failures", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
