"""The files of every figure are fit for a page and for print, and the same for the same numbers."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexlab.report.figures.canvas import INK
from alexlab.report.figures.saving import save
from support.figures import FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_whole_and_fit_for_a_page(name: str, tmp_path: Path):
    figure = FIGURES[name]()
    save(figure, tmp_path / f"{name}.v1")
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height
    with Image.open(tmp_path / f"{name}.v1.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[0, 0] == 255).all()
    assert (pixels < 200).any()

    svg = (tmp_path / f"{name}.v1.svg").read_text(encoding="utf-8")
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "currentColor" in svg
    assert INK not in svg
    assert "<style" not in svg  # it would be the whole page's
    assert re.findall(r"http[^\"']*", svg) == ["http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"]
    ids = re.findall(r' id="([^"]*)"', svg)
    used = re.findall(r'(?:url\(|href=")(?!data:)([^)"]*)', svg)
    assert len(set(ids)) == len(ids)
    assert all(each.startswith(f"{name}_v1-") for each in ids)
    assert {each.removeprefix("#") for each in used} == set(ids)
    for kind, data in re.findall(r'href="data:image/(\w+);base64,([^"]*)"', svg):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == kind.upper()


@pytest.mark.parametrize("name", ["forest_odd", "curves_odd", "cost_odd", "kernels_two", "answers"])
def test_the_same_figure_has_the_same_bytes(name: str, tmp_path: Path):
    found = []
    for _ in range(2):
        save(FIGURES[name](), tmp_path / name)
        found.append([(tmp_path / f"{name}.{suffix}").read_bytes() for suffix in ("png", "svg")])
    assert found[0] == found[1]


def test_a_figure_for_print_has_its_width_and_embeds_its_fonts(tmp_path: Path):
    found = []
    for _ in range(2):
        save(FIGURES["classes"](), tmp_path / "figure", with_pdf=True)
        found.append((tmp_path / "figure.pdf").read_bytes())
    assert found[0] == found[1]
    width = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", found[0])
    assert width is not None
    assert float(width[1]) == pytest.approx(320)  # 113 mm
    assert b"/Subtype /Type3" not in found[0]
    assert b"/FontFile2" in found[0]
