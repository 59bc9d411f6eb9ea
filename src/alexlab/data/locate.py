"""The store of a configuration's data set: its path, its fingerprint, how it is made.

`prepare(data)` returns the store that training reads; the embedded set is made on the first call. `make(data)` is what
`src/prepare.py` calls to make one from source files. Concurrent calls make it once; an interrupted one
leaves nothing that a later call mistakes for a finished store.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from loky import cpu_count

from alexlab.config import CONF_DIR, ConfigError, DataConfig, Dataset, OnBad, Resize, StoreFormat
from alexlab.data.build import BadImage, build_store, free_bytes, needed_bytes, printable, unfinished
from alexlab.data.changes import describe_changes, input_states, read_states
from alexlab.data.shapes import CLASSES, GENERATOR_VERSION, draw_shapes
from alexlab.data.sources import KNOWN, RawError, download, missing, recognise
from alexlab.data.sources.folders import read_folders
from alexlab.data.store import (
    JPEG,
    SOURCE_FILES,
    SPLITS,
    SUFFIXES,
    UINT8,
    Store,
    counts_held_out,
    gigabytes,
    locked,
    open_store,
    read_manifest,
    role_origin,
)
from alexlab.progress import Progress
from alexlab.tree import read_yaml, yaml_files


def fingerprint(data: DataConfig) -> str:
    """One line that identifies a store's content: part of every run id.

    For the embedded set, the settings that determine it, so that it need not exist yet; for any other set, its hash.

    Raises:
        ConfigError: if another set's store does not exist, or does not match the configuration.
    """
    if data.name is not Dataset.shapes:
        return f"{data.name.name}-{stored_manifest(data)['hash'][:16]}"
    packed = "-jpeg" if data.format is StoreFormat.jpeg else ""
    return f"{_drawn(data)}{packed}"


def _drawn(data: DataConfig) -> str:
    counts = "+".join(str(count) for count in _counts(data).values())
    return f"{data.name.name}-v{GENERATOR_VERSION}-{data.num_classes}-{counts}-seed{data.files_seed}"


def store_path(data: DataConfig) -> Path:
    """The path of the store, which need not exist; without `data.format`, the path of the format that exists."""
    if data.root is not None:
        return Path(data.root)
    stretched = "-stretched" if data.resize is Resize.stretch else ""
    stem = Path(data.cache) / "stores" / f"{_set_name(data)}-{data.size}px{stretched}"
    # The embedded set is made if it does not exist, so it has one format by default.
    kinds = [data.format.name] if data.format else [UINT8] if data.name is Dataset.shapes else [UINT8, JPEG]
    paths = [stem.with_name(f"{stem.name}-{kind}") for kind in kinds]
    return next((path for path in paths if (path / "manifest.json").is_file()), paths[0])


def _set_name(data: DataConfig) -> str:
    if data.name is Dataset.shapes:
        return _drawn(data)
    if data.name is not Dataset.folder:
        return data.name.name
    if data.raw is None:
        raise ConfigError("data.raw=null: data.name=folder needs data.raw=DIR (images) or data.root=DIR (a store)")
    raw = Path(data.raw)
    return f"folder-{raw.name}-{hashlib.sha256(str(raw).encode()).hexdigest()[:6]}"


def has_store(data: DataConfig) -> bool:
    return (store_path(data) / "manifest.json").is_file()


def stored_manifest(data: DataConfig) -> dict:
    """The manifest of a store that must exist, checked against the configuration.

    Raises:
        ConfigError: if it does not exist, or does not match the configuration.
    """
    path = store_path(data)
    if not (path / "manifest.json").is_file():
        wanted = {"raw": data.raw or "DIR", "size": data.size, "root": data.root}
        wanted["resize"] = "stretch" if data.resize is Resize.stretch else None
        keys = " ".join(_typed(f"data.{key}", str(value)) for key, value in wanted.items() if value is not None)
        raise ConfigError(
            f"data.name={data.name.name}: has no store at {path}; {_other_sizes(data)}make it: "
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
            raise ConfigError(f"{key}={mine}: the store {path} has {theirs}; set {key}={theirs} or use another store")
    return manifest


def _typed(key: str, value: str) -> str:
    """An override quoted for a shell; Hydra needs quotes of its own around all but plain characters and spaces."""
    is_plain = re.fullmatch(r"[\w./ +%@-]+", value, re.ASCII)
    return shlex.quote(f"{key}={value}" if is_plain else f'{key}="{value}"')


def _other_sizes(data: DataConfig) -> str:
    """A hint: the data set's stores of other sizes, with recipes for them; or that its recipe has another size.

    A user who prepared `data=imagenette` and trains with the same override gets the demo's recipe, at another size.
    """
    if data.root is not None:
        return ""
    found = {}
    for path in sorted(store_path(data).parent.glob(f"{escape(_set_name(data))}-*px-*/manifest.json")):
        with suppress(ValueError):
            manifest = read_manifest(path.parent)
            if manifest["name"] == data.name.name and manifest["resize"] == data.resize.name:
                found[manifest["size"]] = None
    if not found and not _recipes_of(data.name, data.size) and (CONF_DIR / f"recipe/{data.name.name}.yaml").is_file():
        return f"recipe={data.name.name} takes another size; "
    sizes = {size: _recipes_of(data.name, size) or [f"data.size={size}"] for size in sorted(found)}
    return "".join(f"there is one of {size} px, for {' or '.join(words)}; " for size, words in sizes.items())


def _recipes_of(name: Dataset, size: int) -> list[str]:
    """The recipes of a data set and an image size: `recipe=imagenette`."""
    found = []
    for path in yaml_files(CONF_DIR / "recipe"):
        content = read_yaml(path)
        recipe_size = (content.get("data") or {}).get("size", DataConfig().size)
        if {"override /data": name.name} in content["defaults"] and recipe_size == size:
            found.append(f"recipe={path.stem}")
    return found


def image_counts(data: DataConfig) -> dict[str, int]:
    """Number of images of each role, `train`, `val` and `test`; empty if that needs a store that does not exist."""
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
    for name, count, held_count in zip(manifest["classes"], kept, held, strict=False):
        if count == 0 and held_count > 0 and kept.any():
            raise ConfigError(f"data.holdout={data.holdout}: leaves no training image of class {name}; make it smaller")
    return {**found, "train": int(kept.sum()), "val": int(held.sum())}


def described(data: DataConfig) -> dict[str, Any]:
    """The data of a run for its record: the store, its classes, the images of each role and where they come from."""
    manifest = read_manifest(store_path(data))
    origins = {role: role_origin(manifest, role, data.holdout) for role in SPLITS}
    if data.holdout:
        origins["train"], origins["val"] = "train, less those held out", f"{data.holdout} of each class of train"
    return {
        "store": fingerprint(data),
        "store_hash": manifest["hash"],
        "format": manifest["format"],
        "source": manifest["source"],
        "classes": manifest["classes"],
        "images": image_counts(data),
        "from": origins,
        "chosen_on_reported": origins["val"] == origins["test"],
    }


def prepare(data: DataConfig) -> Store:
    """The store to train on; the embedded set's is made if it does not exist yet.

    Raises:
        ConfigError: if another set's store does not exist.
        ValueError: if the folder holds a store of another format, or of other images.
        OSError: if the cache cannot be written.
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
    kind = data.format.name if data.format else UINT8
    was_drawn = _files(data).is_dir()
    try:
        source = read_folders(_drawn_files(data))
        build_store(source, path, data.size, data.name.name, kind, data.resize, True, cpu_count())
    except (BadImage, RawError):
        if not was_drawn:
            raise
        shutil.rmtree(_files(data))  # a power cut after drawing them may have left some empty
        _make_shapes(data, path)


def _drawn_files(data: DataConfig) -> Path:
    """The folder of the embedded set's images, which are drawn if it does not exist."""
    root, counts = _files(data), _counts(data)
    if not root.is_dir():
        temporary = root.with_suffix(".unfinished")
        shutil.rmtree(temporary, ignore_errors=True)
        with Progress(f"Drawing the images of '{data.name.name}'", sum(counts.values())) as progress:
            classes = list(CLASSES)[: data.num_classes]
            draw_shapes(temporary, classes, counts, data.files_seed, cpu_count(), progress.advance)
        temporary.rename(root)
    return root


def make(data: DataConfig, report_line: Callable[[str], object] = print, refresh: bool = False) -> tuple[Store, bool]:
    """The store of `data.name`, made from `data.raw` if it does not exist, and whether this call made it.

    With `refresh` an existing one is replaced if its source files have changed since. `report_line(line)` gets a line
    for each decision.

    Raises:
        ConfigError: if source files are missing, truncated or corrupt, with the fix.
        OSError: if the disk is too small or full.
    """
    if data.name is Dataset.shapes:
        if refresh:
            raise ConfigError("--refresh: the embedded data set has no source files that could change")
        is_new = not has_store(data)
        return prepare(data), is_new
    data = replace(data, num_classes=None)  # as many as the source files have
    path = store_path(data)
    if refresh or not has_store(data):
        if not has_store(data):
            _refuse(path, data)
        # One lock for both formats, since the format may not be chosen yet.
        with locked(path.with_name(f"{path.name.removesuffix(f'-{UINT8}').removesuffix(f'-{JPEG}')}.lock")):
            store = prepare(data) if has_store(data) else None  # another process may have just made it
            if store is None or (refresh and (source_changes(data, store) or not has_source_files(store))):
                chosen = data if store is None else replace(data, format=StoreFormat[store.manifest["format"]])
                try:
                    _make(chosen, path.with_name(f"{path.name}.scratch"), report_line)
                except (RawError, BadImage) as error:
                    raise ConfigError("\n".join(printable(line) for line in str(error).split("\n"))) from error
                return prepare(chosen), True
    store = prepare(data)
    if data.on_bad is OnBad.stop and store.manifest["left_out"]:
        raise ConfigError(
            f"data.on_bad=stop: {store.path} was made with {len(store.manifest['left_out'])} files left out; "
            "remove it, or set data.on_bad=report"
        )
    return store, False


def has_source_files(store: Store) -> bool:
    """Whether a store has a list of the files that it was made from."""
    return (store.path / SOURCE_FILES).is_file()


def source_changes(data: DataConfig, store: Store) -> str:
    """The changes of the files in `data.raw` since a store was made from them; empty without.

    Raises:
        ConfigError: if the store's list of them is corrupt.
    """
    if not has_source_files(store):
        return ""
    try:
        before = read_states(store.path / SOURCE_FILES)
    except ValueError as error:
        raise ConfigError(f"{error}; remove the store to have it made again") from error
    raw = Path(data.raw or f"{data.cache}/files/{data.name.name}").absolute()
    # Only paths below it: the list of an untrusted store may name any path.
    return printable(
        describe_changes({path: files for path, files in before.items() if Path(path).is_relative_to(raw)})
    )


def _refuse(path: Path, data: DataConfig) -> None:
    """Refuse a path for a store if something else is there."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        key = f"data.root={data.root}" if data.root else f"data.cache={data.cache}"
        raise ConfigError(f"{key}: {path} exists and is not a store; move it or name a folder that does not exist yet")


def _make(data: DataConfig, scratch: Path, report_line: Callable[[str], object]) -> None:
    raw, processes = _raw_folder(data, report_line), cpu_count()
    source = recognise(data, raw, scratch, processes)
    counts = {split: len(listing) for split, listing in source.splits.items()}
    stops = data.on_bad is OnBad.stop
    report_line(f"{raw} holds {source.form}: {', '.join(f'{count} {split} images' for split, count in counts.items())}")
    known = KNOWN[data.name].images
    for split in known:
        if counts.get(split, 0) != known[split]:
            line = f"{split}: {counts.get(split, 0)} images, where {data.name.name} is known to have {known[split]}"
            if stops:
                raise RawError(f"{line}; data.on_bad=report uses what there is")
            source.warnings.append(line)
    if stops and source.left_out:
        split, name, reason = source.left_out[0]
        raise RawError(f"{name} of {split or 'the raw files'}: {reason}; remove it, or set data.on_bad=report")
    if source.lost_classes and data.on_bad is not OnBad.ignore:
        raise RawError(f"{source.lost_classes[0]}; convert or remove them, or set data.on_bad=ignore")
    kind, path = _choose_path(data, sum(counts.values()), report_line)
    build_store(
        source,
        path,
        data.size,
        data.name.name,
        kind,
        data.resize,
        stops,
        processes,
        known,
        str(raw),
        input_states(source.inputs),
        data.on_bad is OnBad.ignore,
    )
    shutil.rmtree(scratch, ignore_errors=True)


def _choose_path(data: DataConfig, images: int, report_line: Callable[[str], object]) -> tuple[str, Path]:
    """Format and path of a store to be made: the chosen format, or an unfinished store's, or the larger that fits.

    Raises:
        OSError: if the disk has no space for it.
    """
    kinds = [data.format.name] if data.format else [UINT8, JPEG]
    paths = {kind: store_path(replace(data, format=StoreFormat[kind])) for kind in kinds}
    free = free_bytes(next(iter(paths.values())))
    for kind in kinds:
        started = unfinished(paths[kind])
        images_file = started / f"train{SUFFIXES[kind]}"
        if images_file.is_file():
            held = sum(file.stat().st_blocks * 512 for file in started.iterdir())
            needed = max(0, needed_bytes(images, data.size, kind) - held)
            if needed > free:
                raise OSError(f"{started}: needs {gigabytes(needed)} more, {gigabytes(free)} are free; free up space")
            report_line(f"Resuming {started}")
            return kind, paths[kind]
    sizes = {kind: needed_bytes(images, data.size, kind) for kind in kinds}
    for kind in kinds:
        if sizes[kind] <= free:
            others = "".join(f"; {other} would take {gigabytes(sizes[other])}" for other in kinds if other != kind)
            report_line(f"Format {kind}: {gigabytes(sizes[kind])} of {gigabytes(free)} free{others}")
            return kind, paths[kind]
    needs = " or ".join(f"{gigabytes(size)} as {kind}" for kind, size in sizes.items())
    raise OSError(
        f"data.cache={data.cache}: {images} images at {data.size} px need {needs}, {gigabytes(free)} are free; "
        "set data.cache to another disk or make data.size smaller"
    )


def _raw_folder(data: DataConfig, report_line: Callable[[str], object]) -> Path:
    """The folder of source files: data.raw, or the cache's own, downloaded if the licence allows that."""
    if data.raw is not None:
        return Path(data.raw)
    known = KNOWN[data.name]
    if not known.download:
        raise RawError(missing(data, None))
    raw = Path(data.cache) / "files" / data.name.name
    done = raw / "fetched"  # otherwise an interrupted download would be mistaken for a complete one
    if not done.is_file():
        report_line(f"Fetching {data.name.name} into {raw}")
        for folder in raw.glob("*/"):  # partly unpacked, which torchvision would mistake for complete
            shutil.rmtree(folder)
        download(data, raw)
        os.sync()  # or a power cut could leave this mark with empty files
        done.touch()
    return raw
