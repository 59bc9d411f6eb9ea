"""ImageNet as it is distributed: a tar of class tars for training, flat tars for the rest, a kit with their labels.

Tars are only indexed: every image is a range of bytes of a file on disk, and nothing is ever unpacked.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from alexlab.data.parallel import in_order
from alexlab.data.sources.source import (
    ByteRanges,
    LeftOut,
    Listing,
    RawError,
    Source,
    is_ignored,
    is_ignored_path,
    is_image,
    read_file,
    read_list,
    sorted_rows,
)
from alexlab.progress import Progress

_MAX_HEADER = 64 * 2**10  # most bytes of a tar's own headers: names and the like
_MAX_MEMBERS = 4_000_000  # ImageNet's largest tar has 1.3 million
_MAX_PADDING = 2**20  # tars are padded to full records, mostly of 10 KiB
_MAX_PACKED_MEMBERS = 10_000  # of a small compressed tar
_MAX_KIT_FILE, _MAX_KIT = 16 * 2**20, 64 * 2**20
_MAX_DEPTH = 10  # of nested values in a kit's meta.mat, which has 3
_CLASS_TAR = re.compile(r"^(?:\./)?(?:[^/]+/)?(n\d{8})\.tar$")
_CLASS_IMAGE = re.compile(r"(?:^|/)n\d{8}/[^/.][^/]*$")
# Python's reader before 3.11.10 takes quadratic time for long digit strings (CVE-2024-6232, python/cpython#121285).
_DIGITS = re.compile(rb"\d{64}")
_UNREADABLE = (tarfile.TarError, OSError, ValueError, EOFError, RecursionError, zlib.error, lzma.LZMAError)


class _ByteRange(io.RawIOBase):
    """A range of a file's bytes as a file, from which no more than a tar's headers can be read at a time."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._size - self._position)
        size = rest if size < 0 else min(size, rest)
        if size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        if size == 0:  # without a seek, which would decompress all that a member claims to have
            return b""
        self._file.seek(self._start + self._position)
        content = self._file.read(size)
        if size > tarfile.BLOCKSIZE and _DIGITS.search(content):
            raise tarfile.ReadError("a header of digits")
        self._position += len(content)
        return content


@dataclass(frozen=True)
class TarMember:
    """A file inside a tar: where its bytes are in the file on disk."""

    name: str
    offset: int
    size: int


def _headers(archive: tarfile.TarFile, limit: int) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar, at most `limit` of them, each after the previous one."""
    before, count = -1, 0
    while (member := archive.next()) is not None:
        count += 1
        if archive.offset <= before:  # a member of negative size, which would be read forever
            raise tarfile.ReadError(f"its member '{member.name[:80]}' ends before it starts")
        if count > limit:
            raise tarfile.ReadError(f"more than {limit:,} members")
        before = archive.offset
        yield member
        archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # they would accumulate


def members(path: Path, start: int = 0, size: int | None = None) -> Iterator[TarMember | LeftOut]:
    """The regular files of a tar, or of a tar that is a range of a file's bytes; other members are left out.

    Nothing is written anywhere, whatever the names are.

    Raises:
        RawError: if the tar is truncated or corrupt, which Python's reader mostly takes for its end.
    """
    file_size = path.stat().st_size
    size = file_size - start if size is None else size
    with path.open("rb") as file:
        content = _ByteRange(file, start, size)
        try:
            archive = tarfile.open(fileobj=content, mode="r:")  # noqa: SIM115  # closed with its file
            for member in _headers(archive, _MAX_MEMBERS):
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) or member.sparse:
                    if not member.isdir():
                        kind = "a link" if member.issym() or member.islnk() else "not a regular file"
                        yield LeftOut("", member.name, f"{kind} in the tar")
                elif member.size < 0 or member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"its member '{member.name}' ends past the tar's end")
                elif _is_unsafe(member.name):
                    yield LeftOut("", member.name, "its name leads out of the tar")
                else:
                    yield TarMember(member.name, start + member.offset_data, member.size)
            # A tar ends in empty blocks and nothing follows them; a gap of zeros in its middle looks like its end.
            content.seek(archive.offset)
            rest = size - archive.offset
            if rest < tarfile.BLOCKSIZE or rest > _MAX_PADDING or any(_blocks(content)):
                raise tarfile.ReadError(f"no end at byte {archive.offset} of {size}")
        except _UNREADABLE as error:
            raise RawError(f"{path}: is truncated or corrupt ({error}); fetch it again") from error


def _blocks(file: _ByteRange) -> Iterator[bytes]:
    """The rest of a file, without its zeros."""
    while block := file.read(_MAX_HEADER):
        yield block.strip(b"\0")


def _is_unsafe(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/") or "\0" in name or "\\" in name


def read_packed(path: Path, wanted: Collection[str], max_file: int, max_total: int) -> dict[str, bytes]:
    """The files with the wanted names in a small compressed tar, in any folder; others are skipped.

    Raises:
        RawError: if it is truncated, corrupt or larger than these limits.
    """
    found: dict[str, bytes] = {}
    try:
        with _decompressed(path) as packed:
            archive = tarfile.open(fileobj=_ByteRange(packed, 0, max_total), mode="r:")  # noqa: SIM115
            for member in _headers(archive, _MAX_PACKED_MEMBERS):
                name = member.name.rpartition("/")[2]
                if not member.isreg() or name not in wanted or is_ignored_path(member.name):
                    continue
                if not 0 <= member.size <= max_file:
                    raise tarfile.ReadError(f"its {name} has {member.size} bytes")
                packed.seek(member.offset_data)
                found[name] = packed.read(member.size)
                if len(found[name]) < member.size:
                    raise tarfile.ReadError(f"its {name} is truncated")
    except _UNREADABLE as error:
        raise RawError(f"{path}: is truncated or corrupt ({error}); fetch it again") from error
    return found


def _decompressed(path: Path) -> IO[bytes]:
    head = read_file(path, head=6)
    if not isinstance(head.content, bytes):
        raise OSError(head.reason)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    return next((opener for magic, opener in openers.items() if head.content.startswith(magic)), open)(path, "rb")


class _FoundImage(NamedTuple):
    name: str
    class_name: str
    member: TarMember
    file: int  # index of the tar


@dataclass
class _Found:
    """Images of a split, collected for a listing."""

    images: dict[str, _FoundImage] = field(default_factory=dict)  # by path; a later duplicate replaces an earlier one

    def add(self, path: str, name: str, class_name: str, member: TarMember, file: int) -> None:
        self.images[path] = _FoundImage(name, class_name, member, file)

    def classes(self) -> set[str]:
        return {image.class_name for image in self.images.values()}

    def listing(self, classes: list[str], paths: list[Path]) -> Listing:
        index = {name: label for label, name in enumerate(classes)}
        found = list(self.images.values())
        labels = [index[image.class_name] for image in found]
        rows = sorted_rows(labels, [image.name for image in found])
        locations = ByteRanges(
            [str(path) for path in paths],
            np.array([found[row].file for row in rows], np.int32),
            np.array([found[row].member.offset for row in rows], np.int64),
            np.array([found[row].member.size for row in rows], np.int64),
        )
        return Listing([found[row].name for row in rows], np.array(labels, np.int64)[rows], locations)


@dataclass(frozen=True)
class Tars:
    """The files of one year of ImageNet's challenge."""

    prefix: str  # ILSVRC2012
    train: str
    val: str
    kit: str
    test: str | None = None
    test_labels: str | None = None
    patch: str | None = None  # if present, its images replace those of the same names


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
        RawError: with the name of a file, or of an inner tar, that is missing, truncated or corrupt.
    """
    wanted = [tars.train, tars.val, *filter(None, (tars.test, tars.test_labels))]
    kit_path = find_kit(root, tars)
    missing = [name for name in wanted if not (root / name).is_file()] + ([] if kit_path else [tars.kit])
    if missing or kit_path is None:
        raise RawError(f"{root}: has no {', '.join(missing)}; needed are {', '.join([*wanted, tars.kit])}")
    kit = read_kit(kit_path, tars.prefix)
    inputs = [*(root / name for name in (*wanted, tars.patch) if name), kit_path]
    source = Source("ImageNet's tars", [], {}, inputs=inputs)
    patches = _patches(root / tars.patch, source) if tars.patch and (root / tars.patch).is_file() else {}
    paths = [root / name for name in (tars.train, tars.val, tars.test, tars.patch) if name]

    train = _read_train(paths[0], source, processes)
    source.classes = sorted(train.classes())
    if not source.classes:
        raise RawError(f"{paths[0]}: holds no class tars such as n01440764.tar")
    used: set[str] = set()
    splits = {"train": train, "val": _read_flat(paths[1], 1, "val", kit.val_classes, source)}
    if tars.test and tars.test_labels:
        path = root / tars.test_labels
        labels = _labels(path, read_list(path).decode(errors="replace"), kit.classes)
        splits["test"] = _read_flat(paths[2], 2, "test", labels, source)
    source.words = {name: kit.words[name] for name in source.classes if name in kit.words}
    for split, found in splits.items():
        unknown = sorted(found.classes() - set(source.classes))
        if unknown:
            raise RawError(f"{root}: {split} has images of {unknown[0]}, {tars.train} has none")
        for path, image in found.images.items():
            short = image.name.rpartition("/")[2]
            if short in patches:
                used.add(short)
                found.images[path] = image._replace(member=patches[short], file=len(paths) - 1)
        source.splits[split] = found.listing(source.classes, paths)
    if patches:
        source.warnings.append(
            f"{len(used)} of the {len(patches)} images of {tars.patch} replace those of the same names"
        )
    return source


def _is_image(path: Path, member: TarMember) -> bool:
    """Whether a member is an image by its name, or a JPEG by its first bytes."""
    if is_image(member.name, b""):
        return True
    with path.open("rb") as file:
        file.seek(member.offset)
        return is_image(member.name, file.read(min(16, member.size)))


def _read_train(path: Path, source: Source, processes: int) -> _Found:
    found, inner = _Found(), []
    for member in members(path):
        if isinstance(member, LeftOut):
            source.left_out.append(member._replace(split="train"))
        elif match := _CLASS_TAR.match(member.name):
            inner.append((match[1], member))
        elif is_ignored_path(member.name):
            continue
        elif _CLASS_IMAGE.search(member.name) and _is_image(path, member):
            folder, name = member.name.split("/")[-2:]
            found.add(member.name, f"{folder}/{name}", folder, member, 0)
        else:
            source.left_out.append(LeftOut("train", member.name, "neither a class tar nor an image of a class"))
    jobs = [(path, class_name, member) for class_name, member in inner]
    with Progress(f"Reading the index of {path.name}", len(jobs), unit="classes") as progress:
        for (_, class_name, _), (images, left_out) in zip(jobs, in_order(_inner, jobs, processes), strict=True):
            for member in images:
                name = f"{class_name}/{member.name.rpartition('/')[2]}"
                found.add(f"{class_name}.tar/{member.name}", name, class_name, member, 0)
            source.left_out += left_out
            progress.advance(1)
    return found


def _inner(path: Path, class_name: str, tar: TarMember) -> tuple[list[TarMember], list[LeftOut]]:
    images: dict[str, TarMember] = {}  # if two members have the same name, the later one counts
    left_out = []
    try:
        for member in members(path, tar.offset, tar.size):
            if isinstance(member, LeftOut):
                left_out.append(LeftOut("train", f"{class_name}.tar: {member.name}", member.reason))
            elif is_ignored_path(member.name):
                continue
            elif _is_image(path, member):
                images[member.name] = member
            else:
                left_out.append(LeftOut("train", f"{class_name}.tar: {member.name}", "not an image by its name"))
    except RawError as error:
        raise RawError(f"{path}: its {tar.name} is truncated or corrupt ({error.__cause__}); fetch it again") from error
    return list(images.values()), left_out


def _read_flat(path: Path, file: int, split: str, labels: list[str], source: Source) -> _Found:
    """A tar of numbered images; the label of image n is on line n of the list of labels."""
    found = _Found()
    for member in members(path):
        if isinstance(member, LeftOut):
            source.left_out.append(member._replace(split=split))
            continue
        name = member.name.rpartition("/")[2]
        if is_ignored(name):
            continue
        number = _number(name)
        if number == 0 or not _is_image(path, member):
            source.left_out.append(LeftOut(split, member.name, "not a numbered image"))
        elif number > len(labels):
            raise RawError(
                f"{path}: {name} has no label, there are {len(labels)}; the kit is truncated or of another year"
            )
        else:
            found.add(name, name, labels[number - 1], member, file)
    if len(found.images) != len(labels):
        source.warnings.append(f"{path.name} has {len(found.images)} images, its list of labels {len(labels)}")
    return found


def _number(name: str) -> int:
    """The number in a name such as ILSVRC2012_val_00000001.JPEG, from 1; 0 if there is none."""
    match = re.search(r"_(\d{8})\.", name)
    return int(match[1]) if match else 0


def _patches(path: Path, source: Source) -> dict[str, TarMember]:
    found = {}
    for member in members(path):
        if isinstance(member, LeftOut):
            source.left_out.append(member)
        elif not is_ignored_path(member.name) and _is_image(path, member):
            found[member.name.rpartition("/")[2]] = member
    return found


@dataclass(frozen=True)
class Kit:
    """The content of a development kit."""

    classes: dict[int, str]  # {the challenge's number of a class, from 1, in its own order: WordNet id}
    words: dict[str, str]
    val_classes: list[str]  # of each validation image


def find_kit(root: Path, tars: Tars) -> Path | None:
    """The development kit, packed or unpacked."""
    names = (tars.kit, tars.kit.removesuffix(".tar.gz"))
    return next((path for name in names if (path := root / name).is_file() or path.is_dir()), None)


def read_kit(path: Path, prefix: str) -> Kit:
    """A development kit: the packed file or its unpacked folder.

    Raises:
        RawError: if a file that it should hold is missing or cannot be read.
    """
    from scipy.io import loadmat  # takes half a second to import

    wanted = ("meta.mat", f"{prefix}_validation_ground_truth.txt")
    if path.is_dir():
        found = {file.name: read_list(file) for file in sorted(path.rglob("*")) if file.name in wanted}
    else:
        found = read_packed(path, wanted, _MAX_KIT_FILE, _MAX_KIT)
    for name in wanted:
        if not found.get(name):
            raise RawError(f"{path}: holds no {name}, from which the labels come; fetch it again")
    meta, truth = (found[name] for name in wanted)
    try:
        _check_mat(meta)
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        numbers = [int(number) for number in synsets[f"{prefix}_ID"]]
        wnids, words = ([str(text) for text in synsets[name]] for name in ("WNID", "words"))
    except Exception as error:  # a corrupt file can make the reader raise anything
        raise RawError(f"{path}: its meta.mat cannot be read ({error})") from error
    classes = dict(zip(numbers, wnids, strict=True))
    named = dict(zip(wnids, words, strict=True))
    return Kit(classes, named, _labels(path, truth.decode(errors="replace"), classes))


def _check_mat(content: bytes) -> None:
    """Refuse a MATLAB file that is too large decompressed, or nested so deeply that its reader's stack overflows.

    Raises:
        ValueError: for such a file.
    """
    order = ">" if content[126:128] == b"MI" else "<"
    pieces, at = [], 128
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        piece = content[at : at + 8 + size]
        if kind == 15:  # compressed
            unpacker = zlib.decompressobj()
            piece = unpacker.decompress(piece[8:], _MAX_KIT_FILE)
            if unpacker.unconsumed_tail:
                raise ValueError(f"it decompresses to more than {_MAX_KIT_FILE // 2**20} MiB")
        pieces.append(piece)
        at += 8 + size
    if sum(map(len, pieces)) > _MAX_KIT_FILE:
        raise ValueError(f"it decompresses to more than {_MAX_KIT_FILE // 2**20} MiB")
    for piece in pieces:
        at, ends = 0, []  # of the enclosing matrices
        while at + 8 <= len(piece):
            kind, size = struct.unpack_from(f"{order}II", piece, at)
            while ends and at >= ends[-1]:
                ends.pop()
            if kind == 14:  # a matrix, whose elements follow
                ends.append(at + 8 + size)
                at += 8
            else:  # small elements have their size and data in the same 8 bytes
                at += 8 if kind >> 16 else 8 + -(-size // 8) * 8
            if len(ends) > _MAX_DEPTH:
                raise ValueError("its values are nested too deeply")


def _labels(path: Path, text: str, classes: dict[int, str]) -> list[str]:
    try:
        return [classes[int(line)] for line in text.split()]
    except (KeyError, ValueError) as error:
        raise RawError(f"{path}: its list of labels has {str(error)[:80]}, which is no class number") from error


def read_split_tar(path: Path, packed: Path) -> Source:
    """A tar of `<...>/<split>/<class>/<image>` such as Imagenette's, decompressed from `packed`.

    Raises:
        RawError: if it is truncated or corrupt or holds no such images.
    """
    found = {"train": _Found(), "val": _Found()}
    source = Source(packed.name, [], {}, inputs=[packed])
    for member in members(path):
        if isinstance(member, LeftOut):
            source.left_out.append(member)
            continue
        parts = member.name.split("/")
        if is_ignored_path(member.name):
            continue
        if len(parts) >= 3 and parts[-3] in found and _is_image(path, member):
            found[parts[-3]].add(member.name, "/".join(parts[-2:]), parts[-2], member, 0)
        else:
            source.left_out.append(LeftOut("", member.name, "not an image of a split by its name"))
    source.classes = sorted(found["train"].classes())
    unknown = sorted(found["val"].classes() - set(source.classes))
    if not source.classes or unknown:
        raise RawError(f"{packed}: holds no train/<class>/ images of {unknown[0] if unknown else 'any class'}")
    source.splits = {split: images.listing(source.classes, [path]) for split, images in found.items()}
    return source
