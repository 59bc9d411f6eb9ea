"""Run a function on all cores, to draw, decode and resize images."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from alexlab.children import inherit_code


def in_order(function: Callable[..., Any], jobs: Iterable[tuple], processes: int) -> Iterator[Any]:
    """Yield `function(*job)` for each job, in order, computed by several processes.

    Each process has a few jobs at a time, so that neither jobs nor results accumulate. Uses loky, since processes of
    `multiprocessing` run the caller's script again if it has no `if __name__ == "__main__"`.
    """
    if processes == 1:
        yield from (function(*job) for job in jobs)
        return
    from loky import ProcessPoolExecutor

    inherit_code()
    jobs = iter(jobs)
    pool = ProcessPoolExecutor(processes, initializer=_end_with, initargs=(os.getpid(),))
    try:
        waiting = deque(pool.submit(function, *job) for job in islice(jobs, 3 * processes))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, *job) for job in islice(jobs, 1))
        pool.shutdown()
    except BaseException:
        pool.shutdown(kill_workers=True)  # their results are not needed any more
        raise


def _end_with(parent: int) -> None:
    """End a worker when the process that started it ends; it would otherwise live on."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
