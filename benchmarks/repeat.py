"""Repeat a command next to one busy loop per core, and count how often it fails: `make flaky`.

python benchmarks/repeat.py 10 python -m pytest -m processes
"""

from __future__ import annotations

import signal
import subprocess
import sys

import turns


def main() -> int:
    times, command = int(sys.argv[1]), sys.argv[2:]
    running: list[subprocess.Popen[bytes]] = []
    is_stopped = False

    # An exception from a handler could reach Popen after it has started the command, which would then keep running.
    def stop(*_: object) -> None:
        nonlocal is_stopped
        is_stopped = True
        for process in running:
            process.kill()

    for number in (signal.SIGINT, signal.SIGTERM):  # even if the shell made this process ignore them
        signal.signal(number, stop)
    failures = 0
    with turns.busy_loops():
        for number in range(1, times + 1):
            running[:] = [subprocess.Popen(command)]
            if is_stopped:  # stopped before the process was in the list
                running[0].kill()
            failures += running[0].wait() != 0
            if is_stopped:
                return 1
            print(f"{number} of {times} times, {failures} failures", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
