"""CPU seconds of `runs list`, `load_runs` and `runs prune` over two thousand records; every tenth run was killed."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import turns  # noqa: F401 (so that this checkout's package is imported)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.studies import made_study

PROJECT = Path(__file__).parents[1]

LOAD = "import sys; from alexlab.evidence import load_runs; print(len(load_runs(sys.argv[1])))"


def cpu_seconds(*words: str) -> float:
    """User and system seconds of a command, which other work on the machine changes little."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=PROJECT / "src")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=106, help="of each of the paper's arms; 106 make 2,000 records")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        runs = Path(folder) / "runs"
        made_study(runs, ["study=paper", f"study.seeds={args.seeds}"], images=100)
        records = sorted(runs.glob("*/status.json"))
        for path in records[::10]:
            status = {**json.loads(path.read_text()), "state": "FAILED", "failure": "killed", "message": "by hand"}
            path.write_text(json.dumps(status))
        print(f"{len(records):,} records, {sum(path.stat().st_size for path in runs.rglob('*')) / 1e6:.0f} MB")
        for name, words in {
            "importing pandas": ["-c", "import pandas"],
            "runs list, of no record": ["runs.py", "list", f"paths.runs={folder}"],
            "runs list": ["runs.py", "list", f"paths.runs={runs}"],
            "runs list state=FAILED": ["runs.py", "list", "state=FAILED", f"paths.runs={runs}"],
            "load_runs": ["-c", LOAD, str(runs)],
            "runs prune": ["runs.py", "prune", "--yes", f"paths.runs={runs}"],
        }.items():
            print(f"{name:<26}{cpu_seconds(*words):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
