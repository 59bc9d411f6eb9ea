"""The known data sets, and the layouts in which their source files come."""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from alexlab.config import DataConfig, Dataset
from alexlab.data.sources import cifar
from alexlab.data.sources.folders import (
    KAGGLE_LABELS,
    find_kaggle,
    find_train,
    is_tiny_imagenet,
    read_folders,
    read_kaggle,
    read_tiny_imagenet,
)
from alexlab.data.sources.parquet import find_shards, read_parquet
from alexlab.data.sources.source import RawError, Source, is_ignored, warn_of_empty
from alexlab.data.sources.tars import TARS_2010, TARS_2012, Tars, find_kit, members, read_kit, read_split_tar, read_tars
from alexlab.errors import one_line
from alexlab.files import sync_file, sync_folder

_MAX_RATIO = 50  # of a tar's size to its compressed size; images hardly compress
_MIN_TAR = 100 * 2**20  # bytes: smaller tars may have any ratio


@dataclass(frozen=True)
class Known:
    """The published facts of a data set."""

    classes: int | None  # None: as many as there are
    images: dict[str, int]  # in its splits, as published
    needs: str  # the raw files, with their sizes, and where to get them
    download: str = ""  # the class of torchvision that fetches it, if its licence allows that


KNOWN = {
    Dataset.imagenet2012: Known(
        1000,
        {"train": 1281167, "val": 50000},
        """\
  ILSVRC2012_img_train.tar        138 GB
  ILSVRC2012_img_val.tar          6.3 GB
  ILSVRC2012_devkit_t12.tar.gz    2.5 MB
from image-net.org (free for research, after registration), or one of these:
  Kaggle's ILSVRC/ folder with LOC_val_solution.csv next to it   (imagenet-object-localization-challenge, 167 GB)
  Hugging Face's parquet shards train-*.parquet, validation-*.parquet   (imagenet-1k, 157 GB)
  a folder of train/<class>/ and val/<class>/ images""",
    ),
    Dataset.imagenet2010: Known(
        1000,
        {"train": 1261406, "val": 50000, "test": 150000},
        """\
  ILSVRC2010_images_train.tar          124 GB
  ILSVRC2010_images_val.tar            about 6 GB
  ILSVRC2010_images_test.tar           about 18 GB
  ILSVRC2010_devkit-1.0.tar.gz         under 1 MB
  ILSVRC2010_test_ground_truth.txt     under 1 MB
  patch_images.tar                     optional: repaired images, which replace those of the same names
from image-net.org (free for research, after registration), or a folder of train/, val/ and test/<class>/ images""",
    ),
    Dataset.imagenette: Known(
        10,
        {"train": 9469, "val": 3925},
        """\
  imagenette2.tgz    1.5 GB   (or imagenette2-320.tgz, 326 MB; imagenette2-160.tgz, 94 MB), packed or unpacked
from github.com/fastai/imagenette; without data.raw it is fetched from there""",
        "Imagenette",
    ),
    Dataset.cifar10: Known(
        10,
        {"train": 50000, "test": 10000},
        """\
  cifar-10-python.tar.gz    163 MB, packed or unpacked
from cs.toronto.edu/~kriz/cifar.html; without data.raw it is fetched from there. Or copies made by others:
  a folder of train/<class>/ and test/<class>/ images, PNG or JPEG""",
        "CIFAR10",
    ),
    Dataset.folder: Known(
        None,
        {},
        "  a folder of train/<class>/ and val/<class>/ images (test/ too, if there is one), Tiny ImageNet's folders, "
        "or parquet shards with the columns image and label",
    ),
}


def recognise(data: DataConfig, raw: Path, scratch: Path, processes: int) -> Source:
    """The source that `raw` holds for a data set; a compressed tar is decompressed into `scratch`.

    Raises:
        RawError: with the name of what is missing, truncated or corrupt.
    """
    source = _recognised(data, raw, scratch, processes)
    warn_of_empty(source)
    known = KNOWN[data.name].classes
    if known is not None and len(source.classes) != known:
        source.warnings.append(f"{len(source.classes)} classes, where {data.name.name} is known to have {known}")
    if not {"val", "test"} & set(source.splits):
        source.warnings.append("neither val nor test: there is nothing to report on, so no run can use it")
    return source


def _recognised(data: DataConfig, raw: Path, scratch: Path, processes: int) -> Source:
    if data.name is Dataset.cifar10:
        if any((raw / name).exists() for name in (cifar.ARCHIVE, cifar.FOLDER, "batches.meta")):
            return cifar.read_cifar(raw)
        folder = find_train(raw)
        if (folder / "train").is_dir():
            return cifar.read_cifar_folders(folder)
        raise RawError(missing(data, raw))
    tars = {Dataset.imagenet2012: TARS_2012, Dataset.imagenet2010: TARS_2010}.get(data.name)
    if tars is not None and (raw / tars.train).is_file():
        return read_tars(raw, tars, processes)
    if data.name is Dataset.imagenet2012 and (kaggle := find_kaggle(raw)) is not None:
        return read_kaggle(*kaggle)
    if data.name is Dataset.imagenette:
        for name in ("imagenette2", "imagenette2-320", "imagenette2-160"):  # the largest that is there
            if (raw / name / "train").is_dir():
                return read_folders(raw / name)
            if (raw / f"{name}.tgz").is_file():
                return read_split_tar(_decompressed(raw / f"{name}.tgz", scratch), raw / f"{name}.tgz")
    if data.name is Dataset.folder and is_tiny_imagenet(folder := find_train(raw)):
        return read_tiny_imagenet(folder)
    if (raw / "train").is_dir() and not any(not is_ignored(path.name) for path in (raw / "train").glob("*.parquet")):
        if tars is TARS_2012 and (raw / KAGGLE_LABELS).is_file():
            return read_kaggle(raw, raw / KAGGLE_LABELS)
        return read_folders(raw, _labels_beside(raw, tars) if tars else None)
    shards = find_shards(raw) if data.name in (Dataset.imagenet2012, Dataset.folder) else {}
    if shards:
        return read_parquet(raw, shards)
    if tars is not None and ((raw / tars.val).exists() or find_kit(raw, tars)):
        return read_tars(raw, tars, processes)  # which reports the missing ones
    raise RawError(missing(data, raw))


def missing(data: DataConfig, raw: Path | None) -> str:
    """A message: which files are needed, where to get them, and the command to run."""
    name = data.name.name
    if raw is None:
        found = f"must be the folder of {name}'s raw files"
    elif raw.is_file():
        found = f"is a file; name its folder, {raw.parent}"
    elif not raw.is_dir():
        found = "there is no such folder"
    else:
        paths = sorted(raw.iterdir())
        held = ", ".join(path.name for path in paths[:6]) or "nothing"
        found = f"has no raw files of {name}; it holds {held}"
        if data.name is Dataset.folder and paths and all(path.is_dir() for path in paths):
            found += "; if these are classes, move nine tenths of each into train/ and the rest into val/"
    return (
        f"data.raw={raw or 'null'}: {found}. Needed:\n"
        f"{KNOWN[data.name].needs}.\n"
        f"Then: python src/prepare.py data={name} data.raw=DIR"
    )


def download(data: DataConfig, raw: Path) -> None:
    """Download a data set whose licence allows it, with torchvision, which verifies it.

    Raises:
        RawError: if it cannot be fetched.
    """
    fetcher = KNOWN[data.name].download
    try:
        from torchvision import datasets
    except ImportError as error:
        raise RawError(f"data.name={data.name.name}: torchvision downloads it; pip install torchvision") from error
    try:
        raw.mkdir(parents=True, exist_ok=True)
        getattr(datasets, fetcher)(str(raw), download=True)
    except (OSError, RuntimeError) as error:
        why = one_line(error)
        raise RawError(f"{data.name.name} could not be fetched ({why}).\n{missing(data, raw)}") from error


def _labels_beside(raw: Path, tars: Tars) -> dict[str, str] | None:
    """Labels of a flat validation folder, from a development kit next to it."""
    kit = find_kit(raw, tars)
    if kit is None:
        return None
    classes = read_kit(kit, tars.prefix).val_classes
    return {f"{tars.prefix}_val_{number:08d}": name for number, name in enumerate(classes, 1)}


def _decompressed(path: Path, scratch: Path) -> Path:
    """The tar inside a compressed one, which cannot be read from the middle."""
    status = path.stat()
    plain = scratch / f"{path.stem}-{status.st_size}-{status.st_mtime_ns}.tar"
    if plain.is_file():
        return plain
    shutil.rmtree(scratch, ignore_errors=True)  # of another archive, or incomplete
    scratch.mkdir(parents=True)
    free = shutil.disk_usage(scratch).free
    limit = max(_MIN_TAR, _MAX_RATIO * status.st_size)
    temporary, written = plain.with_suffix(".tmp"), 0
    try:
        with gzip.open(path) as packed, temporary.open("wb") as file:
            while block := packed.read(2**20):
                written += len(block)
                if written > limit:
                    raise RawError(f"it decompresses to more than {_MAX_RATIO} times its size")
                if written > free:
                    raise OSError(f"{scratch}: the disk has no space for the decompressed {path}; free some")
                file.write(block)
        deque(members(temporary), maxlen=0)
    except (EOFError, gzip.BadGzipFile, zlib.error, RawError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise RawError(f"{path}: is truncated or corrupt ({error}); fetch it again") from error
    sync_file(temporary)  # or a power cut could leave the complete name with part of the content
    temporary.replace(plain)
    sync_folder(scratch)
    return plain


__all__ = ["KNOWN", "RawError", "download", "missing", "recognise"]
