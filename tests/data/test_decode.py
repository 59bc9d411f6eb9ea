"""Every odd file is stored as a viewer would show it, or named with its reason."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from alexlab.data.decode import Unreadable, read_image, read_square
from alexlab.data.shapes import draw_image
from support import source_files as raw


def two_halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> Image.Image:
    """Left half, right half: 60 high, 40 wide."""
    pixels = np.zeros((60, 40, 3), np.uint8)
    pixels[:, :20], pixels[:, 20:] = left, right
    return Image.fromarray(pixels)


def grey16() -> bytes:
    values = np.full((40, 50), 180 * 257, np.uint16)
    return raw.encoded(Image.fromarray(values), "PNG")


def transparent(mode: str) -> bytes:
    image = raw.flat(raw.GREEN).convert(mode)
    image.putalpha(90)
    return raw.encoded(image, "PNG")


def palette() -> bytes:
    return raw.encoded(raw.flat(raw.GREEN).quantize(16), "PNG")


def transparent_palette() -> bytes:
    return raw.encoded(raw.flat(raw.GREEN).quantize(16), "PNG", transparency=bytes([0] * 16))


ODD = {
    "a plain JPEG": (raw.photo(0, raw.GREEN), "x.JPEG", raw.GREEN, []),
    "a PNG in disguise": (raw.encoded(raw.flat(raw.GREEN), "PNG"), "x.JPEG", raw.GREEN, ["PNG named .jpeg"]),
    "a JPEG in disguise": (raw.photo(0, raw.GREEN), "x.png", raw.GREEN, ["JPEG named .png"]),
    "four inks": (raw.adobe_cmyk(), "x.JPEG", (255, 35, 35), ["CMYK"]),
    "grey": (raw.encoded(Image.new("L", (50, 40), 90)), "x.jpg", (90, 90, 90), ["grey"]),
    "a grey PNG": (raw.encoded(Image.new("L", (50, 40), 90), "PNG"), "x.png", (90, 90, 90), ["grey"]),
    "black and white": (raw.encoded(Image.new("1", (50, 40), 1), "PNG"), "x.png", (255, 255, 255), ["grey"]),
    "16 bits of grey": (grey16(), "x.png", (180, 180, 180), ["16-bit", "grey"]),
    "16 bits a colour": (
        raw.png(2, 1, b"\0" + bytes([200, 1, 40, 2, 40, 3] * 2), depth=16),
        "x.png",
        raw.RED,
        ["16-bit"],
    ),
    "alpha": (transparent("RGB"), "x.png", raw.GREEN, ["alpha"]),
    "alpha of grey": (transparent("L"), "x.png", (124, 124, 124), ["alpha", "grey"]),
    "a palette": (palette(), "x.png", raw.GREEN, ["palette"]),
    "a transparent palette": (transparent_palette(), "x.png", raw.GREEN, ["alpha", "palette"]),
    "a GIF": (raw.encoded(raw.flat(raw.GREEN), "GIF"), "x.gif", raw.GREEN, ["palette"]),
    "an animation": (raw.animation(), "x.gif", raw.GREEN, ["first of several", "palette"]),
    "a bitmap": (raw.encoded(raw.flat(raw.GREEN), "BMP"), "x.bmp", raw.GREEN, []),
    "a TIFF of inks": (
        raw.encoded(Image.new("CMYK", (50, 40), (0, 220, 220, 0)), "TIFF"),
        "x.tif",
        (255, 35, 35),
        ["CMYK"],
    ),
    "WebP": (raw.encoded(raw.flat(raw.GREEN), "WEBP"), "x.webp", raw.GREEN, []),
    "a turned JPEG": (raw.turned(6, raw.flat(raw.GREEN)), "x.jpg", raw.GREEN, ["turned upright"]),
    "EXIF that says upright": (raw.turned(1, raw.flat(raw.GREEN)), "x.jpg", raw.GREEN, []),
    "an absurd orientation": (raw.turned(77, raw.flat(raw.GREEN)), "x.jpg", raw.GREEN, []),
    "a strip": (raw.encoded(raw.flat(raw.BLUE, 2, 3000)), "x.JPEG", raw.BLUE, []),
    "one pixel": (raw.encoded(raw.flat(raw.BLUE, 1, 1)), "x.JPEG", raw.BLUE, []),
    "bytes behind the picture": (raw.photo(0, raw.GREEN) + b"more" * 99, "x.JPEG", raw.GREEN, []),
}


@pytest.mark.parametrize("case", ODD)
def test_shown_as_a_viewer_would(case: str):
    content, name, colour, kinds = ODD[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels, found = read_square(content, name, 256)
    assert pixels.shape == (256, 256, 3)
    assert pixels.dtype == np.uint8
    assert sorted(found) == sorted(kinds)
    np.testing.assert_allclose(pixels.mean((0, 1)), colour, atol=6)


def test_broken_exif_is_kept_without_a_word(capfd: pytest.CaptureFixture[str]):
    pixels, _ = read_square(raw.broken_exif(), "x.JPEG", 32)
    np.testing.assert_allclose(pixels.mean((0, 1)), raw.GREEN, atol=6)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.transpose(1, 0, 2)),
        (6, lambda p: np.rot90(p, 1)),
        (7, lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
        (8, lambda p: np.rot90(p, -1)),
    ],
)
def test_turned_upright(kind: str, orientation: int, undo):
    """A camera that was held otherwise stores the picture turned back; by NumPy's turns it lies as the EXIF says."""
    upright = np.asarray(two_halves(raw.RED, raw.BLUE)).copy()
    upright[:15] = raw.GREEN
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    content = raw.encoded(Image.fromarray(undo(upright).copy()), kind, exif=exif.tobytes(), **options)
    suffix = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp"}[kind]
    image, kinds = read_image(content, f"x{suffix}")
    assert kinds == ["turned upright"]
    assert np.abs(np.asarray(image).astype(int) - upright).mean() < 3


def damaged(place: float) -> bytes:
    """A JPEG with zeros in its middle, as a half-fetched file has."""
    content = bytearray(raw.encoded(raw.flat(raw.GREEN, 200, 200)))
    start = int(len(content) * place)
    content[start : start + 400] = bytes(400)
    return bytes(content)


BAD = {
    "nothing": (b"", "empty"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "a web page": (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
    "gzip": (gzip.compress(raw.photo(0)), "gzip data"),
    "a zip": (b"PK\3\4" + bytes(99), "a zip file"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    "text": (b"hello", "not an image of a known format"),
    "a PostScript picture": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    "a cut JPEG": (raw.encoded(raw.flat(raw.RED, 200, 200))[:3000], "a truncated or corrupt JPEG"),
    "a cut JPEG that is ended": (raw.half_grey(raw.flat(raw.RED, 200, 200)), "a truncated or corrupt JPEG"),
    "a JPEG with a hole": (damaged(0.5), "a truncated or corrupt JPEG"),
    "a JPEG's first bytes": (raw.photo(0)[:20], "a corrupt JPEG"),
    "a cut PNG": (raw.encoded(raw.flat(raw.RED, 200, 200), "PNG")[:3000], "a truncated or corrupt PNG"),
    "a cut GIF": (raw.encoded(raw.flat(raw.RED, 200, 200), "GIF")[:800], "a truncated or corrupt GIF"),
    "a cut WebP": (
        raw.encoded(raw.flat(raw.RED, 200, 200), "WEBP", lossless=True)[:3000],
        "a truncated or corrupt WEBP",
    ),
    "a cut TIFF": (raw.encoded(raw.flat(raw.RED, 200, 200), "TIFF")[:3000], "a TIFF with a missing strip"),
    "a bomb of 200 million": (raw.png(20000, 10000), "claims too many pixels"),
    "a bomb of billions": (raw.png(100000, 100000), "pixels"),
    "real numbers": (raw.encoded(Image.new("F", (9, 9), 0.5), "TIFF"), "floating-point pixels"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_whole_picture_is_named(case: str):
    content, reason = BAD[case]
    with pytest.raises(Unreadable, match=reason):
        read_square(content, "x.JPEG", 64)


@pytest.mark.parametrize("size", [300, 512, 4096])
def test_a_hole_of_zeros_is_never_stored(size: int):
    """What a broken download leaves: the decoder goes on behind it, with false colours, and warns of little."""
    image = draw_image("star", np.random.default_rng(1)).resize((700, 500))
    content = raw.encoded(image, quality=90)
    first = content.index(b"\xff\xda") + 20
    for start in np.linspace(first, len(content) - size - 2, 25).astype(int):
        holed = content[:start] + bytes(size) + content[start + size :]
        with pytest.raises(Unreadable, match="truncated or corrupt JPEG"):
            read_square(holed, "x.JPEG", 64)


def test_a_byte_too_many_is_harmless():
    content = raw.photo(0, raw.GREEN)
    pixels, kinds = read_square(content[:-2] + b"\x11" + content[-2:], "x.JPEG", 64)
    np.testing.assert_allclose(pixels.mean((0, 1)), raw.GREEN, atol=6)
    assert kinds in ([], ["JPEG with a harmless fault"])


def jpeg_bomb() -> bytes:
    """A small JPEG whose header claims 65,000 x 65,000 pixels."""
    content = bytearray(raw.photo(0))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = (65000).to_bytes(2, "big") * 2
    return bytes(content)


def test_a_jpeg_bomb_is_not_opened():
    with pytest.raises(Unreadable, match="65000 x 65000 pixels"):
        read_square(jpeg_bomb(), "x.JPEG", 64)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_stays_small(tmp_path: Path):
    """The strip of 3000 x 2 and the largest picture that is let through, in a process of their own."""
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 6000), raw.BLUE).save(buffer, "JPEG")
    (tmp_path / "large.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "strip.jpg").write_bytes(raw.encoded(raw.flat(raw.BLUE, 2, 3000)))
    code = (
        "import sys; from pathlib import Path; from alexlab.data.decode import read_square\n"
        "for path in sys.argv[1:]: assert read_square(Path(path).read_bytes(), path, 256)[0].shape == (256, 256, 3)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    paths = [str(tmp_path / name) for name in ("large.jpg", "strip.jpg")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 5e8


def test_pixels_are_pillows():
    """The faster decoder gives what Pillow does, for files of every quality and subsampling."""
    rng = np.random.default_rng(0)
    for index in range(12):
        image = draw_image(["disc", "star", "heart"][index % 3], rng)
        content = raw.encoded(image, quality=60 + 3 * index, subsampling=index % 3, progressive=index % 2 == 0)
        with Image.open(io.BytesIO(content)) as opened:
            expected = np.asarray(opened.convert("RGB"))
        assert np.array_equal(np.asarray(read_image(content, "x.JPEG")[0]), expected)


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {}/></rdf:RDF></x:xmpmeta>'
)


def with_xmp(image: Image.Image, kind: str, xmp: str) -> bytes:
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp)
        return raw.encoded(image, kind, pnginfo=info)
    return raw.encoded(image, kind, **({"tiffinfo": {700: xmp.encode()}} if kind == "TIFF" else {"xmp": xmp.encode()}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_turned_upright_by_xmp(kind: str):
    """Some editors write the orientation there alone."""
    lying = Image.fromarray(np.rot90(np.asarray(two_halves(raw.RED, raw.BLUE))).copy())
    content = with_xmp(lying, kind, XMP.format('tiff:Orientation="6"'))
    image, kinds = read_image(content, f"x.{kind.lower()}")
    assert kinds == ["turned upright"]
    np.testing.assert_allclose(np.asarray(image)[30, [5, 35]], [raw.RED, raw.BLUE], atol=30)
    assert read_image(with_xmp(lying, kind, XMP.format("")), f"x.{kind.lower()}")[1] == []


def profile(name: str) -> bytes:
    """sRGB's colour profile by another name."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return content.replace("sRGB built-in".encode("utf-16-be"), f"{name:13}".encode("utf-16-be"))


def xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def icc(name: str, space: bytes, tags: dict[bytes, bytes], between: bytes = b"XYZ ") -> bytes:
    """A colour profile as the ICC's specification 2.4 lays it out."""
    text = name.encode() + b"\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(8 + 3 + 67)
    tags = {b"desc": described, b"wtpt": xyz((0.9642, 1, 0.8249)), **tags}
    table, data, at = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += tag + struct.pack(">2I", at + len(data), len(content))
        data += padded
    head = bytes(4) + struct.pack(">I", 0x02400000) + b"mntr" + space.ljust(4) + between + bytes(12) + b"acsp"
    head = (head + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)).ljust(124, b"\0")
    body = head + struct.pack(">I", len(tags)) + table + data
    return struct.pack(">I", len(body) + 4) + body


def gamma(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))


def of_rgb(name: str, curve: bytes, *colorants: Sequence[float]) -> bytes:
    """A profile of three colours, given in XYZ (D50), and their curve."""
    colours: dict[bytes, bytes] = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, colorants), strict=True))
    return icc(name, b"RGB", colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def of_inks() -> bytes:
    """A profile of four inks: magenta on yellow is L 50, a 60, b 40, nothing is white, anything else black."""
    corners = np.tile(np.array((0, 128, 128), np.uint8), (2, 2, 2, 2, 1))
    corners[0, 0, 0, 0], corners[0, 1, 1, 0] = (255, 128, 128), (128, 188, 168)
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + struct.pack(">9i", *(65536 * np.eye(3, dtype=int).ravel()))
    table += 4 * ramp + corners.tobytes() + 3 * ramp
    return icc("Inks", b"CMYK", {b"A2B0": table}, b"Lab ")


SRGB_CURVE = struct.pack(
    ">4sI2H5i", b"para", 0, 3, 0, *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)
# The colorants that Adobe (1998) and the ICC's registry publish, in D50.
ADOBE_RGB = of_rgb(
    "Adobe RGB (1998)",
    gamma(2.19921875),
    (0.60974, 0.31111, 0.01947),
    (0.20528, 0.62567, 0.06087),
    (0.14919, 0.06322, 0.74457),
)
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_other_colours_become_srgbs(kind: str):
    """As a viewer shows them: the values of published cases, and P3's by the formulas of its standard."""
    for content, name, expected in (
        (ADOBE_RGB, "Adobe RGB (1998)", (231, 57, 34)),
        (of_rgb("P3 of 2.2", gamma(2.2), *P3), "P3 of 2.2", (219, 37, 13)),
        (of_rgb("Display P3", SRGB_CURVE, *P3), "Display P3", (217, 42, 23)),
    ):
        image = Image.new("RGB", (64, 64), (200, 60, 40))
        stored, found = read_square(raw.encoded(image, kind, quality=100, icc_profile=content), f"x.{kind.lower()}", 32)
        assert found == [f"colour profile converted to sRGB: {name}"]
        np.testing.assert_allclose(stored.mean((0, 1)), expected, atol=3)


def test_a_grey_profile_and_alpha():
    """Grey 100 of the curve 1.8 is 255 * srgb((100 / 255) ** 1.8), by sRGB's formula (IEC 61966-2-1)."""
    light = (100 / 255) ** 1.8
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    content = icc("Dot", b"GRAY", {b"kTRC": gamma(1.8)})
    for mode, kinds in (("L", ["grey"]), ("LA", ["alpha", "grey"])):
        image = Image.new("L", (32, 32), 100).convert(mode)
        stored, found = read_square(raw.encoded(image, "PNG", icc_profile=content), "x.png", 32)
        assert found == [*kinds, "colour profile converted to sRGB: Dot"]
        np.testing.assert_allclose(stored, round(expected), atol=2)
    stored, found = read_square(raw.encoded(Image.new("L", (32, 32), 100), "JPEG", icc_profile=content), "x.jpeg", 32)
    assert found == ["grey", "colour profile converted to sRGB: Dot"]
    np.testing.assert_allclose(stored, round(expected), atol=3)
    image = Image.new("RGBA", (32, 32), (200, 60, 40, 9))
    stored, found = read_square(raw.encoded(image, "PNG", icc_profile=ADOBE_RGB), "x.png", 32)
    assert found == ["alpha", "colour profile converted to sRGB: Adobe RGB (1998)"]
    np.testing.assert_allclose(stored[0, 0], (231, 57, 34), atol=3)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_of_a_profile(kind: str):
    """L 50, a 60, b 40 (D50) is (214, 60, 55) in sRGB, by the formulas of CIE Lab and IEC 61966-2-1."""
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    stored, found = read_square(raw.encoded(image, kind, icc_profile=of_inks()), f"x.{kind.lower()}", 32)
    assert found == ["CMYK", "colour profile converted to sRGB: Inks"]
    np.testing.assert_allclose(stored.mean((0, 1)), (214, 60, 55), atol=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_srgbs_and_broken_profiles_change_no_bit(kind: str):
    image = draw_image("star", np.random.default_rng(1)).resize((64, 64))
    plain, _ = read_square(raw.encoded(image, kind), f"x.{kind.lower()}", 32)
    for content, kinds in (
        (profile("sRGB built-in"), []),
        (profile("c2"), []),  # as many programs name their own
        (b"no profile", ["colour profile ignored: a broken one"]),
        (ADOBE_RGB[:300], ["colour profile ignored: a broken one"]),
        (
            icc("a\x1b[31m\nb", b"GRAY", {b"kTRC": gamma(1.8)}),
            ["colour profile ignored: a[31mb"],
        ),  # for a picture of colours
    ):
        stored, found = read_square(raw.encoded(image, kind, icc_profile=content), f"x.{kind.lower()}", 32)
        assert found == kinds
        assert np.array_equal(stored, plain)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_mark(progressive: bool):
    """A panorama's writer may forget it; after fewer bytes pixels are missing, or in a progressive one may be."""
    image = draw_image("star", np.random.default_rng(1)).resize((700, 500))
    content = raw.encoded(image, progressive=progressive)
    if not progressive:
        found, kinds = read_image(content[:-2], "x.jpg")
        assert kinds == ["JPEG without an end mark"]
        assert np.array_equal(np.asarray(found), np.asarray(read_image(content, "x.jpg")[0]))
    for cut in (2, 3, 10, 1000)[not progressive :]:
        with pytest.raises(Unreadable, match="truncated or corrupt JPEG"):
            read_image(content[:-cut], "x.jpg")


def striped_tiff() -> tuple[bytes, tuple[int, ...], tuple[int, ...]]:
    """A TIFF of four strips, each a JPEG, with their offsets and sizes."""
    content = raw.encoded(raw.flat(raw.GREEN, 256, 256), "TIFF", compression="jpeg", tiffinfo={278: 64})
    with Image.open(io.BytesIO(content)) as opened:
        tags = opened.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
        return content, tags[273], tags[279]


@pytest.mark.parametrize("missing", ["no size", "beyond the end", "zeros", "half", "another's"])
def test_a_missing_strip_is_reported(missing: str):
    """Its decoder fills it with grey."""
    whole, offsets, sizes = striped_tiff()
    np.testing.assert_allclose(read_square(whole, "x.tif", 32)[0].mean((0, 1)), raw.GREEN, atol=6)
    content = bytearray(whole)
    if missing in ("no size", "beyond the end"):
        table, entry = (sizes, 0) if missing == "no size" else (offsets, len(whole))
        at = whole.index(struct.pack("<4I", *table)) + 8
        content[at : at + 4] = struct.pack("<I", entry)
    else:
        start, size = offsets[2], sizes[2]
        content[start + (size // 2 if missing == "half" else 0) : start + size] = {
            "zeros": bytes(size),
            "half": b"\xff\xd9" + bytes(size - size // 2 - 2),
            "another's": np.random.default_rng(0).bytes(size),
        }[missing]
    with pytest.raises(Unreadable, match=r"missing strip|corrupt JPEG"):
        read_square(bytes(content), "x.tif", 32)
