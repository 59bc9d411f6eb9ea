"""Time the loading of training batches of 128 random 224 px crops: ours against other libraries.

All read the same synthetic photographs, in the page cache, made once in the --work folder. Libraries that store images
at 256 px get our stores' pixels, or our stores' JPEG files byte for byte (ffcv encodes them itself), written in a
shuffled order. Every contender has its own process; they take turns, in reverse order every second round, and only one
works at a time. The first batch of an epoch is not counted, since it waits for the workers to start.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from turns import Ratio, Times, arguments, machine, record, take_turns, tell, versions

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import DataLoader

from alexlab import threads
from alexlab.config import load
from alexlab.data import build_datamodule
from alexlab.data.build import build_store
from alexlab.data.sources.folders import read_folders
from alexlab.data.store import JPEG, UINT8, open_store

BATCH, SIZE, CROP, CLASSES = 128, 256, 224, 10
Epoch = Callable[[int], Iterable[tuple[Tensor, Tensor]]]  # of its number: batches of images and labels
SPAWN = multiprocessing.get_context("spawn")  # a fork would inherit the locks of the parent's threads
OURS, BEST_KNOWN = "ours, raw", "ffcv, raw"


# The photographs


def photograph(index: int) -> np.ndarray:
    """A 1/f field with shapes and grain on it, uint8 [H, W, 3]; as a JPEG of quality 93 about 97 KiB."""
    rng = np.random.default_rng([0, index])
    width, height = (375, 500) if index % 4 == 0 else (500, 375)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)).astype(np.float32)
    frequency[0, 0] = 1
    real, imaginary = rng.standard_normal((2, 3, *frequency.shape), np.float32)
    fields = np.fft.irfft2((real + 1j * imaginary) / frequency**1.4, (height, width)).astype(np.float32)
    light, warm, green = (fields - fields.mean((1, 2), keepdims=True)) / fields.std((1, 2), keepdims=True)
    colours = np.stack([warm, green, -warm - green], -1)  # sum to 0: photographs vary more in light than in colour
    pixels = rng.uniform(60, 190, 3).astype(np.float32) + 50 * light[..., None] + 10 * colours

    shapes, mask = Image.new("RGB", (width, height)), Image.new("L", (width, height))
    for _ in range(rng.integers(3, 9)):
        x, y, w, h = rng.uniform(0, [width, height, 160, 160])
        kind, colour = rng.choice(["ellipse", "rectangle"]), tuple(rng.integers(0, 256, 3).tolist())
        for image, fill in ((shapes, colour), (mask, 140)):
            getattr(ImageDraw.Draw(image), kind)((x - w / 2, y - h / 2, x + w / 2, y + h / 2), fill)
    share = np.asarray(mask, np.float32)[..., None] / 255
    pixels += share * (np.asarray(shapes, np.float32) - pixels)
    pixels += 9 * rng.standard_normal((height, width, 1), np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_photograph(folder: Path, split: str, index: int) -> None:
    path = folder / split / f"class{index % CLASSES}" / f"{index:06}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photograph(index)).save(path, quality=93)


def make_images(work: Path, count: int) -> None:
    """Make the photographs, `count` for training and one of each class for val, and our two stores of them."""

    def write(folder: Path) -> None:
        with ProcessPoolExecutor(mp_context=SPAWN) as pool:
            splits = ["train"] * count + ["val"] * CLASSES
            list(pool.map(partial(write_photograph, folder), splits, range(len(splits)), chunksize=32))

    photographs = packed(work / "photographs", write)
    for kind in (UINT8, JPEG):
        if not (work / kind).is_dir():
            source = read_folders(photographs)
            build_store(source, work / kind, SIZE, "folder", kind=kind, processes=os.cpu_count() or 1)


def packed(path: Path, write: Callable[[Path], object]) -> Path:
    """The folder `path`, written by `write` if it does not exist yet."""
    if not path.is_dir():
        half = path.with_name(f"{path.name}.unfinished")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        with contextlib.redirect_stdout(sys.stderr):  # keeps the libraries' messages out of the tables
            write(half)
        half.rename(path)
    return path


class Stored(Sequence[tuple[Any, int]]):
    """The training images of a store, each an array or a JPEG file with its label, in a shuffled order.

    Shuffled once, since libraries that read sequentially need shuffled images.
    """

    def __init__(self, work: Path, kind: str) -> None:
        self._split, self._is_raw = open_store(work / kind).split("train"), kind == UINT8
        self._order = np.random.default_rng(0).permutation(len(self._split))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> tuple[Any, int]:  # type: ignore[override]
        index = self._order[place]
        stored = self._split.stored(index)
        return np.array(stored) if self._is_raw else bytes(stored), int(self._split.labels[index])


# The contenders: each takes the work folder and a number of workers, and returns its epochs


def open_ours(kind: str, work: Path, workers: int, to_float: bool = False) -> Epoch:
    overrides = ["recipe=imagenet2012", "data=folder", f"data.root={work / kind}", "data.holdout=0"]
    data = build_datamodule(load([*overrides, f"data.batch_size={BATCH}", f"data.num_workers={workers}"]))
    data.setup()
    loader = data.train_dataloader()

    def epoch(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
        for batch in loader:
            yield data.on_after_batch_transfer(batch, 0) if to_float else (batch.crops, batch.labels)

    return epoch


def torch_epochs(make_loader: Callable[..., Iterable], dataset: Any, workers: int, **options: Any) -> Epoch:
    loader = make_loader(dataset, num_workers=workers, persistent_workers=workers > 0, **options)
    return lambda number: loader


def open_image_folder(work: Path, workers: int, to_float: bool = False) -> Epoch:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.Resize(SIZE), transforms.RandomCrop(CROP), transforms.RandomHorizontalFlip()]
    if to_float:
        steps += [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    else:
        steps += [transforms.PILToTensor(), channels_last]
    dataset = ImageFolder(str(work / "photographs" / "train"), transforms.Compose(steps))
    return torch_epochs(DataLoader, dataset, workers, batch_size=BATCH, shuffle=True, drop_last=True)


def channels_last(image: Tensor) -> Tensor:
    return image.permute(1, 2, 0)


def random_crop(image: np.ndarray) -> Tensor:
    """A crop as a view, so that making the batch is its only copy; mirrored by torch, whose copy is faster."""
    y, x = random.randrange(SIZE - CROP + 1), random.randrange(SIZE - CROP + 1)
    crop = torch.from_numpy(image)[y : y + CROP, x : x + CROP]
    return crop.flip(1) if random.random() < 0.5 else crop


def decoded_crop(jpeg: bytes) -> Tensor:
    """Decode with our decoder: if a library leaves the choice, loaders are compared, not decoders."""
    import simplejpeg

    return random_crop(simplejpeg.decode_jpeg(jpeg, "RGB"))


CROPPED: dict[str, Callable[[Any], Tensor]] = {UINT8: random_crop, JPEG: decoded_crop}


def open_ffcv(kind: str, work: Path, workers: int) -> Epoch:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor
    from ffcv.writer import DatasetWriter

    def write(folder: Path) -> None:
        image = RGBImageField(write_mode="raw" if kind == UINT8 else "jpg", jpeg_quality=90)
        writer = DatasetWriter(str(folder / "train.beton"), {"image": image, "label": IntField()}, num_workers=1)
        writer.from_indexed_dataset(Stored(work, UINT8))

    path = packed(work / f"ffcv_{kind}", write) / "train.beton"
    share = (CROP / SIZE) ** 2  # of the area, always the same, so it only crops, at a random position
    decoder = RandomResizedCropRGBImageDecoder((CROP, CROP), scale=(share, share), ratio=(1.0, 1.0))
    loader = Loader(
        str(path),
        batch_size=BATCH,
        num_workers=workers,
        os_cache=True,
        order=OrderOption.RANDOM,
        drop_last=True,
        pipelines={
            "image": [decoder, RandomHorizontalFlip(), ToTensor()],
            "label": [IntDecoder(), ToTensor(), Squeeze(1)],
        },
    )
    return lambda number: loader


def open_streaming(kind: str, work: Path, workers: int) -> Epoch:
    from streaming import MDSWriter, StreamingDataset

    def write(folder: Path) -> None:
        encoding = f"ndarray:uint8:{SIZE},{SIZE},3" if kind == UINT8 else "bytes"
        with MDSWriter(out=str(folder), columns={"image": encoding, "label": "int"}) as writer:
            for image, label in Stored(work, kind):
                writer.write({"image": image, "label": label})

    class Crops(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            sample = super().__getitem__(at)
            return CROPPED[kind](sample["image"]), sample["label"]

    path = packed(work / f"streaming_{kind}", write)
    dataset = Crops(local=str(path), shuffle=True, batch_size=BATCH)
    return torch_epochs(DataLoader, dataset, workers, batch_size=BATCH, drop_last=True)


def open_litdata(kind: str, work: Path, workers: int) -> Epoch:
    os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"  # it would access the network
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    def write(folder: Path) -> None:
        stored = Stored(work, kind)
        inputs, chunk = list(range(len(stored))), "64MB"
        # Not its default, "spawn", which it would set for the whole process, so that the loader could not start its
        # workers.
        optimize(stored.__getitem__, inputs, str(folder), chunk_bytes=chunk, num_workers=1, start_method="fork")

    class Crops(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            image, label = super().__getitem__(index)
            return CROPPED[kind](image), label

    path = packed(work / f"litdata_{kind}", write)
    # By default it would unpack 256 arrays for each one requested, which is seven times slower.
    unpacked = 0 if kind == UINT8 else "auto"
    dataset = Crops(str(path), shuffle=True, drop_last=True, batch_decode=unpacked)
    return torch_epochs(StreamingDataLoader, dataset, workers, batch_size=BATCH, drop_last=True)


def open_webdataset(work: Path, workers: int) -> Epoch:
    import webdataset

    shards = 8  # a multiple of the workers, which each read whole shards

    def write(folder: Path) -> None:
        stored = Stored(work, JPEG)
        with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=-(-len(stored) // shards)) as writer:
            for place, (image, label) in enumerate(stored):
                writer.write({"__key__": f"{place:06}", "jpg": image, "cls": label})

    def crop(sample: tuple[bytes, bytes]) -> tuple[Tensor, int]:
        return decoded_crop(sample[0]), int(sample[1])

    path = packed(work / "webdataset", write)
    dataset = webdataset.WebDataset([str(shard) for shard in sorted(path.iterdir())], shardshuffle=shards)
    dataset = dataset.shuffle(1000).to_tuple("jpg", "cls").map(crop).batched(BATCH, partial=False)
    return torch_epochs(webdataset.WebLoader, dataset, workers, batch_size=None)


def open_datasets(work: Path, workers: int) -> Epoch:
    from datasets import Dataset, Features, Value, load_from_disk

    def write(folder: Path) -> None:
        images, labels = zip(*Stored(work, JPEG), strict=True)
        features = Features({"image": Value("binary"), "label": Value("int64")})
        Dataset.from_dict({"image": images, "label": labels}, features).save_to_disk(str(folder))

    def crops(rows: dict[str, list]) -> dict[str, list]:
        return {"image": [decoded_crop(image) for image in rows["image"]], "label": rows["label"]}

    dataset = load_from_disk(str(packed(work / "datasets", write))).with_transform(crops)
    epoch = torch_epochs(DataLoader, dataset, workers, batch_size=BATCH, shuffle=True, drop_last=True)
    return lambda number: ((batch["image"], batch["label"]) for batch in epoch(number))


def open_spdl(kind: str, work: Path, workers: int) -> Epoch:
    """Threads that each read and decode a file, and one step that stacks them, as in its guide for PyTorch."""
    from spdl.dataloader import DataLoader as PipelineLoader
    from spdl.io import load_npy
    from spdl.source import DistributedRandomSampler

    def write(folder: Path) -> None:
        for place, (image, label) in enumerate(Stored(work, kind)):
            path = folder / f"{place:06}_{label}.{kind}"
            np.save(path.open("wb"), image) if kind == UINT8 else path.write_bytes(image)

    torch.set_num_threads(1)  # its threads call torch, which would start more of them
    files = [(path, int(path.stem.split("_")[1])) for path in sorted(packed(work / f"spdl_{kind}", write).iterdir())]

    def crop(index: int) -> tuple[Tensor, int]:
        path, label = files[index]
        content = path.read_bytes()
        return CROPPED[kind](load_npy(content) if kind == UINT8 else content), label

    def stacked(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        images, labels = zip(*samples, strict=True)
        return torch.stack(images), torch.tensor(labels)

    source = DistributedRandomSampler(len(files), rank=0, world_size=1)
    options = {"batch_size": BATCH, "drop_last": True, "num_threads": max(1, workers)}
    loader = PipelineLoader(source, preprocessor=crop, aggregator=stacked, **options)

    def epoch(number: int) -> Iterable[tuple[Tensor, Tensor]]:
        source.shuffle(seed=number)
        return loader

    return epoch


class GrainCrop:
    """An ArrayRecord's bytes, a label and an image, to a crop; a class, as grain's workers are spawned."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, record: bytes) -> tuple[np.ndarray, int]:
        stored = record[1:]
        image = np.frombuffer(stored, np.uint8).reshape(SIZE, SIZE, 3) if self.kind == UINT8 else stored
        return CROPPED[self.kind](image).numpy(), record[0]


def open_grain(kind: str, work: Path, workers: int) -> Epoch:
    """ArrayRecord with a record a group, for random access, and worker processes by `mp_prefetch`, as its docs advise.

    Its iterator is endless, so that the workers start once; an epoch is as many batches as fit into one.
    """
    os.environ["PYTHONWARNINGS"] = "ignore:The given NumPy array is not writable"  # for its workers; it is only read
    import grain
    from array_record.python.array_record_module import ArrayRecordWriter

    def write(folder: Path) -> None:
        writer = ArrayRecordWriter(str(folder / "train.array_record"), "group_size:1")
        for image, label in Stored(work, kind):
            writer.write(bytes([label]) + bytes(image))
        writer.close()

    torch.set_num_threads(1)
    source = grain.sources.ArrayRecordDataSource(str(packed(work / f"grain_{kind}", write) / "train.array_record"))
    images = grain.MapDataset.source(source).seed(0).shuffle().map(GrainCrop(kind))
    batches = images.batch(BATCH, drop_remainder=True)
    # Its default, 16 threads and 500 batches, is for small records and remote disks.
    options = grain.ReadOptions(num_threads=2 if workers == 0 else 1, prefetch_buffer_size=2)
    endless = batches.repeat().to_iter_dataset(options)
    iterator = iter(endless.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)))

    def epoch(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        for crops, labels in itertools.islice(iterator, len(batches)):
            yield torch.from_numpy(crops), torch.from_numpy(labels)

    return epoch


ONE_CORE: dict[str, Callable[[Path, int], Epoch]] = {
    OURS: partial(open_ours, UINT8),
    "ours, jpeg": partial(open_ours, JPEG),
    "ImageFolder": open_image_folder,
}
TO_FLOAT: dict[str, Callable[[Path, int], Epoch]] = {
    OURS: partial(open_ours, UINT8, to_float=True),
    "ours, jpeg": partial(open_ours, JPEG, to_float=True),
    "ImageFolder": partial(open_image_folder, to_float=True),
}
ALL_CORES: dict[str, Callable[[Path, int], Epoch]] = {
    OURS: partial(open_ours, UINT8),
    "ours, jpeg": partial(open_ours, JPEG),
    BEST_KNOWN: partial(open_ffcv, UINT8),
    "ffcv, jpg": partial(open_ffcv, JPEG),
    "MosaicML streaming, raw": partial(open_streaming, UINT8),
    "MosaicML streaming, jpg": partial(open_streaming, JPEG),
    "litdata, raw": partial(open_litdata, UINT8),
    "litdata, jpg": partial(open_litdata, JPEG),
    "webdataset, jpg": open_webdataset,
    "Hugging Face datasets, jpg": open_datasets,
    "SPDL, raw": partial(open_spdl, UINT8),
    "SPDL, jpg": partial(open_spdl, JPEG),
    "grain, raw": partial(open_grain, UINT8),
    "grain, jpg": partial(open_grain, JPEG),
    "ImageFolder": open_image_folder,
}


# Turns


@dataclass(frozen=True)
class Job:
    """A contender's work in one of the tables."""

    name: str
    open: Callable[[Path, int], Epoch]
    workers: int = 0
    to_float: bool = False
    core: int | None = None  # the only core that it may use
    limit: int | None = None  # batches of an epoch, not counting the first

    @property
    def title(self) -> str:
        return self.name if self.core is not None else f"{self.name}, {self.workers} workers"


@dataclass
class Contender:
    """A job's process."""

    process: Any
    connection: Connection

    def turn(self, seconds: float) -> float:
        """Seconds per image, over a turn of at least this many."""
        self.connection.send(seconds)
        return self.connection.recv()

    def end(self) -> None:
        self.connection.send(None)
        self.process.join()


def started(job: Job, work: Path) -> Contender | None:
    """Start a contender and wait until it is ready; None, with a printed reason, if its library is not installed."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=serve, args=(there, job, work))
    cores = os.sched_getaffinity(0)
    # Set here and inherited: if set in the process itself, it would not apply to threads started by imports.
    os.sched_setaffinity(0, cores if job.core is None else {job.core})
    process.start()
    os.sched_setaffinity(0, cores)
    there.close()
    missing = here.recv()
    if missing:
        print(f"{job.name}: left out, {missing} is not installed")
        return None
    return Contender(process, here)


def serve(connection: Connection, job: Job, work: Path) -> None:
    """In a contender's process: take turns of the seconds that the connection sends, until it sends None."""
    warnings.filterwarnings("ignore", "The given (NumPy array|buffer) is not writable")  # only read here
    multiprocessing.set_start_method("fork", force=True)  # a spawned process would spawn its loader's workers too
    if job.core is not None:
        torch.set_num_threads(1)
    try:
        epoch = job.open(work, job.workers)
    except ModuleNotFoundError as error:
        connection.send(error.name)
        return
    check(job, epoch(0), work)  # also warms up: workers start, the page cache fills, ffcv compiles
    connection.send(None)
    numbers = itertools.count(1)
    while (seconds := connection.recv()) is not None:
        images, spent = 0, 0.0
        while spent < seconds:
            batches = iter(epoch(next(numbers)))
            next(batches)
            start = time.perf_counter()
            images += sum(len(batch) for batch, _ in itertools.islice(batches, job.limit))
            spent += time.perf_counter() - start
        connection.send(spent / images)


def check(job: Job, batches: Iterable[tuple[Tensor, Tensor]], work: Path) -> None:
    """Check that an epoch's batches are correct."""
    split, mean = open_store(work / UINT8).split("train"), float(open_store(work / UINT8).mean.mean())
    shape, dtype = ((BATCH, 3, CROP, CROP), torch.float32) if job.to_float else ((BATCH, CROP, CROP, 3), torch.uint8)
    counts, means = np.zeros(CLASSES, int), []
    for images, labels in itertools.islice(batches, job.limit):
        assert (images.shape, images.dtype) == (shape, dtype), f"{job.name}: {images.shape}, {images.dtype}"
        middles = {line.numpy().tobytes() for line in images[..., CROP // 2, :]}
        assert len(middles) == BATCH, f"{job.name}: images twice in a batch"
        counts += np.bincount(torch.as_tensor(labels).numpy(), minlength=CLASSES)
        means.append(float(images.float().mean()))
    left_out = len(split) - counts.sum()
    assert job.limit or left_out < BATCH * max(1, job.workers), f"{job.name}: {left_out} images are not in an epoch"
    assert (counts <= np.bincount(split.labels)).all(), f"{job.name}: images twice in an epoch, {counts}"
    assert counts.all(), f"{job.name}: classes missing, {counts}"
    assert job.to_float or abs(statistics.mean(means) - mean) < 5, f"{job.name}: mean {means}, should be {mean}"


def race(jobs: list[Job], work: Path, args: argparse.Namespace) -> Times:
    """The times of all jobs that can run, by title."""
    found: dict[str, Contender] = {}
    try:
        for job in jobs:
            if (contender := started(job, work)) is not None:
                found[job.title] = contender
        turns = {title: partial(contender.turn, args.seconds) for title, contender in found.items()}
        return take_turns(turns, args.rounds, args.busy)
    finally:
        for contender in found.values():
            contender.end()


def measure_one_core(work: Path, args: argparse.Namespace) -> None:
    """Time both kinds of batch on one core, against ours from raw images."""
    core = max(os.sched_getaffinity(0))
    for batch, table in (("uint8", ONE_CORE), ("float32", TO_FLOAT)):
        jobs = [Job(name, table[name], to_float=table is TO_FLOAT, core=core, limit=4) for name in table]
        times = race(jobs, work, args)
        show(f"an image, one core, {batch}", times, OURS)
        for part, seconds in (("", times.quiet), (", busy", times.busy)):
            if seconds:
                ratio = Ratio.of(seconds[OURS], seconds["ImageFolder"])
                record(args.json, {f"loader, {batch}{part}: ours, raw, over ImageFolder": ratio})


def measure_all_cores(work: Path, args: argparse.Namespace) -> None:
    """Time each contender with each number of workers, against the best time of the best-known library."""
    jobs = []
    for name in args.only:
        counts = set(args.workers)
        if name == "ImageFolder":
            counts = {max(counts)}  # its turns take longest, and its best is known
        elif name.startswith(("ffcv", "SPDL")):
            counts = {max(1, count) for count in counts}  # threads
        jobs += [Job(name, ALL_CORES[name], count) for count in sorted(counts)]
    times = race(jobs, work, args)
    known = [job.title for job in jobs if job.name == BEST_KNOWN and job.title in times.quiet]
    like = min(known or [jobs[0].title], key=lambda title: statistics.median(times.quiet[title]))
    show(f"an image, {threads.cores()} cores", times, like)


def show(title: str, times: Times, like: str) -> None:
    pace = {name: f"{1 / statistics.median(seconds):,.0f}" for name, seconds in times.quiet.items()}
    tell(title, times, like, None, {"images/s": pace})


def main() -> None:
    parser = arguments(__doc__, 7)
    parser.add_argument("--work", type=Path, help="folder in which images are made and kept (default: a temporary one)")
    parser.add_argument("--images", type=int, default=4096, help="number of images, 512 or more (default: %(default)s)")
    parser.add_argument("--one-core", action="store_true", help="only the first two tables")
    parser.add_argument("--seconds", type=float, default=1, help="minimum length of a turn (default: %(default)s)")
    parser.add_argument("--only", choices=ALL_CORES, nargs="+", default=list(ALL_CORES), help="contenders on all cores")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="a row each (default: 0 1 2)")
    args = parser.parse_args()
    if args.images < 4 * BATCH or args.rounds < 2:
        parser.error("--images must be at least 512, --rounds at least 2")
    print(f"{machine()}\n{versions()}")
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).absolute() / f"{args.images}-images"
        make_images(work, args.images)
        measure_one_core(work, args)
        if not args.one_core:
            measure_all_cores(work, args)


if __name__ == "__main__":
    main()
