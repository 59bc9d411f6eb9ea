"""Files of figures: PNG, SVG that takes its page's colours and font, PDF for print."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from alexlab.console import printable
from alexlab.files import write_atomic
from alexlab.report.figures.canvas import INK, styled

_TAG = re.compile(r"<[^!>][^>]*>")  # texts and comments are never changed: matplotlib escapes < and > in them


def save(figure: Figure, stem: Path, with_pdf: bool = False) -> None:
    """Write <stem>.png, on white, and <stem>.svg, to be inlined in a page: transparent, in the page's text colour.

    The SVG's text is text, in the page's font; its ids begin with the stem's name, so that they are unique in a page.
    `with_pdf`: also <stem>.pdf, for print: 113 mm wide, text of 8.5 and 9.5 points, fonts embedded. The same figure
    gives the same bytes.
    """
    raster, drawing = io.BytesIO(), io.BytesIO()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(printable(text.get_text()))  # a control character is no XML
    with styled():
        matplotlib.rcParams["svg.hashsalt"] = stem.name
        figure.savefig(raster, format="png", dpi=150, facecolor="white", metadata={"Software": None})
        nothing: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawing, format="svg", dpi=110, transparent=True, metadata=nothing)  # its images' resolution
        if with_pdf:
            for_print = io.BytesIO()
            matplotlib.rcParams["pdf.fonttype"] = 42  # some journals refuse matplotlib's default, Type 3
            metadata: Any = dict.fromkeys(("CreationDate", "Creator", "Producer"))
            figure.savefig(for_print, format="pdf", dpi=300, metadata=metadata)
            write_atomic(stem.with_name(f"{stem.name}.pdf"), for_print.getvalue())
    write_atomic(stem.with_name(f"{stem.name}.png"), raster.getvalue())
    write_atomic(stem.with_name(f"{stem.name}.svg"), _for_a_page(drawing.getvalue().decode(), stem.name))


def _for_a_page(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]  # without the document type, which has an external URL
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # A style sheet would be the whole page's.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*>", _root, svg, count=1)
    used = {one for tag in _TAG.findall(svg) for one in re.findall(r'(?:url\(|href=")#([^)"]+)', tag)}
    prefix = re.sub(r"\W", "_", name)

    def changed(found: re.Match[str]) -> str:
        tag = found[0].replace(INK, "currentColor")
        tag = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", tag)
        tag = re.sub(r"font: ([^;\"]*?px)[^;\"]*", r"font: \1 system-ui, sans-serif", tag)
        tag = re.sub(r"data:image/png;base64,([^\"]*)", _smaller, tag)
        tag = re.sub(r' (?:d|x|y|transform|points)="[^"]*"', _rounded, tag)
        tag = re.sub(r' id="([^"]+)"', lambda own: f' id="{prefix}-{own[1]}"' if own[1] in used else "", tag)
        return re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", tag)

    return re.sub(r">\s+<", "><", _TAG.sub(changed, svg))


def _root(found: re.Match[str]) -> str:
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', found[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} '
        f'{height}" width="{width}pt" height="{height}pt" style="max-width: 100%; height: auto" '
        'stroke-linejoin="round" stroke-linecap="butt">'
    )


def _rounded(found: re.Match[str]) -> str:
    is_path = found[0].startswith(' d="')
    digits = 1 if is_path else 2
    text = re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.{digits}f}".rstrip("0").rstrip("."), found[0])
    if not is_path or re.search("[CQ]", text):
        return text
    return re.sub(r" \n(L )?", " ", text).replace(' "', '"')  # further points of a line need no L


def _smaller(found: re.Match[str]) -> str:
    """Convert a photograph to JPEG, unless it is smaller as PNG or has transparent parts, as the kernels have."""
    image = Image.open(io.BytesIO(base64.b64decode(found[1])))
    if np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        return found[0]
    packed = io.BytesIO()
    image.convert("RGB").save(packed, "JPEG", quality=85)
    text = f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return min(text, found[0], key=len)
