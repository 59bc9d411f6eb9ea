"""Calls in processes that find each other, as those of one run do."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alexlab import distributed
from alexlab.runs.process import start_server
from support.commands import PATIENCE


def together(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What `function(*arguments)` gives in each of `count` processes, in their order; it must be a module's own."""
    context = multiprocessing.get_context("forkserver")
    start_server("alexlab.runs.worker")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(count)]
        processes = [
            context.Process(target=_call, args=(sender, rank, count, folder, function, arguments), daemon=True)
            for rank, (_, sender) in enumerate(pipes)
        ]
        try:
            for process in processes:
                process.start()
            found = []
            for receiver, sender in pipes:
                sender.close()
                assert receiver.poll(PATIENCE), "no answer"
                found.append(pickle.loads(receiver.recv_bytes()))
        finally:
            for process in processes:
                process.kill()
                process.join()
            for receiver, _ in pipes:
                receiver.close()
    for _, error in found:
        assert error is None, error
    return [value for value, _ in found]


def _call(sender: Any, rank: int, count: int, folder: str, function: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        distributed.connect(rank, count, Path(folder), is_on_gpu=False)
        found = function(*arguments), None
    except BaseException:
        found = None, traceback.format_exc()
    sender.send_bytes(pickle.dumps(found))  # whole: torch's own way leaves tensors with this process, which ends
