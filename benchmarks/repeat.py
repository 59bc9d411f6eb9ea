"""Repeat a command beside one busy loop per core, and count how often it fails: `make flaky`.

python benchmarks/repeat.py 10 python -m pytest -m processes
"""

from __future__ import annotations

import signal
import subprocess
import sys

import turns


def main() -> int:
    times, command = int(sys.argv[1]), sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has let it ignore them
        signal.signal(number, lambda *_: sys.exit(1))
    failures = 0
    with turns.busy_loops():
        for number in range(1, times + 1):
            failures += subprocess.run(command, check=False).returncode != 0
            print(f"{number} of {times} times, {failures} failures", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
