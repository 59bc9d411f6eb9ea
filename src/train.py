"""Train one run or a sweep of them: `python src/train.py --help`."""

import sys

from alexlab.runs.launch import main

if __name__ == "__main__":
    sys.exit(main())
