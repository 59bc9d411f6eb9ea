"""Average the nets of finished runs, or evaluate a file of weights: `python src/evaluate.py --help`."""

import sys

from alexlab.runs.average import main

if __name__ == "__main__":
    sys.exit(main())
