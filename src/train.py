"""Train one run or a sweep of them: `python src/train.py --help`."""

import os
import signal
import sys

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # until the command itself listens
        signal.signal(number, lambda *_: os._exit(75))

from alexlab.runs.launch import main

if __name__ == "__main__":
    sys.exit(main())
