"""Reading the arrays of a record, which may come from anyone: of limited size, and no objects.

As `np.load`, which parses the header of every file as Python source; those of a study's records are alike.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Container
from functools import lru_cache
from pathlib import Path

import numpy as np

from alexlab.files import read_regular
from alexlab.runs.verify import read_member

MAX_BYTES = 2**30  # of a file, and of an array in it


def read_arrays(path: Path, names: Container[str]) -> dict[str, np.ndarray]:
    """The arrays of these names that an .npz file has.

    Raises:
        OSError: if the file is missing or no regular file.
        ValueError, zipfile.BadZipFile: if it is too large, or holds objects or another version of the format.
    """
    found = {}
    with zipfile.ZipFile(io.BytesIO(read_regular(path, MAX_BYTES))) as members:
        for member in members.namelist():
            if (name := member.removesuffix(".npy")) in names:
                found[name] = _array(read_member(members, member, MAX_BYTES))
    return found


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy file; errors are those of `read_arrays`."""
    return _array(read_regular(path, MAX_BYTES))


def _array(content: bytes) -> np.ndarray:
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, dtype = _header(content[:start])
    return np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)


@lru_cache(maxsize=256)
def _header(head: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array by the first bytes of its file."""
    file = io.BytesIO(head)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is in another version of NumPy's format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran or dtype.hasobject:
        raise ValueError("an array holds objects, or is in Fortran's order")
    return shape, dtype
