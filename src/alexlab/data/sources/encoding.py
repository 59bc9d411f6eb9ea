"""The encoding of image files, read from their headers: format, JPEG quality and chroma subsampling."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin

from alexlab.data.decode import FORMATS

_SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}  # by Pillow's numbers


def describe_encoding(paths: Iterable[Path]) -> str:
    """Formats of image files, JPEGs with their qualities and subsamplings: "JPEG, quality 75, 4:2:0".

    A file that is not an image is not counted here; preparation leaves it out and lists it.
    """
    found: Counter[str] = Counter()
    qualities: set[int] = set()
    subsamplings: set[str] = set()
    for path in paths:
        if not path.is_file():  # opening a pipe would wait for its writer
            continue
        try:
            with Image.open(path, formats=FORMATS) as image:
                found[image.format or "unknown format"] += 1
                if isinstance(image, JpegImagePlugin.JpegImageFile):
                    qualities.add(jpeg_quality(tuple(image.quantization[0])))
                    sampling = _SUBSAMPLINGS.get(JpegImagePlugin.get_sampling(image), "another subsampling")
                    subsamplings.add("grey" if image.mode == "L" else sampling)
        except Exception:  # a corrupt file can make Pillow raise anything
            continue
    parts = []
    for name, count in sorted(found.items()):
        number = f"{count:,} " if len(found) > 1 else ""
        quality = f", quality {_range(qualities)}, {' and '.join(sorted(subsamplings))}" if qualities else ""
        parts.append(f"{number}{name}{quality if name == 'JPEG' else ''}")
    return "; ".join(parts) or "no image"


@cache
def jpeg_quality(luminance: tuple[int, ...]) -> int:
    """The libjpeg quality (1-100) whose luminance quantisation table is the nearest to this one."""
    errors = [np.abs(np.subtract(luminance, _libjpeg_table(quality))).sum() for quality in range(1, 101)]
    return int(np.argmin(errors)) + 1


@cache
def _libjpeg_table(quality: int) -> tuple[int, ...]:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return tuple(image.quantization[0])


def _range(values: set[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least}-{most}"
