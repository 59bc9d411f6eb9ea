"""CIFAR-10: the python archive (six pickles of pixels, packed or unpacked), or class folders of image files."""

from __future__ import annotations

import io
import itertools
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.data.sources.encoding import describe_encoding
from alexlab.data.sources.folders import read_folders
from alexlab.data.sources.source import Files, Listing, Pixels, RawError, Source, sorted_rows

ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
# In the order of the labels, as batches.meta has them.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_META = "batches.meta"
_MAX_PICKLE = 64 * 2**20
_MEMBERS = {*itertools.chain(*_BATCHES.values()), _META}


class _Array:
    """What stands for a NumPy array while a batch is read: its bytes, as unsigned integers."""

    def __init__(self, *_: object) -> None:
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Kind, bool, bytes]) -> None:
        _, shape, kind, is_fortran, content = state
        if not isinstance(kind, _Kind) or is_fortran or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of it is not plain bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)


class _Kind:
    """What stands for a NumPy dtype: the one of bytes."""

    def __init__(self, name: object = None, *_: object) -> None:
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of it is of {name!r}, not of bytes")

    def __setstate__(self, _: object) -> None:
        pass


# The whole of what a batch names. NumPy's own classes follow pointers that a hostile pickle gives them.
_STANDS_FOR: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # bytes, as protocol 2 writes them
}


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Makes arrays of bytes and plain values only, since a pickle can otherwise call anything.

    Python's own, not the one in C, which allocates whatever index a pickle names.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STANDS_FOR:
            raise pickle.UnpicklingError(f"it wants {module}.{name}")
        return _STANDS_FOR[module, name]


def read_cifar(root: Path) -> Source:
    """CIFAR-10 from `root`, which holds the archive or the unpacked folder.

    Raises:
        RawError: where a batch is missing, cut or not what it should be.
    """
    contents = _contents(root)
    for name in [*_BATCHES["train"], *_BATCHES["test"], _META]:
        if name not in contents:
            raise RawError(f"{root}: CIFAR-10's {name} is missing; fetch {ARCHIVE} again")
    try:
        classes = [text.decode() for text in _unpickled(root, _META, contents[_META])[b"label_names"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise RawError(f"{root}: CIFAR-10's {_META} has no names of classes") from error
    source = Source("CIFAR-10's python archive", classes, {})
    for split, names in _BATCHES.items():
        batches = {name: _unpickled(root, name, contents[name]) for name in names}
        try:
            pixels = np.concatenate([batch[b"data"].values for batch in batches.values()])
            images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # stored colour by colour
            labels = [int(label) for batch in batches.values() for label in batch[b"labels"]]
            files = [f"{name}/{file.decode()}" for name, batch in batches.items() for file in batch[b"filenames"]]
            rows = sorted_rows(labels, files)
            listing = Listing([files[row] for row in rows], np.array(labels, np.int64)[rows], Pixels(images[rows]))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise RawError(f"{root}: CIFAR-10's {names[0]} is not as it should be ({error})") from error
        if not len(images) == len(labels) == len(files) or not set(labels) <= set(range(len(classes))):
            raise RawError(f"{root}: CIFAR-10's {names[0]} has labels that do not fit its images")
        source.splits[split] = listing
    return source


def read_cifar_folders(root: Path) -> Source:
    """CIFAR-10 as `train/<class>/` and `test/<class>/` of image files; labels are the archive's own.

    Raises:
        RawError: for a class that is not one of CIFAR-10's.
    """
    source = read_folders(root, class_order=CLASSES)
    folders = [listing.places for listing in source.splits.values() if isinstance(listing.places, Files)]
    encoding = describe_encoding(places.root / path for places in folders for path in places.paths)
    source.form = f"class folders, copies as {encoding}"
    return source


def _contents(root: Path) -> dict[str, bytes]:
    for folder in (root / FOLDER, root):
        if (folder / _META).is_file():
            files = [folder / name for name in _MEMBERS if (folder / name).is_file()]
            for file in files:
                if file.stat().st_size > _MAX_PICKLE:
                    raise RawError(f"{file}: is longer than a batch of CIFAR-10; fetch {ARCHIVE} again")
            return {file.name: file.read_bytes() for file in files}
    path = root / ARCHIVE
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if member.isreg() and member.size <= _MAX_PICKLE and name in _MEMBERS:
                    file = archive.extractfile(member)
                    contents[name] = file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RawError(f"{path}: is cut or damaged ({error}); fetch it again") from error
    return contents


def _unpickled(root: Path, name: str, content: bytes) -> dict[bytes, Any]:
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a hostile pickle can make it raise anything
        raise RawError(f"{root}: CIFAR-10's {name} is cut or not a plain pickle ({error})") from error
    if not isinstance(loaded, dict):
        raise RawError(f"{root}: CIFAR-10's {name} holds no table")
    return loaded
