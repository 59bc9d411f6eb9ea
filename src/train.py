"""Train one run or a sweep of them: `python src/train.py --help`."""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # until the command itself listens
        signal.signal(number, lambda *_: os._exit(75))

sys.path.insert(0, str(Path(__file__).absolute().parent))  # this checkout's package, whatever is installed

from alexlab.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
