"""CIFAR-10: the Python archive (six pickles of pixels, packed or unpacked), or class folders of image files."""

from __future__ import annotations

import io
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.data.sources.encoding import describe_encoding
from alexlab.data.sources.folders import read_folders
from alexlab.data.sources.source import (
    Files,
    Listing,
    Pixels,
    RawError,
    Source,
    read_file,
    sorted_rows,
)
from alexlab.data.sources.tars import read_packed

ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
# In the order of the labels, as batches.meta has them.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_META = "batches.meta"
_MEMBERS = [*itertools.chain(*_BATCHES.values()), _META]
_MAX_PICKLE = 64 * 2**20  # a batch has 31 MB
_MAX_ARCHIVE = 256 * 2**20  # decompressed; the archive has 186 MB
_MAX_READS = 500_000  # while a batch is read; one has 110,000


class _Array:
    """A stand-in for a NumPy array of unsigned bytes while a batch is read."""

    def __init__(self, *_: object) -> None:
        self.values = np.empty(0, np.uint8)

    def set_state(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or is_fortran or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array in it is not plain bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)


class _Dtype:
    """A stand-in for the NumPy dtype of unsigned bytes, the only one that is accepted."""

    def __init__(self, name: object = None, *_: object) -> None:
        if not isinstance(name, str | bytes) or name not in ("u1", b"u1"):
            raise pickle.UnpicklingError("an array in it is not of bytes")

    def set_state(self, state: object) -> None:
        pass


class _Table(dict):
    """A dictionary whose keys are text: nested tuples as keys would take exponential time to hash."""

    def __setitem__(self, key: object, value: object) -> None:
        if not isinstance(key, str | bytes):
            raise pickle.UnpicklingError("a key in it is not text")
        super().__setitem__(key, value)


class _CountingReader(io.BytesIO):
    """A file with a limit on the number of reads, since a pickle of many tiny parts takes long to load."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise pickle.UnpicklingError(f"it has more than {_MAX_READS:,} parts")
        return super().read(size)


_PythonUnpickler: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class _Unpickler(_PythonUnpickler):
    """Reads tables of byte arrays, numbers and text in pickles of protocol 2; a pickle can otherwise call anything.

    A subclass of Python's own unpickler, not of the one in C, which allocates memory for whatever index a pickle has.
    """

    # The opcodes of such a pickle; the others can allocate or build what they like.
    dispatch: dict[int, Any] = {  # noqa: RUF012
        getattr(pickle, name)[0]: _PythonUnpickler.dispatch[getattr(pickle, name)[0]]
        for name in (
            *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
            *("SHORT_BINSTRING", "BINSTRING", "BINUNICODE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"),
            *("EMPTY_LIST", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "GLOBAL", "REDUCE"),
            *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        )
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(_CountingReader(content), encoding="bytes")
        self._encoded, self._max_encoded = 0, len(content)

    def find_class(self, module: str, name: str) -> Any:
        # All names in a batch. NumPy's own classes follow any pointers that a hostile pickle gives them.
        stand_ins: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy._core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): "ndarray",
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self._encode,  # Python 3's bytes in protocol 2
        }
        if (module, name) not in stand_ins:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return stand_ins[module, name]

    def _encode(self, text: str, encoding: str) -> bytes:
        self._encoded += len(text)
        if self._encoded > self._max_encoded:  # the same text over and over
            raise pickle.UnpicklingError("it holds more text than bytes")
        return text.encode("latin1")

    def load_build(self) -> None:
        state = self.stack.pop()
        self.stack[-1].set_state(state)

    dispatch[pickle.BUILD[0]] = load_build

    def load_empty_dictionary(self) -> None:
        self.append(_Table())

    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dictionary


def read_cifar(root: Path) -> Source:
    """CIFAR-10 from `root`, which holds the archive or the unpacked folder.

    Raises:
        RawError: if a batch is missing, truncated or not valid.
    """
    contents, inputs = _contents(root)
    for name in _MEMBERS:
        if name not in contents:
            raise RawError(f"{root}: CIFAR-10's {name} is missing; fetch {ARCHIVE} again")
    try:
        classes = [text.decode() for text in _unpickled(root, _META, contents[_META])[b"label_names"]]
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise RawError(f"{root}: CIFAR-10's {_META} has no class names") from error
    if not classes or len(set(classes)) < len(classes):
        raise RawError(f"{root}: CIFAR-10's {_META} has no class names, or one twice")
    source = Source("CIFAR-10's python archive", classes, {}, inputs=inputs)
    for split, names in _BATCHES.items():
        batches = {name: _unpickled(root, name, contents.pop(name)) for name in names}
        try:
            pixels = np.concatenate([batch[b"data"].values for batch in batches.values()])
            images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # stored channel by channel
            labels = [int(label) for batch in batches.values() for label in batch[b"labels"]]
            files = [f"{name}/{file.decode()}" for name, batch in batches.items() for file in batch[b"filenames"]]
            rows = sorted_rows(labels, files)
            listing = Listing([files[row] for row in rows], np.array(labels, np.int64)[rows], Pixels(images[rows]))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise RawError(f"{root}: CIFAR-10's {names[0]} is not a valid batch ({error})") from error
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
    folders = [listing.locations for listing in source.splits.values() if isinstance(listing.locations, Files)]
    encoding = describe_encoding(files.root / path for files in folders for path in files.paths)
    source.form = f"class folders, copies as {encoding}"
    return source


def _contents(root: Path) -> tuple[dict[str, bytes], list[Path]]:
    """The batches and the files that they come from."""
    for folder in (root / FOLDER, root):
        if (folder / _META).is_file():
            contents: dict[str, bytes] = {}
            for name in _MEMBERS:
                item = read_file(folder / name, _MAX_PICKLE)
                if isinstance(item.content, bytes):
                    contents[name] = item.content
                elif (folder / name).exists():
                    raise RawError(f"{folder / name}: {item.reason}; fetch {ARCHIVE} again")
            return contents, [folder / name for name in _MEMBERS]
    return read_packed(root / ARCHIVE, _MEMBERS, _MAX_PICKLE, _MAX_ARCHIVE), [root / ARCHIVE]


def _unpickled(root: Path, name: str, content: bytes) -> dict[bytes, Any]:
    try:
        loaded = _Unpickler(content).load()
    except Exception as error:  # a hostile pickle can make it raise anything
        raise RawError(f"{root}: CIFAR-10's {name} is truncated or not a plain pickle ({error})") from error
    if not isinstance(loaded, dict):
        raise RawError(f"{root}: CIFAR-10's {name} is not a dictionary")
    return loaded
