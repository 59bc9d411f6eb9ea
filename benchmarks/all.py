"""Run every benchmark in turn, on a quiet machine and next to busy loops: `make bench` (about three hours)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COMMANDS = [
    ["step.py", "--scale", "demo", "--rounds", "15"],
    ["step.py"],
    ["step.py", "--scale", "cifar"],
    ["threads.py"],
    ["trainer.py"],
    ["augment.py"],
    ["loader.py", "--images", "2048"],
    ["supply.py"],
    ["evaluation.py"],
    ["prepare.py"],
    ["startup.py"],
    ["sweep.py"],
    ["scaling.py"],
    ["checkpoint.py"],
    ["report.py"],
    ["devices.py"],
    ["devices.py", "--scale", "paper", "--rounds", "9"],
]


def main() -> int:
    failed = 0
    for command in COMMANDS:
        command = [*command, "--busy"]
        print(f"\n## python benchmarks/{' '.join(command)}\n", flush=True)
        failed += subprocess.run([sys.executable, *command], cwd=Path(__file__).parent, check=False).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
