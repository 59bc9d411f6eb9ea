"""Startup times: help, the first step of a run, and the first step of each further run of a sweep."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

from turns import arguments, machine, take_turns, tell, versions

TRAIN = Path(__file__).parents[1] / "src" / "train.py"
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=0"]
SHORT += ["data.train_images=64", "data.val_images=32", "data.test_images=32", "evaluate.train_images=32"]


def imports() -> None:
    """The import that any PyTorch Lightning program waits for."""
    subprocess.run([sys.executable, "-c", "import lightning"], check=True)


def shows_help() -> None:
    subprocess.run([sys.executable, TRAIN, "--help"], check=True, stdout=subprocess.DEVNULL)


def sweep(number: int) -> tuple[float, list[float]]:
    """Seconds from the command to the first run's first step, and from each further run's start to its own."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        seeds = ",".join(map(str, range(number)))
        line = [sys.executable, TRAIN, "-m", f"seed={seeds}", f"paths.runs={folder}", *SHORT]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        runs = []
        for path in Path(folder).glob("*/result.json"):
            started = json.loads((path.parent / "status.json").read_text())["started"]
            runs.append((started, json.loads(path.read_text())["seconds_start"]))
    runs.sort()
    return runs[0][0] + runs[0][1] - began, [start for _, start in runs[1:]]


def main() -> None:
    args = arguments(__doc__, 5).parse_args()
    print(f"{machine()}\n{versions()}")
    sweep(1)  # draws the images

    def runs() -> dict[str, float]:
        first, others = sweep(3)
        return {"the command to its first step": first, "a further run to its first step": fmean(others)}

    names = {"import lightning": imports, "--help": shows_help, "a sweep": runs}
    tell("until", take_turns(names, args.rounds, args.busy), "import lightning", args.json)


if __name__ == "__main__":
    main()
