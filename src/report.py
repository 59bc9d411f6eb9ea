"""Did the claims hold? A study's records as a report: `python src/report.py --help`."""

import sys

from alexlab.evidence.report import main

if __name__ == "__main__":
    sys.exit(main())
