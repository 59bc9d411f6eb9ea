"""Time and memory of a report on a thousand records, compared with only reading the same files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from turns import arguments, machine, take_turns, tell, versions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.studies import made_study

# The report, then its peak memory in kB; getrusage of children would include the parent's memory.
MEASURED = """
import sys
from alexlab.cli.report import main
assert main(sys.argv[1:]) == 0
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument(
        "--seeds", type=int, default=53, help="per arm of the paper's study; the base has three times as many"
    )
    args = parser.parse_args()
    print(f"{machine()}\n{versions()}")
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        runs = Path(folder) / "runs"
        made_study(runs, ["study=paper", f"study.seeds={args.seeds}"], images=2000)
        peaks: list[int] = []

        def report() -> None:
            command = [sys.executable, "-c", MEASURED, f"runs={runs}", f"out={folder}/reports"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(int(done.stdout.split()[-2]))

        def read() -> int:
            return sum(len(path.read_bytes()) for path in runs.rglob("*") if path.is_file())

        def imports() -> None:
            line = "import hydra, matplotlib.figure, numpy, omegaconf, pandas, scipy.stats"
            subprocess.run([sys.executable, "-c", line], check=True)

        count = len(list(runs.glob("*/status.json")))
        print(f"{count:,} records, {sum(path.stat().st_size for path in runs.rglob('*')) / 1e6:.0f} MB")
        contenders = {
            "importing what it needs": imports,
            "reading the files": lambda: read() and None,
            "the report": report,
        }
        times = take_turns(contenders, args.rounds, args.busy)
        extra = {"MB at most": {"the report": f"{max(peaks) / 1000:.0f}"}}
        tell("what", times, "importing what it needs", args.json, extra)


if __name__ == "__main__":
    main()
