"""Time the preparation of images on one core against Pillow's plain open, resize, save; measure its memory.

Also: the cost of opening a store of ImageNet's size and of drawing an epoch's order, on sparse files.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from turns import arguments, machine, take_turns, tell, versions

import numpy as np
from loader import make_images
from PIL import Image

from alexlab import threads
from alexlab.data.build import build_store
from alexlab.data.sources.folders import read_folders
from alexlab.data.store import JPEG, UINT8

SIZE, IMAGENET = 256, 1281167
PLAIN = "Pillow: open, resize, save"


def plain(files: list[Path], out: Path) -> None:
    """What a ten-line script would do: scale the shorter side to 256, save as JPEG."""
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        scale = SIZE / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        image.resize(size, Image.Resampling.BILINEAR).save(out / file.name, quality=90)


def race(root: Path, work: Path, cores: int, args: argparse.Namespace) -> None:
    """Time preparation with one process per usable core; Pillow's files are split evenly among them."""
    files = sorted((root / "train").rglob("*.jpg"))
    out = work / "timed"

    def pillow() -> None:
        if cores == 1:
            plain(files, out)
            return
        fork = multiprocessing.get_context("fork")  # a process that is spawned would load torch first
        with ProcessPoolExecutor(cores, mp_context=fork) as pool:
            list(pool.map(plain, [files[number::cores] for number in range(cores)], [out] * cores))

    def ours(kind: str) -> None:
        build_store(read_folders(root), out / "store", SIZE, "folder", kind, processes=cores)

    def timed(run: Callable[[], None]) -> float:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    contenders = {PLAIN: pillow, "ours, raw": lambda: ours(UINT8), "ours, jpeg": lambda: ours(JPEG)}
    times = take_turns({name: lambda run=run: timed(run) for name, run in contenders.items()}, args.rounds, args.busy)
    rates = {name: f"{len(files) / statistics.median(seconds):.0f}" for name, seconds in times.quiet.items()}
    title = "preparation on one core" if cores == 1 else f"preparation on {cores} cores"
    tell(title, times, PLAIN, args.json, {"images/s": rates})


PEAK = """
import sys, threading, time
from pathlib import Path
def tree():
    parents = {}
    for status in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = status.read_text().rpartition(')')[2].split()
            parents[int(status.parent.name)] = int(fields[1])
        except OSError:
            pass
    own, found = [int(sys.argv[1])], []
    while own:
        found.append(own.pop())
        own += [child for child, parent in parents.items() if parent == found[-1]]
    return found
def private(pid):
    try:
        lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith('Pss_Anon'))
    except (OSError, ValueError):
        return 0
peak = 0
while Path(f'/proc/{sys.argv[1]}').exists():
    peak = max(peak, sum(map(private, tree())))
    time.sleep(0.05)
    print(peak, flush=True)
"""
PREPARE = "import sys; from alexlab.cli.prepare import main; sys.exit(main(sys.argv[1:]))"


def memory(root: Path, work: Path) -> None:
    """Measure the peak memory of the command and its processes, without the page cache."""
    print("\n| memory of the command, all processes | MB |\n|---|--:|")
    for kind in (UINT8, JPEG):
        shutil.rmtree(work / "cache", ignore_errors=True)
        given = ["data=folder", f"data.raw={root}", f"data.cache={work / 'cache'}", f"data.format={kind}"]
        command = [sys.executable, "-c", PREPARE, *given, f"data.size={SIZE}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        watch = subprocess.Popen([sys.executable, "-c", PEAK, str(process.pid)], stdout=subprocess.PIPE, text=True)
        assert process.wait() == 0
        peak = watch.communicate(timeout=30)[0].splitlines()[-1]
        print(f"| {kind}, {threads.cores()} cores | {int(peak) / 1000:.0f} |")


OPEN = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
import alexlab.data.sampling
from alexlab.data.sampling import image_order
from alexlab.data.store import open_store
def resident():
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() / 1e6
before, started = resident(), time.perf_counter()
train = open_store(Path(sys.argv[1])).role('train', int(sys.argv[2]))
order = image_order(0, 0, len(train))
assert train.image(int(order[0])).shape == (256, 256, 3)
seconds = time.perf_counter() - started
peak = int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1e3
print(json.dumps([len(order), seconds, peak - before, peak]))
"""


def imagenet_sized(work: Path, rounds: int) -> None:
    """Measure a store of 1,281,167 training images whose pixels are a hole in the file."""
    path = work / "imagenet"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    rng = np.random.default_rng(0)
    images = {"train": IMAGENET, "val": 50000}
    for split, count in images.items():
        with (path / f"{split}.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, SIZE, SIZE, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + count * SIZE * SIZE * 3)
        np.save(path / f"{split}_labels.npy", np.sort(rng.integers(0, 1000, count)))
        np.save(path / f"{split}_places.npy", np.arange(count))
        for what in ("content", "stored"):
            np.save(path / f"{split}_{what}.npy", rng.integers(0, 256, (count, 16), dtype=np.uint8))
    np.save(path / "mean.npy", np.zeros((SIZE, SIZE, 3), np.float32))
    manifest = {
        "format_version": 2,
        "format": UINT8,
        "size": SIZE,
        "images": images,
        "classes": [f"n{number:08d}" for number in range(1000)],
        "rgb": {"components": np.eye(3).tolist(), "variances": [1, 1, 1]},
        "converted": {"grey": [f"train/n00000000/n00000000_{number}.JPEG" for number in range(20000)]},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    print("\n| 1,281,167 images: open the store, draw an epoch's order, read one | s | MB more | MB in all |")
    print("|---|--:|--:|--:|")
    for holdout in (0, 50):
        found = []
        for _ in range(rounds):
            command = [sys.executable, "-c", OPEN, str(path), str(holdout)]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        count, seconds, more, peak = (statistics.median(column) for column in zip(*found, strict=True))
        title = f"data.holdout={holdout}: {count:,.0f} to train on"
        print(f"| {title} | {seconds:.2f} | {more:.0f} | {peak:.0f} |")


def main() -> None:
    parser = arguments(__doc__, 7)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--race", action="store_true", help="only the tables of speed")
    parser.add_argument("--work", type=Path, help="folder to keep the images in; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        make_images(work, args.images)
        print(f"{machine()}\n{versions()}")
        usable = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(usable)})
        race(work / "photographs", work, 1, args)
        os.sched_setaffinity(0, usable)
        if threads.cores() > 1:
            race(work / "photographs", work, threads.cores(), args)
        if args.race:
            return
        memory(work / "photographs", work)
        imagenet_sized(work, args.rounds)


if __name__ == "__main__":
    main()
