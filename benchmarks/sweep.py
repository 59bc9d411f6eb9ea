"""Several runs at once on one machine: a sweep of the demo's arms one after another, and with joblib and shared cores.

Prints one row for each number of runs at once. Runs share a GPU; on a CPU each has its part of the cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from turns import arguments, machine, take_turns, tell, versions

TRAIN = Path(__file__).parents[1] / "src" / "train.py"
ARMS = ["model.lrn=true,false", "pool.overlap=true,false"]


def sweep(at_once: int, more: list[str]) -> float:
    """Seconds of the four arms."""
    line = [sys.executable, str(TRAIN), "-m", *ARMS, *more]
    if at_once > 1:
        line += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={at_once}"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [*line, f"paths.runs={folder}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return time.perf_counter() - started


def main() -> None:
    parser = arguments(__doc__, 2)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--at-once", type=int, nargs="+", default=sorted({2, min(4, max(2, cores))}))
    parser.add_argument("more", nargs="*", help="overrides, such as trainer.max_epochs=5")
    args = parser.parse_args()
    print(f"{machine()}\n{versions()}")
    sweep(1, ["trainer.max_epochs=1"])  # draws the images
    names = {"one after another": lambda: sweep(1, args.more)}
    names |= {f"{count} at once": lambda count=count: sweep(count, args.more) for count in args.at_once}
    tell("four arms", take_turns(names, args.rounds, args.busy), "one after another", args.json)


if __name__ == "__main__":
    main()
