"""Whether the loader keeps up: images per second that it supplies over those that a training step consumes.

From a store in the page cache and from one that is not, compared with a sequential read of the same file from disk. On
a GPU the time includes the copy to the device.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from turns import arguments, device, machine, settled, take_turns, tell, versions

import torch
from loader import BATCH, make_images
from step import Contender

from alexlab.config import load
from alexlab.data import build_datamodule
from alexlab.data.prefetch import DevicePrefetcher
from alexlab.data.store import JPEG, UINT8


def forgotten(folder: Path) -> None:
    """Evict files from the page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=0, help="loader processes (default: %(default)s)")
    args = parser.parse_args()
    print(f"{machine()}\n{versions()}")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:  # on a disk: the system's may be in memory
        work = Path(temporary)
        make_images(work, args.images)

        def epoch(kind: str, cold: bool) -> float:
            """Seconds per image of uint8 batches, on the device."""
            overrides = ["recipe=imagenet2012", "data=folder", f"data.root={work / kind}", "data.holdout=0"]
            data = build_datamodule(load([*overrides, f"data.batch_size={BATCH}", f"data.num_workers={args.workers}"]))
            data.setup()
            loader = data.train_dataloader()
            if device().type == "cuda":
                loader = DevicePrefetcher(loader, device())  # pyright: ignore[reportArgumentType]
            if cold:
                forgotten(work / kind)
            started, count = time.perf_counter(), 0
            for batch in loader:
                count += len(batch.labels)
            settled()
            return (time.perf_counter() - started) / count

        def disk(kind: str) -> float:
            """Seconds per image of the store's file, read sequentially."""
            forgotten(work / kind)
            path = max((work / kind).glob("train*"), key=lambda path: path.stat().st_size)
            started = time.perf_counter()
            with path.open("rb", buffering=0) as file:
                while file.read(2**23):
                    pass
            return (time.perf_counter() - started) / args.images

        batch = BATCH if torch.cuda.is_available() else 16
        how = "ours, bf16, compiled" if torch.cuda.is_available() else "ours"
        step = Contender("paper", batch, how)

        def used() -> float:
            started = time.perf_counter()
            step.step()
            return (time.perf_counter() - started) / batch

        step.step()
        names = {f"a training step ({how})": used}
        for kind in (UINT8, JPEG):
            names[f"{kind}, in the page cache"] = lambda kind=kind: epoch(kind, False)
            names[f"{kind}, cold"] = lambda kind=kind: epoch(kind, True)
            names[f"{kind}, the disk alone"] = lambda kind=kind: disk(kind)
        times = take_turns(names, args.rounds, args.busy)
        pace = {name: f"{1 / statistics.median(seconds):,.0f}" for name, seconds in times.quiet.items()}
        tell("an image", times, next(iter(names)), args.json, {"images/s": pace})


if __name__ == "__main__":
    main()
