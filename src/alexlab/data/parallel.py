"""Work on all cores, for files to be drawn, decoded and resized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed


def in_order(function: Callable[..., Any], jobs: Sequence[tuple], processes: int) -> Iterator[Any]:
    """Yield `function(*job)` for each job, in their order, worked on by several processes.

    By joblib and not by `multiprocessing`, whose new processes run the caller's script again where it has no
    `if __name__ == "__main__"`.
    """
    if processes == 1:
        yield from (function(*job) for job in jobs)
    else:
        yield from Parallel(processes, return_as="generator", batch_size=1)(delayed(function)(*job) for job in jobs)
