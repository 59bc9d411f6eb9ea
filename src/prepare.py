"""Prepare a data set, or check one: `python src/prepare.py --help`."""

import sys

from alexlab.data.doctor import main

if __name__ == "__main__":
    sys.exit(main())
