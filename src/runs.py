"""List, show, compare and remove records, or send them to W&B: `python src/runs.py --help`."""

import sys

from alexlab.runs.manage import main

if __name__ == "__main__":
    sys.exit(main())
