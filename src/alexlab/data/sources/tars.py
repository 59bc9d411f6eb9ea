"""ImageNet as it is given: a tar of class tars for training, flat tars for the rest, a kit that holds their labels.

The tars are only indexed here, so that every image is a stretch of bytes of a file and nothing is ever unpacked.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from alexlab.data.parallel import in_order
from alexlab.data.sources.source import (
    IMAGE_SUFFIXES,
    LeftOut,
    Listing,
    RawError,
    Source,
    Stretches,
    sorted_rows,
)
from alexlab.progress import Progress

_MAX_READ = 16 * 2**20  # a tar's own headers and a kit's files are far smaller
_MAX_PADDING = 2**20  # tars are filled up to whole records, of 10 KiB mostly
_CLASS_TAR = re.compile(r"^(?:\./)?(?:[^/]+/)?(n\d{8})\.tar$")


class _Stretch(io.RawIOBase):
    """A stretch of a file as a file of its own, which hands out no more than a header's worth at a time."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        size = max(0, self._size - self._at) if size < 0 else min(size, max(0, self._size - self._at))
        if size > _MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self._file.seek(self._start + self._at)
        content = self._file.read(size)
        self._at += len(content)
        return content


@dataclass(frozen=True)
class TarMember:
    """A file inside a tar: where its bytes lie in the file on disk."""

    name: str
    offset: int
    size: int


def members(path: Path, start: int = 0, size: int | None = None) -> Iterator[TarMember | LeftOut]:
    """The regular files of a tar, or of a tar that is a stretch of a file; what is no regular file is left out.

    Nothing is written anywhere, whatever the names are.

    Raises:
        RawError: where the tar is cut or damaged, which Python's reader mostly takes for its end.
    """
    whole = path.stat().st_size
    size = whole - start if size is None else size
    with path.open("rb") as file:
        stretch = _Stretch(file, start, size)
        try:
            archive = tarfile.open(fileobj=stretch, mode="r:")  # noqa: SIM115  # closed with its file
            member = archive.next()
            while member is not None:
                end = member.offset_data + member.size
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
                    if not member.isdir():
                        kind = "a link" if member.issym() or member.islnk() else "not a regular file"
                        yield LeftOut("", member.name, f"{kind} in the tar")
                elif member.size < 0 or end > size:
                    raise tarfile.ReadError(f"its member '{member.name}' ends past the tar's end")
                elif _is_unsafe(member.name):
                    yield LeftOut("", member.name, "its name leads out of the tar")
                else:
                    yield TarMember(member.name, start + member.offset_data, member.size)
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or a million of them pile up
                member = archive.next()
            # A tar ends in empty blocks and has nothing behind them; a hole of zeros in its middle looks like its end.
            stretch.seek(archive.offset)
            rest = size - archive.offset
            if rest < 512 or rest > _MAX_PADDING or stretch.read().strip(b"\0"):
                raise tarfile.ReadError(f"no end at byte {archive.offset} of {size}")
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise RawError(f"{path}: is cut or damaged ({error}); fetch it again") from error


def _is_unsafe(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/") or "\0" in name or "\\" in name


@dataclass
class _Found:
    """Images of a split on the way to a listing."""

    names: list[str]
    classes: list[str]
    offsets: list[int]
    sizes: list[int]
    files: list[int]

    def add(self, name: str, class_name: str, member: TarMember, file: int) -> None:
        self.names.append(name)
        self.classes.append(class_name)
        self.offsets.append(member.offset)
        self.sizes.append(member.size)
        self.files.append(file)

    def listing(self, classes: list[str], paths: list[Path]) -> Listing:
        index = {name: label for label, name in enumerate(classes)}
        labels = [index[name] for name in self.classes]
        rows = sorted_rows(labels, self.names)
        places = Stretches(
            [str(path) for path in paths],
            np.array(self.files, np.int32)[rows],
            np.array(self.offsets, np.int64)[rows],
            np.array(self.sizes, np.int64)[rows],
        )
        return Listing([self.names[row] for row in rows], np.array(labels, np.int64)[rows], places)


def _found() -> _Found:
    return _Found([], [], [], [], [])


@dataclass(frozen=True)
class Tars:
    """The files of a year of ImageNet's challenge."""

    prefix: str  # ILSVRC2012
    train: str
    val: str
    kit: str
    test: str | None = None
    test_labels: str | None = None
    patch: str | None = None  # replaces some images, where it is there


TARS_2012 = Tars("ILSVRC2012", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")
TARS_2010 = Tars(
    "ILSVRC2010",
    "ILSVRC2010_images_train.tar",
    "ILSVRC2010_images_val.tar",
    "ILSVRC2010_devkit-1.0.tar.gz",
    "ILSVRC2010_images_test.tar",
    "ILSVRC2010_test_ground_truth.txt",
    "patch_images.tar",
)


def read_tars(root: Path, tars: Tars, processes: int) -> Source:
    """ImageNet from its tars.

    Raises:
        RawError: naming a file that is missing, cut or damaged, an inner tar's name among them.
    """
    wanted = [tars.train, tars.val, *filter(None, (tars.test, tars.test_labels))]
    kit_path = find_kit(root, tars)
    missing = [name for name in wanted if not (root / name).is_file()] + ([] if kit_path else [tars.kit])
    if missing or kit_path is None:
        raise RawError(f"{root}: has no {', '.join(missing)}; needed are {', '.join([*wanted, tars.kit])}")
    kit = read_kit(kit_path, tars.prefix)
    source = Source("ImageNet's tars", [], {})
    patches = _patches(root / tars.patch, source) if tars.patch and (root / tars.patch).is_file() else {}
    paths = [root / name for name in (tars.train, tars.val, tars.test, tars.patch) if name]

    train = _read_train(paths[0], source, processes)
    source.classes = sorted(set(train.classes))
    if not source.classes:
        raise RawError(f"{paths[0]}: holds no class tars such as n01440764.tar")
    used: set[str] = set()
    splits = {"train": train, "val": _read_flat(paths[1], 1, "val", kit.val_classes, source)}
    if tars.test and tars.test_labels:
        labels = _labels(root / tars.test_labels, (root / tars.test_labels).read_text(errors="replace"), kit.classes)
        splits["test"] = _read_flat(paths[2], 2, "test", labels, source)
    source.words = {name: kit.words[name] for name in source.classes if name in kit.words}
    for split, found in splits.items():
        unknown = sorted(set(found.classes) - set(source.classes))
        if unknown:
            raise RawError(f"{root}: {split} has images of {unknown[0]}, {tars.train} has none")
        for row, name in enumerate(found.names):
            if name.rpartition("/")[2] in patches:
                member = patches[name.rpartition("/")[2]]
                used.add(name.rpartition("/")[2])
                found.offsets[row], found.sizes[row], found.files[row] = member.offset, member.size, len(paths) - 1
        source.splits[split] = found.listing(source.classes, paths)
    if patches:
        source.warnings.append(
            f"{len(used)} of the {len(patches)} images of {tars.patch} replace the ones of their names"
        )
    return source


def _read_train(path: Path, source: Source, processes: int) -> _Found:
    found, inner = _found(), []
    for member in members(path):
        if isinstance(member, LeftOut):
            source.left_out.append(member._replace(split="train"))
        elif match := _CLASS_TAR.match(member.name):
            inner.append((match[1], member))
        elif re.search(r"(?:^|/)n\d{8}/[^/.][^/]*$", member.name) and member.name.lower().endswith(IMAGE_SUFFIXES):
            found.add("/".join(member.name.split("/")[-2:]), member.name.split("/")[-2], member, 0)
        else:
            source.left_out.append(LeftOut("train", member.name, "neither a class's tar nor a class's image"))
    jobs = [(path, class_name, member) for class_name, member in inner]
    with Progress(f"Reading the index of {path.name}", len(jobs), unit="classes") as progress:
        for (_, class_name, _), (images, left_out) in zip(jobs, in_order(_inner, jobs, processes), strict=True):
            for member in images:
                found.add(f"{class_name}/{member.name.rpartition('/')[2]}", class_name, member, 0)
            source.left_out += left_out
            progress.advance(1)
    return found


def _inner(path: Path, class_name: str, tar: TarMember) -> tuple[list[TarMember], list[LeftOut]]:
    images: dict[str, TarMember] = {}  # a tar may hold a name twice; the later one is meant
    left_out = []
    try:
        for member in members(path, tar.offset, tar.size):
            if isinstance(member, LeftOut):
                left_out.append(LeftOut("train", f"{class_name}.tar: {member.name}", member.reason))
            elif member.name.lower().endswith(IMAGE_SUFFIXES) and not member.name.rpartition("/")[2].startswith("."):
                images[member.name] = member
            else:
                left_out.append(LeftOut("train", f"{class_name}.tar: {member.name}", "no image by its name"))
    except RawError as error:
        raise RawError(f"{path}: its {tar.name} is cut or damaged ({error.__cause__}); fetch it again") from error
    return list(images.values()), left_out


def _read_flat(path: Path, file: int, split: str, labels: list[str], source: Source) -> _Found:
    """A tar whose images are numbered; the number says which line of the labels is theirs."""
    numbered: dict[str, TarMember] = {}
    for member in members(path):
        if isinstance(member, LeftOut):
            source.left_out.append(member._replace(split=split))
            continue
        name = member.name.rpartition("/")[2]
        if name.startswith("."):
            continue
        number = _number(name)
        if not name.lower().endswith(IMAGE_SUFFIXES) or number == 0:
            source.left_out.append(LeftOut(split, member.name, "no numbered image"))
        elif number > len(labels):
            raise RawError(f"{path}: {name} has no label, there are {len(labels)}; the kit is another year's or cut")
        else:
            numbered[name] = member
    found = _found()
    for name, member in numbered.items():
        found.add(name, labels[_number(name) - 1], member, file)
    if len(found.names) != len(labels):
        source.warnings.append(f"{path.name} has {len(found.names)} images, its list of labels {len(labels)}")
    return found


def _number(name: str) -> int:
    """The number in a name such as ILSVRC2012_val_00000001.JPEG, from 1; 0 where there is none."""
    match = re.search(r"_(\d{8})\.", name)
    return int(match[1]) if match else 0


def _patches(path: Path, source: Source) -> dict[str, TarMember]:
    found = {}
    for member in members(path):
        if isinstance(member, LeftOut):
            source.left_out.append(member)
        elif member.name.lower().endswith(IMAGE_SUFFIXES):
            found[member.name.rpartition("/")[2]] = member
    return found


@dataclass(frozen=True)
class Kit:
    """What a development kit tells."""

    classes: dict[int, str]  # the challenge's number of a class, from 1, in an order of its own: its WordNet id
    words: dict[str, str]
    val_classes: list[str]  # of each validation image


def find_kit(root: Path, tars: Tars) -> Path | None:
    """The development kit, packed or unpacked."""
    return next((path for name in (tars.kit, tars.kit.removesuffix(".tar.gz")) if (path := root / name).exists()), None)


def read_kit(path: Path, prefix: str) -> Kit:
    """A development kit: the packed file or its unpacked folder.

    Raises:
        RawError: where what it should hold is not there.
    """
    from scipy.io import loadmat  # half a second

    wanted = {"meta.mat": b"", f"{prefix}_validation_ground_truth.txt": b""}
    if path.is_dir():
        for file in path.rglob("*"):
            if file.name in wanted:
                wanted[file.name] = file.read_bytes()
    else:
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = member.name.rpartition("/")[2]
                    if name in wanted and member.isreg() and member.size <= _MAX_READ:
                        opened = archive.extractfile(member)
                        wanted[name] = opened.read() if opened else b""
        except (tarfile.TarError, OSError, EOFError) as error:
            raise RawError(f"{path}: is cut or damaged ({error}); fetch it again") from error
    for name, content in wanted.items():
        if not content:
            raise RawError(f"{path}: holds no {name}, from which the labels come; fetch it again")
    meta, truth = wanted.values()
    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        numbers = [int(number) for number in synsets[f"{prefix}_ID"]]
        wnids, words = ([str(text) for text in synsets[name]] for name in ("WNID", "words"))
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise RawError(f"{path}: its meta.mat cannot be read ({error})") from error
    classes = dict(zip(numbers, wnids, strict=True))
    named = dict(zip(wnids, words, strict=True))
    return Kit(classes, named, _labels(path, truth.decode(errors="replace"), classes))


def _labels(path: Path, text: str, classes: dict[int, str]) -> list[str]:
    try:
        return [classes[int(line)] for line in text.split()]
    except (KeyError, ValueError) as error:
        raise RawError(f"{path}: its list of labels has {error.args[0]!r}, which is no class's number") from error


def read_split_tar(path: Path, packed: Path) -> Source:
    """A tar of `<...>/<split>/<class>/<image>`, as Imagenette's, uncompressed from `packed`.

    Raises:
        RawError: where it is cut or damaged or holds no such images.
    """
    found = {"train": _found(), "val": _found()}
    source = Source(packed.name, [], {})
    for member in members(path):
        if isinstance(member, LeftOut):
            source.left_out.append(member)
            continue
        parts = member.name.split("/")
        if len(parts) >= 3 and parts[-3] in found and parts[-1].lower().endswith(IMAGE_SUFFIXES):
            if not parts[-1].startswith("."):
                found[parts[-3]].add("/".join(parts[-2:]), parts[-2], member, 0)
        elif not parts[-1].startswith("."):
            source.left_out.append(LeftOut("", member.name, "no image of a split by its name"))
    source.classes = sorted(set(found["train"].classes))
    unknown = sorted(set(found["val"].classes) - set(source.classes))
    if not source.classes or unknown:
        raise RawError(f"{packed}: holds no train/<class>/ images of {unknown[0] if unknown else 'any class'}")
    source.splits = {split: images.listing(source.classes, [path]) for split, images in found.items()}
    return source
