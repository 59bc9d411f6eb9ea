"""Read arrays from an untrusted record: their size is limited, and pickled objects are refused.

`np.load` would parse every header as Python source; here headers are cached, since a study's records share them.
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
    """Read those of the named arrays that an .npz file contains.

    Raises:
        OSError: if the file is missing.
        ValueError, zipfile.BadZipFile: if it is not a regular file, is too large, contains objects, or has an
            unsupported version of the format.
    """
    found = {}
    with zipfile.ZipFile(io.BytesIO(read_regular(path, MAX_BYTES))) as members:
        for member in members.namelist():
            if (name := member.removesuffix(".npy")) in names:
                found[name] = _array(read_member(members, member, MAX_BYTES))
    return found


def read_array(path: Path) -> np.ndarray:
    """Read the array of an .npy file; raises the errors of `read_arrays`."""
    return _array(read_regular(path, MAX_BYTES))


def _array(content: bytes) -> np.ndarray:
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, dtype = _header(content[:start])
    return np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)


@lru_cache(maxsize=256)
def _header(head: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, from the first bytes of its file."""
    file = io.BytesIO(head)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array has an unsupported version of NumPy's format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran or dtype.hasobject:
        raise ValueError("an array contains objects or is in Fortran order")
    return shape, dtype
