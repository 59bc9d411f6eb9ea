"""A picture of some stored images with their class names, which makes a wrong label or crop obvious."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexlab.data.store import Split, Store

IMAGES = 20  # of each split
_COLUMNS = 10
_TILE, _GAP, _LINE = 112, 8, 16  # pixels


def sheet_path(store: Path) -> Path:
    """The path of a store's contact sheet: next to its folder, in which every file is verified."""
    return store.with_name(f"{store.name}.png")


def draw_sheet(store: Store) -> Path:
    """Write the contact sheet of a store and return its path: evenly spaced images of each split, by class.

    Raises:
        OSError: if it cannot be written.
    """
    width = _COLUMNS * (_TILE + _GAP) + _GAP
    parts = [_drawn(name, store.split(name), store.class_names, width) for name in store.manifest["images"]]
    sheet = Image.new("RGB", (width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    path = sheet_path(store.path)
    sheet.save(path)
    return path


def _drawn(name: str, split: Split, classes: list[str], width: int) -> Image.Image:
    shown = np.unique(np.linspace(0, len(split) - 1, min(IMAGES, len(split))).round().astype(int))
    rows = -(-len(shown) // _COLUMNS)
    part = Image.new("RGB", (width, _LINE + _GAP + rows * (_TILE + _LINE + _GAP)), "white")
    draw, font = ImageDraw.Draw(part), ImageFont.load_default(12)
    draw.text((_GAP, _GAP // 2), f"{name}: {len(shown)} of {len(split):,} images", "black", font)
    for place, index in enumerate(shown):
        row, column = divmod(place, _COLUMNS)
        left, top = _GAP + column * (_TILE + _GAP), _LINE + _GAP + row * (_TILE + _LINE + _GAP)
        image = Image.fromarray(np.ascontiguousarray(split.image(int(index))))
        part.paste(image.resize((_TILE, _TILE), Image.Resampling.BILINEAR), (left, top))
        draw.text((left, top + _TILE + 1), _cut(classes[split.labels[index]], font), "black", font)
    return part


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Truncate a text to the width of an image."""
    if font.getlength(text) <= _TILE:
        return text
    while text and font.getlength(f"{text}...") > _TILE:
        text = text[:-1]
    return f"{text}..."
