"""CPU time and memory of commands on two thousand records, every tenth a killed run, and on one bundle of them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import turns  # noqa: F401 (so that this checkout's package is imported)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.studies import made_study

PROJECT = Path(__file__).parents[1]

LOAD = "import sys; from alexlab.evidence import load_runs; print(len(load_runs(sys.argv[1])))"


# A small process that starts the command, since Linux counts the starter's own memory as the command's.
MEASURED = """
import os, sys
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent), 0)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measure(*words: str) -> tuple[float, float]:
    """CPU seconds (user and system) of a command, which depend little on other load, and peak MB."""
    line = [sys.executable, "-I", "-S", "-c", MEASURED, sys.executable, *words]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, cwd=PROJECT / "src")
    seconds, most = map(float, done.stdout.split())
    return seconds, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=106, help="per arm of the paper's study; 106 make 2,000 records")
    parser.add_argument("--images", type=int, default=2000, help="test images of each run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        runs, file = Path(folder) / "runs", Path(folder) / "runs.zip"
        made_study(runs, ["study=paper", f"study.seeds={args.seeds}"], images=args.images)
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
            "report": ["report.py", f"runs={runs}", f"out={folder}/reports"],
            "runs bundle": ["runs.py", "bundle", str(file), f"paths.runs={runs}"],
            "verify.py, of the bundle": ["-I", "-S", "alexlab/runs/verify.py", str(file)],
            "runs list, of the bundle": ["runs.py", "list", f"paths.runs={file}"],
            "report, of the bundle": ["report.py", f"runs={file}", f"out={folder}/reports"],
            "runs prune": ["runs.py", "prune", "--yes", f"paths.runs={runs}"],
        }.items():
            seconds, most = measure(*words)
            size = f"; {file.stat().st_size / 1e6:.0f} MB" if name == "runs bundle" else ""
            print(f"{name:<26}{seconds:6.2f} s {most:6.0f} MB{size}", flush=True)


if __name__ == "__main__":
    main()
