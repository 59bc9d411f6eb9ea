"""Time training steps of one net over two processes, by both strategies, against one process that has all the cores.

Two processes hold all three contenders, which take turns, one step each a round; while the first one steps alone, with
a thread for each core, the other waits. The first round does not count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from step import full_scale
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from alexlab import ranks
from alexlab.architecture import bytes_sent
from alexlab.config import Config, Strategy, load
from alexlab.models import build_model
from alexlab.ranks import Share
from alexlab.training.sgd import PaperSGD
from alexlab.training.strategies import counted, shared

SCALES: dict[str, tuple[Callable[[], Config], int]] = {"demo": (lambda: load([]), 32), "paper": (full_scale, 32)}
ALONE = "one process"
NAMES = (ALONE, "ddp", "towers")


def stepper(name: str, config: Config, batch: int) -> Callable[[], None]:
    """A training step of this process's part of a contender."""
    share = Share(ranks.rank(), ranks.count())
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


def measure(rank: int, folder: str, scale: str, batch: int, rounds: int, answer: Any) -> None:
    cores = len(os.sched_getaffinity(0))
    ranks.connect(rank, 2, Path(folder))
    make = SCALES[scale][0]
    steps = {name: stepper(name, make(), batch) for name in NAMES}
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    sent = dict.fromkeys(NAMES, 0)
    for _ in range(rounds + 1):
        for name in NAMES:
            torch.set_num_threads(cores if name == ALONE else max(1, cores // 2))
            ranks.any_of(False)
            before, started = ranks.sent(), time.perf_counter()
            if name != ALONE or rank == 0:
                steps[name]()
            ranks.any_of(False)
            seconds[name].append(time.perf_counter() - started)
            sent[name] = ranks.sent() - before
    if rank == 0:
        answer.send(({name: times[1:] for name, times in seconds.items()}, sent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="demo")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    batch = args.batch or SCALES[args.scale][1]
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=measure, args=(rank, folder, args.scale, batch, args.rounds, sender), daemon=True)
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        sender.close()
        seconds, sent = receiver.recv()
        for process in processes:
            process.join()
    config = SCALES[args.scale][0]()
    config.data.batch_size = batch
    reckoned = {**bytes_sent(config, 2), ALONE: 0}
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, no GPU, torch {torch.__version__}; {args.scale}, batch {batch}")
    print(f"{'':12} {'images/s':>9} {'ratio':>6} {'half of rounds':>16} {'MB sent a step':>15} {'reckoned':>9}")
    for name in NAMES:
        ratios = [alone / own for alone, own in zip(seconds[ALONE], seconds[name], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        speed = batch / statistics.median(seconds[name])
        print(
            f"{name:12} {speed:9.1f} {statistics.median(ratios):6.2f} {f'{low:.2f} to {high:.2f}':>16} "
            f"{sent[name] / 1e6:15.2f} {reckoned[name] / 1e6:9.2f}"
        )


if __name__ == "__main__":
    main()
