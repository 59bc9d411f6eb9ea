"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) re-run as a controlled study."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from alexlab import threads

if TYPE_CHECKING:
    from alexlab.runs.trained import load_run as load_run
    from alexlab.study.sweeps import load_sweep as load_sweep

__version__ = "0.2.0"

# Read by PyTorch before its first large block: with small pages a CPU takes longer to map a batch of 77 MB than to
# compute it.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
threads.set_environment()


def __getattr__(name: str) -> Any:
    if name == "load_run":  # late, since it loads torch
        from alexlab.runs.trained import load_run

        return load_run
    if name == "load_sweep":  # late, since it loads pandas
        from alexlab.study.sweeps import load_sweep

        return load_sweep
    raise AttributeError(f"module 'alexlab' has no attribute '{name}'")
