"""Time training steps of one net in two processes, by both strategies, against one process that has all cores.

Two processes run all three contenders, which take turns of about half a second. While the first process trains alone,
with a thread per core, the other waits.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from turns import arguments, busy_loops, machine, take_turns, tell, versions

import torch
from step import full_scale
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from alexlab import distributed, threads
from alexlab.architecture import bytes_sent
from alexlab.config import Config, Strategy, load
from alexlab.distributed import Share
from alexlab.models import build_model
from alexlab.training.optim import PaperSGD
from alexlab.training.strategies import counted, shared

SCALES: dict[str, tuple[Callable[[], Config], int]] = {"demo": (lambda: load([]), 32), "paper": (full_scale, 32)}
STEPS = {"demo": 20, "paper": 1}  # of a turn: half a second
ALONE = "one process"
NAMES = (ALONE, "ddp", "towers")


def stepper(name: str, config: Config, batch: int) -> Callable[[], None]:
    """A training step of this process's part of a contender."""
    share = Share(distributed.rank(), distributed.count())
    config.data.batch_size = batch
    network: Any = build_model(config)
    own = slice(0, batch)
    if name != ALONE:
        config.trainer.devices, config.trainer.strategy = share.of, Strategy[name]
        network = shared(network, config.trainer, batch)
        if name == "ddp":
            network, own = DistributedDataParallel(network), slice(*share.bounds(batch))
            network.register_comm_hook(None, counted)
    optimizer = PaperSGD(network.parameters(), 0.001, 0.9, 0.0005)
    size, classes = config.data.crop_size, config.data.num_classes
    assert size is not None
    assert classes is not None
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, 3, size, size, generator=generator)[own].contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (batch,), generator=generator)[own]

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()

    return step


def measure(rank: int, folder: str, scale: str, batch: int, rounds: int, busy: bool, answer: Any) -> None:
    """Take the turns of one of the two processes; the first one starts the busy loops and sends the answer."""
    distributed.connect(rank, 2, Path(folder))
    steps = {name: stepper(name, SCALES[scale][0](), batch) for name in NAMES}
    sent = dict.fromkeys(NAMES, 0)

    def turn(name: str) -> float:
        torch.set_num_threads(threads.cores() if name == ALONE else max(1, threads.cores() // 2))
        distributed.any_of(False)
        before, started = distributed.sent(), time.perf_counter()
        for _ in range(STEPS[scale] if name != ALONE or rank == 0 else 0):
            steps[name]()
        distributed.any_of(False)
        sent[name] = (distributed.sent() - before) // STEPS[scale]
        return (time.perf_counter() - started) / STEPS[scale]

    beside = busy_loops if rank == 0 else nullcontext
    times = take_turns({name: lambda name=name: turn(name) for name in NAMES}, rounds, busy, beside)
    if rank == 0:
        answer.send((times, sent))


def main() -> None:
    parser = arguments(__doc__, 15)
    parser.add_argument("--scale", choices=SCALES, default="demo")
    parser.add_argument("--batch", type=int)
    args = parser.parse_args()
    batch = args.batch or SCALES[args.scale][1]
    print(f"{machine()}\n{versions()}")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        given = (folder, args.scale, batch, args.rounds, args.busy, sender)
        processes = [context.Process(target=measure, args=(rank, *given), daemon=True) for rank in range(2)]
        for process in processes:
            process.start()
        sender.close()
        times, sent = receiver.recv()
        for process in processes:
            process.join()
    config = SCALES[args.scale][0]()
    config.data.batch_size = batch
    columns = {
        "images/s": {name: f"{batch / statistics.median(seconds):.1f}" for name, seconds in times.quiet.items()},
        "MB sent a step": {name: f"{count / 1e6:.2f}" for name, count in sent.items()},
        "computed": {name: f"{count / 1e6:.2f}" for name, count in {ALONE: 0, **bytes_sent(config, 2)}.items()},
    }
    tell(f"{args.scale}, batch {batch}, two processes", times, ALONE, args.json, columns)


if __name__ == "__main__":
    main()
