"""JPEG qualities and subsamplings, read from files' headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alexlab.data.sources.encoding import describe_encoding, jpeg_quality
from support.source_files import RED, encoded, flat

# The luminance table of annex K of ITU-T T.81, row by row.
ANNEX_K = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
"""


def scaled(quality: int) -> tuple[int, ...]:
    """Libjpeg's table of a quality: annex K's, scaled (jcparam.c)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = (np.array(ANNEX_K.split(), int) * scale + 50) // 100
    return tuple(int(value) for value in table.clip(1, 255))


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 51, 75, 90, 95, 99, 100])
def test_the_quality_of_libjpegs_tables(quality: int):
    assert jpeg_quality(scaled(quality)) == quality


def test_another_encoders_table_gives_the_nearest_quality():
    table = list(scaled(75))
    table[0] += 1
    assert jpeg_quality(tuple(table)) == 75


def test_files(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(encoded(flat(RED), quality=75))
    (tmp_path / "b.jpg").write_bytes(encoded(flat(RED), quality=60, subsampling=1))
    (tmp_path / "grey.jpg").write_bytes(encoded(flat(RED).convert("L"), quality=75))
    assert describe_encoding([tmp_path / "a.jpg"]) == "JPEG, quality 75, 4:2:0"
    assert describe_encoding([tmp_path / "a.jpg", tmp_path / "b.jpg"]) == "JPEG, quality 60-75, 4:2:0 and 4:2:2"
    assert describe_encoding([tmp_path / "grey.jpg"]) == "JPEG, quality 75, grey"
    assert describe_encoding([tmp_path / "none.jpg"]) == "no image"
