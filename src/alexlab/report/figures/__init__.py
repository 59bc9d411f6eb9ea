"""Figures: numbers in, a matplotlib Figure out; `saving.save` writes it as PNG, and as SVG for a page.

Nothing here depends on records, and matplotlib's global state stays unchanged.

- `effects`: a study's claims, published and measured (forest)
- `outcomes`: results of runs: every run, training against test error, error against time, trials of learning rates
- `learning`: learning curves by epoch, and how fast arms learn (the paper's figure 1)
- `by_class`: the error on each class, and confusions
- `images`: conv1's kernels (figure 3), answers and neighbours (figure 4)
- `canvas`: the page of all figures: width, colours, style, text that fits; `labels`: names next to a plot
- `saving`: the files
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

# Before any module of the package imports matplotlib.
if "MPLBACKEND" in os.environ and "matplotlib" not in sys.modules:
    backend = os.environ.pop("MPLBACKEND")  # one that does not exist makes the import fail, and figures need none
    import matplotlib

    os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = backend
