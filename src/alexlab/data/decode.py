"""Decode an image file's bytes into the stored RGB square, and list the conversions that it needed.

The only place with a policy for unusual files. A complete picture is stored as a viewer would show it, upright and in
sRGB; alpha is dropped; the first frame of an animation is used. A truncated or corrupt file, which lacks pixels, is not
stored.
"""

from __future__ import annotations

import io
import re
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageCms, TiffImagePlugin

from alexlab.config import Resize
from alexlab.errors import one_line

# Larger images are treated as decompression bombs: this many pixels take up to 450 MB while they are read.
MAX_PIXELS = 36_000_000
# Decoded pixels, summed over the scans of a progressive JPEG: 50 scans of the largest picture take 5 seconds.
_MAX_SCANNED = 50 * MAX_PIXELS
ORIENTATION = 0x0112  # EXIF's tag
# By Pillow's names. Not all formats that Pillow reads: some call other programs.
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
    "JPEG": (".jpeg", ".jpg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm"),
}
FORMATS = list(_SUFFIXES)
IMAGE_SUFFIXES = tuple(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
# The transposition that turns a picture upright, by the value of the EXIF tag.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEADER_BYTES = 2**18  # of a JPEG, searched for its metadata
_METADATA = (b"Exif\0", b"tiff:Orientation", b"ICC_PROFILE\0")
# Warnings of the JPEG decoder in spite of which the picture is complete.
_HARMLESS = ("Unsupported JFIF", "Unknown Adobe", "Inconsistent progression")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes")
_MAX_EXTRANEOUS = 16
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # neither stuffed data nor a restart
_CMYK = ("CMYK", "YCCK")
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's mode by a colour profile's space
_NEAR_SRGB = 2  # grey levels by which a profile may differ and still be sRGB under another name
_SOF_SEQUENTIAL, _SOS, _EOI = (b"\xc0", b"\xc1"), b"\xda", b"\xd9"


class Unreadable(ValueError):
    """A file that holds no complete picture; the message says what it is instead."""


def read_square(content: bytes, name: str, size: int, resize: Resize = Resize.crop) -> tuple[np.ndarray, list[str]]:
    """The stored square, uint8 [size, size, 3], and the conversions that were needed.

    The shorter side is resized to `size` and the centre cut out (2); `stretch` resizes both sides instead, as Caffe's
    instructions did.

    Raises:
        Unreadable: if the bytes are not a complete picture.
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
    # Resizing only the central square saves the large intermediate image. The result is that of resizing the whole
    # and then cropping, up to half a pixel: there the margins are whole pixels, here the square is exactly central.
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def read_image(content: bytes, name: str) -> tuple[Image.Image, list[str]]:
    """An upright RGB image, and the conversions that were needed."""
    found = _format(content)
    if found is None:
        raise Unreadable(_what_it_is(content))
    kinds = []
    suffix = Path(name).suffix.lower()
    if suffix and suffix not in _SUFFIXES[found]:
        kinds.append(f"{found} named {suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow issues thousands, about EXIF and palettes
        if found == "JPEG":
            image, orientation = _jpeg(content, kinds)
        else:
            image, orientation = _other(content, found, kinds)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        kinds.append("turned upright")
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
        return "a Git LFS pointer, not the file"
    return "not an image of a known format"


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unreadable(f"claims {width} x {height} pixels, more than {MAX_PIXELS // 1_000_000} million")


def _check_scans(content: bytes, width: int, height: int) -> None:
    """Refuse a JPEG whose many scans take minutes to decode (libjpeg-turbo, "Two Issues with the JPEG Standard")."""
    pixels = max(width * height, 2**14)
    if content.count(b"\xff\xda") * pixels > _MAX_SCANNED and (scans := _scans(content)[0]) * pixels > _MAX_SCANNED:
        raise Unreadable(f"has {scans} scans of {width} x {height} pixels")


def _scans(content: bytes) -> tuple[int, bool]:
    """The number of a JPEG's scans, and whether it is one sequential scan of all components."""
    at, scans, frame, is_single = 2, 0, b"", False
    while (found := _MARKER.search(content, at)) and found[1] != _EOI:
        start = found.end()
        segment = content[start : start + int.from_bytes(content[start : start + 2])]
        if found[1] in _SOF_SEQUENTIAL:
            frame = segment
        elif found[1] == _SOS:
            scans += 1
            is_single = scans == 1 and segment[2:3] == frame[7:8] != b""
        at = start + max(len(segment), 2)
    return scans, is_single


def _decode_jpeg(content: bytes, colours: str, kinds: list[str]) -> np.ndarray:
    """The pixels of a complete JPEG.

    Raises:
        Unreadable: if pixels are missing. The decoder would fill them with grey and only warn, and Pillow hides the
            warning, so decoding is strict.
    """
    try:
        return simplejpeg.decode_jpeg(content, colours)
    except ValueError as error:
        if "Premature end of JPEG file" in str(error) and _scans(content)[1]:
            try:  # with the end mark that some panorama and camera software omits
                pixels = simplejpeg.decode_jpeg(content + b"\xff" + _EOI, colours)
            except ValueError:
                raise Unreadable(f"a truncated or corrupt JPEG ({one_line(error)})") from error
            kinds.append("JPEG without an end mark")
            return pixels
        if not _is_harmless(str(error), content):
            raise Unreadable(f"a truncated or corrupt JPEG ({one_line(error)})") from error
        kinds.append("JPEG with a harmless fault")
        return simplejpeg.decode_jpeg(content, colours, strict=False)


def _jpeg_header(content: bytes) -> tuple[int, int, str]:
    """Width, height and colour space of a JPEG; refuses one that would take too long to decode."""
    try:
        height, width, colours = simplejpeg.decode_jpeg_header(content)[:3]
    except ValueError as error:
        raise Unreadable(f"a corrupt JPEG ({one_line(error)})") from error
    _check_size(int(width), int(height))
    _check_scans(content, int(width), int(height))
    return int(width), int(height), str(colours)


def _jpeg(content: bytes, kinds: list[str]) -> tuple[Image.Image, int]:
    width, height, colours = _jpeg_header(content)
    is_cmyk = colours in _CMYK
    pixels = _decode_jpeg(content, "CMYK" if is_cmyk else "RGB", kinds)
    has_metadata = any(content.find(text, 0, _HEADER_BYTES) >= 0 for text in _METADATA)
    orientation, profile = _jpeg_metadata(content, kinds) if has_metadata else (1, None)
    if is_cmyk:  # Pillow undoes the inversion of Adobe's CMYK
        kinds.append("CMYK")
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as opened:
            return _in_srgb(opened, opened.convert("RGB"), profile, kinds), orientation
    image = Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)
    if colours == "Gray":
        kinds.append("grey")
    return _in_srgb(image.getchannel(0) if colours == "Gray" else image, image, profile, kinds), orientation


def _is_harmless(warning: str, content: bytes) -> bool:
    """Whether a JPEG is complete in spite of a warning.

    A few extra bytes are harmless: some writers add them. After a gap of zeros, as in a partly downloaded file, they
    are a rest of the picture that no longer fits. Compressed data never have that many zeros in a row.
    """
    extraneous = _EXTRANEOUS.search(warning)
    if extraneous:
        return int(extraneous[1]) <= _MAX_EXTRANEOUS and content.find(bytes(16), content.rfind(b"\xff\xda")) < 0
    return any(text in warning for text in _HARMLESS)


def _jpeg_metadata(content: bytes, kinds: list[str]) -> tuple[int, bytes | None]:
    """The orientation and the colour profile of a JPEG."""
    profile = None
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as opened:
            profile = opened.info.get("icc_profile")
            return int(opened.getexif().get(ORIENTATION, 1)), profile  # from EXIF, else from XMP
    except Exception:  # a broken EXIF block can make Pillow raise anything, and the picture is complete
        kinds.append("broken EXIF")
        return 1, profile


def _in_srgb(pixels: Image.Image, rgb: Image.Image, profile: bytes | None, kinds: list[str]) -> Image.Image:
    """The image in sRGB: `rgb` itself unless `pixels`, from which it was made, have another colour profile.

    A profile that is broken, or for another colour space than the image's, is reported but not applied.
    """
    if profile is None:
        return rgb
    name, transform = _transform(profile)
    if transform is None or transform.input_mode != pixels.mode:
        kinds += [f"colour profile ignored: {name}"] if name else []
        return rgb
    kinds.append(f"colour profile converted to sRGB: {name}")
    converted = ImageCms.applyTransform(pixels, transform)
    assert converted is not None
    return converted


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """A colour profile's description and its transform to sRGB; "" and None for sRGB itself.

    The intent is perceptual, as in most viewers; colours outside sRGB are clipped or compressed as the profile says.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        parsed: Any = source.profile
        name = " ".join("".join(filter(str.isprintable, parsed.profile_description or "")).split())[:40]
        if "srgb" in name.lower():
            return "", None
        name, mode = name or "without a name", _MODES.get(parsed.xcolor_space.strip())
        if mode is None:
            return name, None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return ("", None) if mode == "RGB" and _is_near_srgb(transform) else (name, transform)
    except Exception:  # a broken profile can make Pillow raise anything
        return "a broken one", None


def _is_near_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform leaves colours unchanged: many programs have their own sRGB profile, under other names."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    converted = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
    return int(np.abs(converted.astype(int) - colours).max()) <= _NEAR_SRGB


def _other(content: bytes, found: str, kinds: list[str]) -> tuple[Image.Image, int]:
    try:
        with Image.open(io.BytesIO(content), formats=[found]) as image:
            _check_size(*image.size)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                _check_strips(image, content)
            orientation = image.getexif().get(ORIENTATION, 1)
            image.load()
            if getattr(image, "is_animated", False):
                kinds.append("first of several")
                image.seek(0)
            if found == "TIFF" and orientation in _UPRIGHT:  # Pillow has turned it upright
                kinds.append("turned upright")
                orientation = 1
            rgb = _rgb(image, content, kinds)
            pixels = image if image.mode == "CMYK" else rgb.getchannel(0) if "grey" in kinds else rgb
            rgb = _in_srgb(pixels, rgb, image.info.get("icc_profile"), kinds)
            return rgb, orientation if isinstance(orientation, int) else 1
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable(f"claims too many pixels ({error})") from error
    except Exception as error:  # a corrupt file can make Pillow raise anything
        raise Unreadable(f"a truncated or corrupt {found} ({one_line(error)})") from error


def _check_strips(image: TiffImagePlugin.TiffImageFile, content: bytes) -> None:
    """Refuse a TIFF with a missing strip or tile: libtiff's JPEG decoder fills it with grey without a warning.

    Raises:
        Unreadable: if one is missing, or is an incomplete JPEG.
    """
    tags = image.tag_v2
    width, height, depth = tags[256], tags[257], tags.get(277, 1) if tags.get(284) == 2 else 1
    if 324 in tags:  # tiles
        offsets, counts = tags[324], tags.get(325, ())
        number = -(-width // tags[322]) * -(-height // tags[323]) * depth
    else:
        offsets, counts = tags.get(273, ()), tags.get(279, ())
        number = -(-height // max(1, min(tags.get(278, height), height))) * depth
    if not counts:  # some writers leave them out of uncompressed files
        return
    strips = list(zip(offsets, counts, strict=True))
    if len(strips) < number or any(not 0 < size <= len(content) - offset for offset, size in strips):
        raise Unreadable("a TIFF with a missing strip")
    if tags.get(259) == 7:  # JPEG
        tables = tags.get(347, b"")
        for offset, size in strips:
            strip = content[offset : offset + size]
            strip = tables[:-2] + strip[2:] if tables else strip  # joined: no end mark, no start mark between
            _, _, colours = _jpeg_header(strip)
            _decode_jpeg(strip, "CMYK" if colours in _CMYK else "RGB", [])


def _rgb(image: Image.Image, content: bytes, kinds: list[str]) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        pass
    elif mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        kinds.append("alpha")
    if mode in ("P", "PA"):
        kinds.append("palette")
        # Via RGBA, or Pillow warns of a transparent palette.
        return image.convert("RGBA").convert("RGB")
    if mode in ("L", "LA", "La", "1"):
        kinds.append("grey")
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        kinds += ["16-bit", "grey"]
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.format == "PNG" and content[24] == 16:
        kinds.append("16-bit")
    if mode in ("I", "F"):
        kind = "integer" if mode == "I" else "floating-point"
        raise Unreadable(f"has 32-bit {kind} pixels of unknown range")
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        kinds.append(mode)
    return image.convert("RGB")
