"""Evaluate an ensemble of finished runs, or a file of weights: `python src/evaluate.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parent))  # this checkout's package, whatever is installed
from alexlab.cli.__main__ import run

if __name__ == "__main__":
    sys.exit(run("evaluate"))
