"""The store of a configuration's data set: where it is, what it is known by, how it is made.

`prepare(data)` gives training its store; the embedded set is made on the first call. `make(data)` is what
`src/prepare.py` calls to make one from raw files. Two processes that call at once make it once; an interrupted one
leaves nothing that a later call would take for finished.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from loky import cpu_count

from alexlab.config import ConfigError, DataConfig, Dataset, OnBad, Resize, StoreFormat
from alexlab.data.build import BadImage, build_store, free_bytes, needed_bytes, printable, unfinished
from alexlab.data.shapes import CLASSES, GENERATOR_VERSION, SPLITS, draw_shapes
from alexlab.data.sources import KNOWN, RawError, download, missing, recognise
from alexlab.data.sources.folders import read_folders
from alexlab.data.store import (
    JPEG,
    RAW,
    SUFFIXES,
    Store,
    counts_held_out,
    gigabytes,
    locked,
    open_store,
    read_manifest,
    role_origin,
)
from alexlab.progress import Progress


def fingerprint(data: DataConfig) -> str:
    """What a store's content is known by, as one line: part of every run id.

    Of the embedded set what it follows from, so that it need not be there; of any other its hash.

    Raises:
        ConfigError: where another set's store is not there, or is not what the configuration says.
    """
    if data.name is not Dataset.shapes:
        return f"{data.name.name}-{stored_manifest(data)['hash'][:16]}"
    packed = "-jpeg" if data.format is StoreFormat.jpeg else ""
    return f"{_drawn(data)}{packed}"


def _drawn(data: DataConfig) -> str:
    counts = "+".join(str(count) for count in _counts(data).values())
    return f"{data.name.name}-v{GENERATOR_VERSION}-{data.num_classes}-{counts}-seed{data.files_seed}"


def store_path(data: DataConfig) -> Path:
    """Where the store is, or would be: without a choice of `data.format`, that of the format that is there."""
    if data.root is not None:
        return Path(data.root)
    stretched = "-stretched" if data.resize is Resize.stretch else ""
    stem = Path(data.cache) / "stores" / f"{_set_name(data)}-{data.size}px{stretched}"
    # The embedded set is made where it is not there, so it has one format unless told.
    kinds = [data.format.name] if data.format else [RAW] if data.name is Dataset.shapes else [RAW, JPEG]
    paths = [stem.with_name(f"{stem.name}-{kind}") for kind in kinds]
    return next((path for path in paths if (path / "manifest.json").is_file()), paths[0])


def _set_name(data: DataConfig) -> str:
    if data.name is Dataset.shapes:
        return _drawn(data)
    if data.name is not Dataset.folder:
        return data.name.name
    if data.raw is None:
        raise ConfigError("data.raw=null: data.name=folder needs data.raw=DIR, the images, or data.root=DIR, a store")
    raw = Path(data.raw)
    return f"folder-{raw.name}-{hashlib.sha256(str(raw).encode()).hexdigest()[:6]}"


def has_store(data: DataConfig) -> bool:
    return (store_path(data) / "manifest.json").is_file()


def stored_manifest(data: DataConfig) -> dict:
    """The manifest of a store that must be there, checked against the configuration.

    Raises:
        ConfigError: where it is not there, or not what the configuration says.
    """
    path = store_path(data)
    if not (path / "manifest.json").is_file():
        wanted = {"raw": data.raw or "DIR", "size": data.size, "root": data.root}
        wanted["resize"] = "stretch" if data.resize is Resize.stretch else None
        keys = " ".join(f"data.{key}={value}" for key, value in wanted.items() if value is not None)
        raise ConfigError(
            f"data.name={data.name.name}: has no store at {path}; make it: "
            f"python src/prepare.py data={data.name.name} {keys}"
        )
    try:
        manifest = read_manifest(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for key, mine, theirs in (
        ("data.name", data.name.name, manifest["name"]),
        ("data.size", data.size, manifest["size"]),
        ("data.resize", data.resize.name, manifest["resize"]),
        ("data.format", data.format.name if data.format else None, manifest["format"]),
        ("data.num_classes", data.num_classes, len(manifest["classes"])),
    ):
        if mine is not None and mine != theirs:
            raise ConfigError(f"{key}={mine}: the store {path} has {theirs}; set {key}={theirs} or name another store")
    return manifest


def image_counts(data: DataConfig) -> dict[str, int]:
    """Images of each role, `train`, `val` and `test`; nothing where a store that would tell is not there."""
    if data.name is Dataset.shapes:
        found, held = _counts(data), data.holdout * (data.num_classes or 0)
        return {**found, "train": max(0, found["train"] - held), **({"val": held} if data.holdout else {})}
    if (data.name is Dataset.folder and not (data.raw or data.root)) or not has_store(data):
        return {}
    manifest = stored_manifest(data)
    try:
        found = {role: manifest["images"][role_origin(manifest, role, data.holdout)] for role in SPLITS}
    except ValueError as error:
        raise ConfigError(f"data.name={data.name.name}: {error}") from error
    if data.holdout == 0:
        return found
    kept, held = counts_held_out(store_path(data), manifest["hash"], data.holdout)
    for name, count in zip(manifest["classes"], kept, strict=False):
        if count == 0 and kept.any():
            raise ConfigError(f"data.holdout={data.holdout}: leaves no training image of class {name}; make it smaller")
    return {**found, "train": int(kept.sum()), "val": int(held.sum())}


def described(data: DataConfig) -> dict[str, Any]:
    """What a run's record says of its data: the store, and the images that each role has and where they come from."""
    manifest = read_manifest(store_path(data))
    origins = {role: role_origin(manifest, role, data.holdout) for role in SPLITS}
    if data.holdout:
        origins["train"], origins["val"] = "train, less those held out", f"{data.holdout} of each class of train"
    return {
        "store": fingerprint(data),
        "store_hash": manifest["hash"],
        "format": manifest["format"],
        "source": manifest["source"],
        "images": image_counts(data),
        "from": origins,
        "chosen_on_reported": origins["val"] == origins["test"],
    }


def prepare(data: DataConfig) -> Store:
    """The store to train on; the embedded set's is made where it is not there yet.

    Raises:
        ConfigError: where another set's store is not there.
        ValueError: where the folder holds a store of another format, or of other images.
        OSError: where the cache cannot be written.
    """
    if data.name is not Dataset.shapes:
        stored_manifest(data)
        return open_store(store_path(data))
    path = store_path(data)
    if not has_store(data):
        # One lock for all sizes of a data set, since they are made from the same files.
        with locked(path.parent / f"{_drawn(data)}.lock"):
            if not has_store(data):  # another process may have made it while this one waited
                _make_shapes(data, path)
    store = open_store(path)
    found = {"images": store.manifest["images"], "classes": len(store.classes)}
    wanted = {"images": _counts(data), "classes": data.num_classes}
    if found != wanted:
        raise ValueError(f"{path} holds {found}, not {wanted}: remove it and {_files(data)} to have both made again")
    return store


def _files(data: DataConfig) -> Path:
    return Path(data.cache) / "files" / _drawn(data)


def _counts(data: DataConfig) -> dict[str, int]:
    counts = dict(zip(SPLITS, (data.train_images, data.val_images, data.test_images), strict=True))
    return {split: count for split, count in counts.items() if count is not None}


def _make_shapes(data: DataConfig, path: Path) -> None:
    processes = cpu_count()
    root, counts = _files(data), _counts(data)
    if not root.is_dir():
        half = root.with_suffix(".unfinished")
        shutil.rmtree(half, ignore_errors=True)
        with Progress(f"Drawing the images of '{data.name.name}'", sum(counts.values())) as progress:
            classes = list(CLASSES)[: data.num_classes]
            draw_shapes(half, classes, counts, data.files_seed, processes, progress.advance)
        half.rename(root)
    kind = data.format.name if data.format else RAW
    build_store(read_folders(root), path, data.size, data.name.name, kind, data.resize, True, processes)


def make(data: DataConfig, tell: Callable[[str], object] = print) -> tuple[Store, bool]:
    """The store of `data.name`, made from `data.raw` where it is not there yet, and whether it was made now.

    `tell(line)` gets what is decided on the way.

    Raises:
        ConfigError: where raw files are missing, cut or damaged, with what to do.
        OSError: where the disk is too small or full.
    """
    if data.name is Dataset.shapes:
        is_new = not has_store(data)
        return prepare(data), is_new
    data = replace(data, num_classes=None)  # whatever the files have
    path = store_path(data)
    if not has_store(data):
        _refuse(path, data)
        # One lock for both formats, since without a choice it is not yet known which one it will be.
        with locked(path.with_name(f"{path.name.removesuffix(f'-{RAW}').removesuffix(f'-{JPEG}')}.lock")):
            if not has_store(data):  # another process may have made it while this one waited
                try:
                    _make(data, path.with_name(f"{path.name}.scratch"), tell)
                except (RawError, BadImage) as error:
                    raise ConfigError("\n".join(printable(line) for line in str(error).split("\n"))) from error
                return prepare(data), True
    store = prepare(data)
    if data.on_bad is OnBad.stop and store.manifest["left_out"]:
        raise ConfigError(
            f"data.on_bad=stop: {store.path} was made with {len(store.manifest['left_out'])} files left out; "
            "remove it, or set data.on_bad=report"
        )
    return store, False


def _refuse(path: Path, data: DataConfig) -> None:
    """A place for a store where something else is."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        key = f"data.root={data.root}" if data.root else f"data.cache={data.cache}"
        raise ConfigError(f"{key}: {path} is there and is no store; move it or name a folder that is not there yet")


def _make(data: DataConfig, scratch: Path, tell: Callable[[str], object]) -> None:
    raw, processes = _raw_folder(data, tell), cpu_count()
    source = recognise(data, raw, scratch, processes)
    counts = {split: len(listing) for split, listing in source.splits.items()}
    stops = data.on_bad is OnBad.stop
    tell(f"{raw} holds {source.form}: {', '.join(f'{count} {split} images' for split, count in counts.items())}")
    known = KNOWN[data.name].images
    for split in known:
        if counts.get(split, 0) != known[split]:
            line = f"{split}: {counts.get(split, 0)} images, where {data.name.name} is known to have {known[split]}"
            if stops:
                raise RawError(f"{line}; data.on_bad=report goes on with what there is")
            source.warnings.append(line)
    if stops and source.left_out:
        split, name, reason = source.left_out[0]
        raise RawError(f"{name} of {split or 'the raw files'}: {reason}; remove it, or set data.on_bad=report")
    kind, path = _place(data, sum(counts.values()), tell)
    build_store(source, path, data.size, data.name.name, kind, data.resize, stops, processes, known, str(raw))
    shutil.rmtree(scratch, ignore_errors=True)


def _place(data: DataConfig, images: int, tell: Callable[[str], object]) -> tuple[str, Path]:
    """The format and folder of a store to be made: a chosen format, or the one begun before, or the larger that fits.

    Raises:
        OSError: where there is no room for it.
    """
    kinds = [data.format.name] if data.format else [RAW, JPEG]
    paths = {kind: store_path(replace(data, format=StoreFormat[kind])) for kind in kinds}
    free = free_bytes(next(iter(paths.values())))
    for kind in kinds:
        begun = unfinished(paths[kind])
        images_file = begun / f"train{SUFFIXES[kind]}"
        if images_file.is_file():
            held = sum(file.stat().st_blocks * 512 for file in begun.iterdir())
            needed = max(0, needed_bytes(images, data.size, kind) - held)
            if needed > free:
                raise OSError(f"{begun}: goes on with {gigabytes(needed)} more, {gigabytes(free)} are free; free some")
            tell(f"Going on with {begun}")
            return kind, paths[kind]
    sizes = {kind: needed_bytes(images, data.size, kind) for kind in kinds}
    for kind in kinds:
        if sizes[kind] <= free:
            others = "".join(f"; {other} would take {gigabytes(sizes[other])}" for other in kinds if other != kind)
            tell(f"Format {kind}: {gigabytes(sizes[kind])} of {gigabytes(free)} free{others}")
            return kind, paths[kind]
    needs = " or ".join(f"{gigabytes(size)} as {kind}" for kind, size in sizes.items())
    raise OSError(
        f"data.cache={data.cache}: {images} images at {data.size} px need {needs}, {gigabytes(free)} are free; "
        "set data.cache to another disk or make data.size smaller"
    )


def _raw_folder(data: DataConfig, tell: Callable[[str], object]) -> Path:
    """The folder of raw files: the one named, or the cache's own, fetched where that is allowed."""
    if data.raw is not None:
        return Path(data.raw)
    known = KNOWN[data.name]
    if not known.download:
        raise RawError(missing(data, None))
    raw = Path(data.cache) / "files" / data.name.name
    done = raw / "fetched"  # else an interrupted download would be taken for what there is
    if not done.is_file():
        tell(f"Fetching {data.name.name} into {raw}")
        for folder in raw.glob("*/"):  # half unpacked, which torchvision would take for whole
            shutil.rmtree(folder)
        download(data, raw)
        done.touch()
    return raw
