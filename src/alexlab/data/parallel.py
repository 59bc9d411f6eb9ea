"""Work on all cores, for files to be drawn, decoded and resized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any


def in_order(function: Callable[..., Any], jobs: Sequence[tuple], processes: int) -> Iterator[Any]:
    """Yield `function(*job)` for each job, in their order, worked on by several processes.

    By loky's and not by `multiprocessing`'s, which run the caller's script again where it has no
    `if __name__ == "__main__"`.
    """
    if processes == 1:
        yield from (function(*job) for job in jobs)
        return
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(processes) as pool:
        for future in [pool.submit(function, *job) for job in jobs]:
            yield future.result()
