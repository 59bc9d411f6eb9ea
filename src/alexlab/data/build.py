"""Make a store from a source on all cores; if interrupted at any point, the next call resumes and gives the same bytes.

Worker processes convert parts of a split, and this process adds them in a fixed order. Every few parts the number
added is written atomically to `progress.npz`; the next call drops what was added after that and resumes from there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import time
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import simplejpeg
from PIL import Image, features

from alexlab.config import Resize
from alexlab.data.changes import FileStates
from alexlab.data.decode import Unreadable, read_square, square
from alexlab.data.parallel import in_order
from alexlab.data.sources.source import LeftOut, Part, Source
from alexlab.data.store import (
    DIGEST_BYTES,
    FORMAT_VERSION,
    JPEG,
    SOURCE_FILES,
    SUFFIXES,
    UINT8,
    digest,
    gigabytes,
    positions_hash,
    principal_components,
    rename_folder,
    store_hash,
)
from alexlab.files import TEMPORARY, sync_file, sync_folder, write_atomic
from alexlab.progress import Progress

JPEG_QUALITY = 90
JPEG_BYTES_PER_PIXEL = 0.55  # upper bound at that quality, averaged over photographs: 35 KiB at 256 pixels
PENDING, KEPT, LEFT_OUT = 0, 1, 2
_PARTS = ("state", "content", "stored", "places")  # "places": positions, as they are called on disk
_TEMPORARY = re.compile(rf"\w+\.part|notes\.jsonl|progress(\.half)?\.npz|manifest\.half|{TEMPORARY.pattern}")
_OURS = re.compile(
    rf"{_TEMPORARY.pattern}|manifest\.json|source_files\.json|mean\.npy|(train|val|test)(\.npy|\.jpegs|_\w+\.(npy|txt))"
)
SECONDS_BETWEEN_CHECKPOINTS = 20.0


class BadImage(ValueError):
    """A file cannot be stored and `stop_on_bad` is set, or no file of a class can be stored."""


@dataclass
class Sums:
    """Sums over training images, of integers; exact below 2**53, so that the order of addition makes no difference.

    ImageNet's `outer` may pass that from 329 pixels on; it is then rounded, but the same each time, since parts are
    added in a fixed order.
    """

    image: np.ndarray  # int64 [S, S, 3]
    outer: np.ndarray  # float64 [3, 3], of integers
    count: int = 0

    def add(self, other: Sums) -> None:
        self.image += other.image
        self.outer += other.outer
        self.count += other.count


def no_sums(size: int) -> Sums:
    return Sums(np.zeros((size, size, 3), np.int64), np.zeros((3, 3)))


@dataclass(frozen=True)
class _Target:
    """Where and how a part's images are stored."""

    file: Path
    header: int  # bytes before the first row of an array's file
    kind: str
    size: int
    resize: Resize
    adds_to_sums: bool


@dataclass
class _Converted:
    """A converted part; each list has an entry per image."""

    sums: Sums
    content: list[bytes] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    kinds: list[list[str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # empty: kept
    jpegs: list[bytes] = field(default_factory=list)


def _convert(part: Part, rows: np.ndarray, names: list[str], target: _Target) -> _Converted:
    """Read, decode, resize; pixels are written to their rows here, JPEGs returned to be packed."""
    size = target.size
    done = _Converted(no_sums(size))
    channels = np.empty((3, size * size))
    total = np.zeros((size, size, 3), np.uint32)  # holds 16 million images
    with target.file.open("r+b") as file:
        for row, name, item in zip(rows, names, part.read(), strict=True):
            kinds: list[str] = []
            content, pixels, reason = item.content, None, item.reason
            if isinstance(content, bytes):
                try:
                    pixels, kinds = read_square(content, name, size, target.resize)
                except Unreadable as error:
                    reason = str(error)
            elif content is not None:
                content = np.ascontiguousarray(content)
                pixels = square(Image.fromarray(content), size, target.resize)
            done.content.append(digest(b"" if content is None else content))
            done.kinds.append(kinds)
            done.reasons.append(reason)
            if pixels is None:
                done.stored.append(bytes(DIGEST_BYTES))
                done.jpegs.append(b"")
                continue
            pixels = np.ascontiguousarray(pixels)
            if target.adds_to_sums:
                _add(done.sums, pixels, channels, total)
            if target.kind == UINT8:
                _write_at(file.fileno(), pixels.data.cast("B"), target.header + int(row) * pixels.nbytes)
                done.stored.append(digest(pixels))
            else:
                done.jpegs.append(simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, "RGB", "420", fastdct=False))
                done.stored.append(digest(done.jpegs[-1]))
    done.sums.image += total
    return done


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data`: a disk that gets full takes a part of it first, and raises at the next write only."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _add(sums: Sums, pixels: np.ndarray, channels: np.ndarray, total: np.ndarray) -> None:
    total += pixels
    # Six dot products of channels are three times faster than a product of thin matrices, and also exact.
    np.copyto(channels, pixels.reshape(-1, 3).T, casting="unsafe")
    for i in range(3):
        for j in range(i, 3):
            product = channels[i] @ channels[j]
            sums.outer[i, j] += product
            sums.outer[j, i] += product if i != j else 0
    sums.count += 1


def unfinished(path: Path) -> Path:
    """The folder of a store until it is finished."""
    return path.with_name(f"{path.name}.unfinished")


def needed_bytes(images: int, size: int, kind: str) -> int:
    """The disk space of a store of that many images, including lists and statistics."""
    per_pixel = 3 if kind == UINT8 else JPEG_BYTES_PER_PIXEL
    return int(images * (size * size * per_pixel + 256)) + 2**23


def free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def build_store(
    source: Source,
    path: Path,
    size: int,
    name: str,
    kind: str = UINT8,
    resize: Resize = Resize.crop,
    stop_on_bad: bool = False,
    processes: int = 1,
    known: dict[str, int] | None = None,
    raw: str | None = None,
    source_files: dict[str, FileStates] | None = None,
    allow_lost_classes: bool = False,
    seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS,
) -> None:
    """Make a store at `path`; works in `<path>.unfinished` and resumes an interrupted call's work there.

    The manifest records `known`, the published number of images of each split, `raw`, the folder of the source files,
    and `source_files`, their states.

    Raises:
        BadImage: with the name of a file that cannot be stored: with `stop_on_bad` for any; otherwise if no file of its
            class can be, unless `allow_lost_classes` is set, or no file at all.
        OSError: if the disk is full; finished parts are kept.
    """
    work = unfinished(path)
    plan = _Plan(source, size, kind, resize)
    request = hashlib.sha256(repr((plan.hash, stop_on_bad, allow_lost_classes)).encode()).hexdigest()
    if not _is_finished(work, request):  # else only the last rename is missing
        work.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        builder = None
        try:
            builder = _Builder(plan, work, stop_on_bad, processes, seconds_between_checkpoints)
            builder.run()
            facts = {"name": name, "raw": raw, "known_images": known or {}, "request": request}
            builder.finish(facts, source_files or {}, allow_lost_classes, started)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            total = sum(len(listing) for listing in source.splits.values())
            saved = builder.saved if builder else 0
            rest = gigabytes(needed_bytes(total - saved, size, kind))
            raise OSError(
                f"{work}: the disk is full ({error.strerror}); free about {rest}, then run the same command "
                f"again; it resumes from image {saved} of {total}"
            ) from error
        finally:
            if builder is not None:
                builder.close()
    for file in work.iterdir():
        if _TEMPORARY.fullmatch(file.name):
            file.unlink()
    sync_folder(work)
    replaced = path.with_name(f"{path.name}.replaced")
    if (path / "manifest.json").is_file():  # a store of other source files
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
    rename_folder(work, path)
    shutil.rmtree(replaced, ignore_errors=True)


def _is_finished(work: Path, request: str) -> bool:
    """Whether an earlier call of the same request was interrupted between its manifest and the last rename."""
    try:
        return json.loads((work / "manifest.json").read_text(encoding="utf-8")).get("request") == request
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class _Plan:
    """The images of a store and how they are stored, in the order in which they are converted."""

    source: Source
    size: int
    kind: str
    resize: Resize

    @cached_property
    def parts(self) -> list[tuple[str, np.ndarray]]:
        """Split and rows of each part."""
        splits = self.source.splits.items()
        return [(split, rows) for split, listing in splits for rows in listing.locations.parts() if len(rows)]

    @cached_property
    def hash(self) -> str:
        found = hashlib.sha256(repr((self.source.classes, self.size, self.kind, self.resize.name)).encode())
        for split, listing in self.source.splits.items():
            found.update(f"{split} {len(listing)}".encode())
            found.update(np.ascontiguousarray(listing.labels).data)
            for name in listing.names:
                found.update(name.encode(errors="surrogateescape") + b"\n")
            for state in listing.locations.state():
                found.update(state)
        for _, rows in self.parts:
            found.update(np.ascontiguousarray(rows, np.int64).data)
        return found.hexdigest()


class _Builder:
    """An unfinished store."""

    def __init__(
        self, plan: _Plan, work: Path, stop_on_bad: bool, processes: int, seconds_between_checkpoints: float
    ) -> None:
        self._source, self._size, self._kind, self._resize = plan.source, plan.size, plan.kind, plan.resize
        self._work = work
        self._stop_on_bad, self._processes = stop_on_bad, processes
        self._seconds = seconds_between_checkpoints
        self._plan, self._plan_hash = plan.parts, plan.hash
        self._parts_done, self._sums = 0, no_sums(plan.size)
        self._packed = dict.fromkeys(plan.source.splits, 0)  # bytes of JPEGs so far
        self.saved = 0  # images after which a later call would resume
        self.total = sum(len(listing) for listing in plan.source.splits.values())
        self._open()

    @property
    def done(self) -> int:
        return sum(len(rows) for _, rows in self._plan[: self._parts_done])

    def _file(self, name: str) -> Path:
        return self._work / name

    def _open(self) -> None:
        """Resume from `progress.npz` if it is of the same images in the same order, otherwise start over."""
        saved = self._saved()
        is_new = saved is None or str(saved["plan"]) != self._plan_hash
        foreign = [file.name for file in self._work.iterdir() if not _OURS.fullmatch(file.name)]
        if foreign:
            raise BadImage(f"{self._work}: holds {foreign[0]}, which is not a store's; move it or use another folder")
        if self._file("manifest.json").is_file():  # of another request; it would make what is left of that a store
            self._file("manifest.json").unlink()
            sync_folder(self._work)
        if is_new:
            for file in self._work.iterdir():
                file.unlink()
        self._state: dict[str, np.ndarray] = {}
        self._content: dict[str, np.ndarray] = {}
        self._stored: dict[str, np.ndarray] = {}
        self._positions: dict[str, np.ndarray] = {}
        self._headers: dict[str, int] = {}
        for split, listing in self._source.splits.items():
            count, file = len(listing), self._file(f"{split}{SUFFIXES[self._kind]}")
            if self._kind == UINT8:
                self._headers[split] = _array_file(file, (count, self._size, self._size, 3), is_new)
            elif is_new:
                file.write_bytes(b"")
            shapes = {"state": (count,), "content": (count, DIGEST_BYTES), "stored": (count, DIGEST_BYTES)}
            for what, shape in shapes.items():
                array = _mapped(self._file(f"{split}_{what}.part"), is_new, np.uint8, shape)
                getattr(self, f"_{what}")[split] = array
            shape = (count,) if self._kind == UINT8 else (count, 2)
            self._positions[split] = _mapped(self._file(f"{split}_places.part"), is_new, np.int64, shape)
        notes = self._file("notes.jsonl")
        if is_new:
            notes.write_bytes(b"")
        else:
            assert saved is not None
            self._parts_done = int(saved["parts"])
            self.saved = self.done
            self._sums = Sums(saved["image"], saved["outer"], int(saved["count"]))
            self._packed = dict(zip(self._packed, saved["packed"].tolist(), strict=True))
            os.truncate(notes, int(saved["notes"]))
            if self._kind == JPEG:
                for split, length in self._packed.items():
                    os.truncate(self._file(f"{split}{SUFFIXES[JPEG]}"), length)
            if self._stop_on_bad:
                self._stop_on_notes()
        self._notes = notes.open("ab")

    def _stop_on_notes(self) -> None:
        """Raise BadImage for a file that an earlier call, without `stop_on_bad`, left out."""
        for line in self._file("notes.jsonl").read_text(encoding="utf-8").splitlines():
            note = json.loads(line)
            if note["reason"]:
                raise BadImage(_bad(self._name(note), note["split"], note["reason"]))

    def _saved(self) -> Any:
        """The progress that `_save` wrote; None if it is missing, or counts more than the files have."""
        try:
            with self._file("progress.npz").open("rb") as file, np.load(file) as found:
                saved = dict(found)
            wanted = {"notes.jsonl": int(saved["notes"])}
            if self._kind == JPEG:
                files = [f"{split}{SUFFIXES[JPEG]}" for split in self._packed]
                wanted |= dict(zip(files, saved["packed"].tolist(), strict=True))
            splits = [split for split, listing in self._source.splits.items() if len(listing)]
            wanted |= dict.fromkeys((f"{split}_{what}.part" for split in splits for what in _PARTS), 1)
            return saved if all(self._file(name).stat().st_size >= size for name, size in wanted.items()) else None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None

    def run(self) -> None:
        """Convert all parts that have not been added yet."""
        jobs = (self._job(split, rows) for split, rows in self._plan[self._parts_done :])
        saved = time.monotonic()
        try:
            with Progress("Preparing", self.total, done=self.done) as progress:
                for result in in_order(_convert, jobs, self._processes):
                    split, rows = self._plan[self._parts_done]
                    self._add_part(split, rows, result)
                    progress.advance(len(rows))
                    if time.monotonic() - saved >= self._seconds:
                        self._save()
                        saved = time.monotonic()
        except KeyboardInterrupt:
            self._save()
            raise
        self._save()

    def _job(self, split: str, rows: np.ndarray) -> tuple[Part, np.ndarray, list[str], _Target]:
        listing = self._source.splits[split]
        target = _Target(
            self._file(f"{split}{SUFFIXES[self._kind]}"),
            self._headers.get(split, 0),
            self._kind,
            self._size,
            self._resize,
            split == "train",
        )
        return listing.locations.part(rows), rows, [listing.names[row] for row in rows], target

    def _add_part(self, split: str, rows: np.ndarray, result: _Converted) -> None:
        names = self._source.splits[split].names
        for row, kinds, reason in zip(rows, result.kinds, result.reasons, strict=True):
            if reason and self._stop_on_bad:
                raise BadImage(_bad(printable(names[row]), split, reason))
            if kinds or reason:
                note = {"split": split, "row": int(row), "kinds": kinds, "reason": reason}
                self._notes.write(json.dumps(note).encode() + b"\n")
        kept = np.array([not reason for reason in result.reasons])
        self._state[split][rows] = np.where(kept, KEPT, LEFT_OUT)
        for what, digests in ((self._content, result.content), (self._stored, result.stored)):
            what[split][rows] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
        if self._kind == UINT8:
            self._positions[split][rows] = rows
        else:
            lengths = np.array([len(jpeg) for jpeg in result.jpegs])
            starts = self._packed[split] + np.cumsum(lengths) - lengths
            self._positions[split][rows] = np.stack([starts, lengths], 1)
            with self._file(f"{split}{SUFFIXES[JPEG]}").open("r+b") as file:
                file.seek(self._packed[split])
                file.write(b"".join(result.jpegs))
            self._packed[split] += int(lengths.sum())
        self._sums.add(result.sums)
        self._parts_done += 1

    def _save(self) -> None:
        # Data must be on the disk before the count that includes it, or a power cut loses it silently.
        self._notes.flush()
        os.fsync(self._notes.fileno())
        for split in self._source.splits:
            with self._file(f"{split}{SUFFIXES[self._kind]}").open("rb") as file:
                os.fsync(file.fileno())
            for array in (self._state[split], self._content[split], self._stored[split], self._positions[split]):
                if isinstance(array, np.memmap):
                    array.flush()
        temporary = self._file("progress.half.npz")
        with temporary.open("wb") as file:
            np.savez(
                file,
                plan=self._plan_hash,
                parts=self._parts_done,
                packed=np.array(list(self._packed.values()), np.int64),
                notes=self._notes.tell(),
                image=self._sums.image,
                outer=self._sums.outer,
                count=self._sums.count,
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file("progress.npz"))
        sync_folder(self._work)
        self.saved = self.done

    def finish(
        self,
        facts: dict[str, Any],
        source_files: dict[str, FileStates],
        allow_lost_classes: bool,
        started: float,
    ) -> None:
        """Write lists, statistics and manifest. `facts` are the manifest's entries from the caller."""
        if self._sums.count == 0:
            raise BadImage(f"{self._work}: none of {self.total} files could be stored; {self._first_note()}")
        size = self._size
        pixels = self._sums.count * size * size
        mean_rgb = self._sums.image.sum((0, 1)) / pixels
        covariance = (self._sums.outer / pixels - np.outer(mean_rgb, mean_rgb)) / 255**2
        components, variances = principal_components(covariance)
        np.save(self._file("mean.npy"), (self._sums.image / self._sums.count).astype(np.float32))
        notes = [json.loads(line) for line in self._file("notes.jsonl").read_text(encoding="utf-8").splitlines()]
        if any((state == PENDING).any() for state in self._state.values()):
            raise BadImage(f"{self._work}: its lists are corrupt; remove it and run the same command again")
        if not allow_lost_classes:
            self._stop_on_lost_class(notes)
        kept = {split: np.flatnonzero(state == KEPT) for split, state in self._state.items()}
        for split, listing in self._source.splits.items():
            rows = kept[split]
            np.save(self._file(f"{split}_labels.npy"), listing.labels[rows])
            lists = {"content": self._content, "stored": self._stored, "places": self._positions}
            for what, arrays in lists.items():
                np.save(self._file(f"{split}_{what}.npy"), arrays[split][rows])
            lines = "".join(f"{printable(listing.names[row])}\n" for row in rows)
            self._file(f"{split}_names.txt").write_text(lines, encoding="utf-8")
        states = json.dumps(source_files)
        self._file(SOURCE_FILES).write_text(states, encoding="utf-8")
        files = [state for found in source_files.values() for state in found.values()]
        manifest = {
            "format_version": FORMAT_VERSION,
            **facts,
            "format": self._kind,
            "size": size,
            "resize": self._resize.name,
            "images": {split: len(rows) for split, rows in kept.items()},
            "rgb": {
                "mean": (mean_rgb / 255).tolist(),
                "components": components.tolist(),
                "variances": variances.tolist(),
            },
            "source": self._source.form,
            "source_files": {
                "files": len(files),
                "bytes": sum(size for size, _ in files),
                "sha256": hashlib.sha256(states.encode()).hexdigest(),
            },
            "warnings": self._source.warnings,
            "converted": self._converted(notes),
            "left_out": self._left_out(notes),
            "duplicates": self._duplicates(kept),
            "class_counts": {
                split: np.bincount(listing.labels[kept[split]], minlength=len(self._source.classes)).tolist()
                for split, listing in self._source.splits.items()
            },
            "made_with": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "pillow": PIL.__version__,
                "simplejpeg": simplejpeg.__version__,
                "littlecms": features.version("littlecms2"),
            },
            "seconds": round(time.monotonic() - started, 1),
            "classes": self._source.classes,
            "words": self._source.words,
        }
        manifest["hash"] = store_hash(self._work, manifest)
        manifest["places_hash"] = positions_hash(self._work, manifest)
        # Written last and atomically: it makes the folder a store, even before temporary files are removed. Everything
        # else must be on the disk first: a power cut could otherwise leave empty files and nothing to make them from.
        for file in self._work.iterdir():
            sync_file(file)
        sync_folder(self._work)
        write_atomic(self._file("manifest.json"), json.dumps(manifest, indent=1) + "\n")

    def close(self) -> None:
        self._notes.close()

    def _stop_on_lost_class(self, notes: list[dict[str, Any]]) -> None:
        """Stop if every file of a class was left out, so that no class disappears unnoticed."""
        for split, listing in self._source.splits.items():
            lost = np.setdiff1d(listing.labels, listing.labels[self._state[split] == KEPT])
            if len(lost):
                reasons = [note for note in notes if note["reason"] and note["split"] == split]
                first = next(note for note in reasons if listing.labels[note["row"]] == lost[0])
                raise BadImage(
                    f"class '{printable(self._source.classes[lost[0]])}' of {split}: none of its files can be stored "
                    f"({self._name(first)}: {first['reason']}); fix or remove them, or set data.on_bad=ignore"
                )

    def _first_note(self) -> str:
        notes = [json.loads(line) for line in self._file("notes.jsonl").read_text(encoding="utf-8").splitlines()]
        first = next((note for note in notes if note["reason"]), None)
        return f"{self._name(first)}: {first['reason']}" if first else "there are none"

    def _name(self, note: dict[str, Any]) -> str:
        return printable(self._source.splits[note["split"]].names[note["row"]])

    def _converted(self, notes: list[dict[str, Any]]) -> dict[str, list[str]]:
        """{kind of conversion: the stored files that needed it}."""
        found: dict[str, list[str]] = {}
        for note in notes:
            for kind in note["kinds"] if not note["reason"] else []:
                found.setdefault(kind, []).append(f"{note['split']}/{self._name(note)}")
        return {kind: sorted(found[kind]) for kind in sorted(found)}

    def _left_out(self, notes: list[dict[str, Any]]) -> list[dict[str, str]]:
        found = [LeftOut(note["split"], self._name(note), note["reason"]) for note in notes if note["reason"]]
        listed = [LeftOut(split, printable(name), reason) for split, name, reason in self._source.left_out]
        return [item._asdict() for item in sorted({*found, *listed})]

    def _duplicates(self, kept: dict[str, np.ndarray]) -> dict[str, list[list[str]]]:
        """Groups of files with the same content, within a split and across splits."""
        splits = list(kept)
        of_split = np.repeat(np.arange(len(splits)), [len(kept[split]) for split in splits])
        row_of = np.concatenate([kept[split] for split in splits])
        content = np.concatenate([self._content[split][kept[split]] for split in splits])
        _, which, counts = np.unique(_as_numbers(content), return_inverse=True, return_counts=True)
        groups: dict[int, list[tuple[str, int]]] = {}
        for index in np.flatnonzero(counts[which] > 1):
            groups.setdefault(int(which[index]), []).append((splits[of_split[index]], int(row_of[index])))
        found: dict[str, list[list[str]]] = {"within": [], "across": []}
        for group in groups.values():
            names = [f"{split}/{printable(self._source.splits[split].names[row])}" for split, row in group]
            found["across" if len({split for split, _ in group}) > 1 else "within"].append(names)
        return found


def _bad(name: str, split: str, reason: str) -> str:
    return f"{name} of {split}: {reason}; fix or remove it, or set data.on_bad=report"


def _as_numbers(content: np.ndarray) -> np.ndarray:
    """Hashes [N, 16] as values that can be sorted; 64 bits distinguish any number of files that a disk holds."""
    return np.ascontiguousarray(content[:, :8]).view(np.uint64).ravel()


def _mapped(path: Path, is_new: bool, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    if is_new:  # not sparse: a full disk is then an error here, not a SIGBUS at a later write
        path.write_bytes(bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize))
    return np.memmap(path, dtype, "r+", shape=shape)


def _array_file(path: Path, shape: tuple[int, ...], is_new: bool) -> int:
    """Make an array's file, sparse until rows are written; return the number of bytes before its first row."""
    if is_new:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + int(np.prod(shape, dtype=np.int64)))
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()


def printable(name: str) -> str:
    """A file's name on one line, whatever bytes it has."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)
