"""From an image file's bytes to the stored square of RGB, and what had to be converted on the way.

One policy for every odd file, here and nowhere else: whatever can be shown whole is stored as a viewer would show it,
upright and as RGB; alpha is dropped; of an animation the first frame is taken; what is cut or damaged so that pixels
are missing is not stored.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from alexlab.config import Resize

# Larger ones are taken for bombs: so many take up to 450 MB while they are read.
MAX_PIXELS = 36_000_000
ORIENTATION = 0x0112  # EXIF's tag
# By Pillow's names. Not all that Pillow reads: some formats call other programs.
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"P5": "PPM",
    b"P6": "PPM",
}
_SUFFIXES = {
    "JPEG": (".jpeg", ".jpg"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm"),
}
# What turns a picture upright, by the value of the EXIF tag.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Warnings of the JPEG decoder after which the picture is whole all the same.
_HARMLESS = ("Unsupported JFIF", "Unknown Adobe", "Inconsistent progression")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes")
_MAX_EXTRANEOUS = 16


class Unreadable(ValueError):
    """A file that holds no whole picture; the message says what it is instead."""


def read_square(content: bytes, name: str, size: int, resize: Resize = Resize.crop) -> tuple[np.ndarray, list[str]]:
    """The stored square, uint8 [size, size, 3], and what was converted.

    The shorter side is resized to `size` and the centre cut out (2); `stretch` resizes both sides instead, as Caffe's
    instructions did.

    Raises:
        Unreadable: where the bytes are no whole picture.
    """
    image, kinds = read_image(content, name)
    return square(image, size, resize), kinds


def square(image: Image.Image, size: int, resize: Resize = Resize.crop) -> np.ndarray:
    """An image's stored square, uint8 [size, size, 3]."""
    width, height = image.size
    if width == height == size:
        return np.asarray(image)
    if resize is Resize.stretch:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # Resizing only the central square saves the large intermediate image. It is what resizing all and then cutting
    # gives, but for half a pixel: there the margins have to be whole, here the square is in the very middle.
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def read_image(content: bytes, name: str) -> tuple[Image.Image, list[str]]:
    """An upright RGB image, and what was converted."""
    found = _format(content)
    if found is None:
        raise Unreadable(_what_it_is(content))
    kinds = []
    suffix = Path(name).suffix.lower()
    if suffix and suffix not in _SUFFIXES[found]:
        kinds.append(f"{found} named {suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, about EXIF and palettes, by the thousand
        if found == "JPEG":
            image, orientation = _jpeg(content, kinds)
        else:
            image, orientation = _other(content, found, kinds)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        kinds.append("EXIF-turned")
    return image, kinds


def _format(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _MAGIC.items() if content.startswith(magic)), None)


def _what_it_is(content: bytes) -> str:
    head = content[:512].lstrip().lower()
    if not content:
        return "empty"
    if not content.strip(b"\0"):
        return "nothing but zeros"
    if head.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "a web page"
    if content.startswith(b"\x1f\x8b"):
        return "gzip data"
    if content.startswith(b"PK\3\4"):
        return "a zip file"
    if content.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file"
    return "no image of a known format"


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unreadable(f"claims {width} x {height} pixels, more than {MAX_PIXELS // 1_000_000} million")


def _jpeg(content: bytes, kinds: list[str]) -> tuple[Image.Image, int]:
    try:
        height, width, colours = simplejpeg.decode_jpeg_header(content)[:3]
        height, width = int(height), int(width)
    except ValueError as error:
        raise Unreadable(f"a damaged JPEG ({_told(error)})") from error
    _check_size(width, height)
    is_cmyk = colours in ("CMYK", "YCCK")
    wanted = "CMYK" if is_cmyk else "RGB"
    try:
        # Strict, since the decoder fills what is missing with grey and only warns of it, and Pillow hides the warning.
        pixels = simplejpeg.decode_jpeg(content, wanted)
    except ValueError as error:
        if not _is_harmless(str(error), content):
            raise Unreadable(f"a cut or damaged JPEG ({_told(error)})") from error
        pixels = simplejpeg.decode_jpeg(content, wanted, strict=False)
        kinds.append("JPEG with a harmless fault")
    if is_cmyk:  # for Pillow, which knows that Adobe's are stored inverted
        kinds.append("CMYK")
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as opened:
            image = opened.convert("RGB")
    else:
        image = Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)
        if colours == "Gray":
            kinds.append("grey")
    return image, _jpeg_orientation(content, kinds) if content.find(b"Exif\0", 0, 2**18) >= 0 else 1


def _is_harmless(warning: str, content: bytes) -> bool:
    """Whether a JPEG is whole in spite of a warning.

    A few bytes too many are some writers' habit; after a hole of zeros, as a half-fetched file has, they are what is
    left of a picture that no longer fits, and compressed data never have that many zeros in a row.
    """
    extraneous = _EXTRANEOUS.search(warning)
    if extraneous:
        return int(extraneous[1]) <= _MAX_EXTRANEOUS and content.find(bytes(16), content.rfind(b"\xff\xda")) < 0
    return any(text in warning for text in _HARMLESS)


def _jpeg_orientation(content: bytes, kinds: list[str]) -> int:
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as opened:
            return int(opened.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block can make Pillow raise anything, and the picture is whole
        kinds.append("broken EXIF")
        return 1


def _other(content: bytes, found: str, kinds: list[str]) -> tuple[Image.Image, int]:
    try:
        with Image.open(io.BytesIO(content), formats=[found]) as image:
            _check_size(*image.size)
            orientation = image.getexif().get(ORIENTATION, 1)
            image.load()
            if getattr(image, "is_animated", False):
                kinds.append("first of several")
                image.seek(0)
            if found == "TIFF" and orientation in _UPRIGHT:  # which Pillow turns by itself
                kinds.append("EXIF-turned")
                orientation = 1
            return _rgb(image, content, kinds), orientation if isinstance(orientation, int) else 1
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable(f"claims too many pixels ({error})") from error
    except Exception as error:  # a damaged file can make Pillow raise anything
        raise Unreadable(f"a cut or damaged {found} ({_told(error)})") from error


def _rgb(image: Image.Image, content: bytes, kinds: list[str]) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        pass
    elif mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        kinds.append("alpha")
    if mode in ("P", "PA"):
        kinds.append("palette")
        # By way of RGBA, or Pillow warns of a transparent palette.
        return image.convert("RGBA").convert("RGB")
    if mode in ("L", "LA", "La", "1"):
        kinds.append("grey")
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        kinds += ["16-bit", "grey"]
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.format == "PNG" and content[24] == 16:
        kinds.append("16-bit")
    if mode in ("I", "F"):
        raise Unreadable(f"has {'whole' if mode == 'I' else 'real'} numbers of 32 bits for pixels, of unknown range")
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        kinds.append(mode)
    return image.convert("RGB")


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
