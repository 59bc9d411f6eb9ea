"""`python -m alexlab`: the command `alexlab`."""

import sys

from alexlab.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
