"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) re-run as a controlled study."""

import os

from alexlab import threads

__version__ = "0.2.0"

# Read by PyTorch before its first large block: with small pages a CPU takes longer to map a batch of 77 MB than to
# compute it.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
threads.set_environment()
