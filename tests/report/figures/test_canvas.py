"""Neither a user's style nor a user's backend changes a figure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from alexlab.report.figures.learning import curves
from alexlab.report.figures.saving import save
from support.figures import arms


def test_a_users_style_changes_nothing(tmp_path: Path):
    save(curves(arms(2, 2), "loss"), tmp_path / "figure")
    plain = (tmp_path / "figure.svg").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        save(curves(arms(2, 2), "loss"), tmp_path / "figure")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "figure.svg").read_bytes() == plain


@pytest.mark.parametrize("backend", ["nonsense", "svg"])
def test_a_backend_that_does_not_exist_is_none_of_ours(backend: str):
    """MPLBACKEND ended a report in a traceback; one that exists stays the user's."""
    code = "import alexlab.report.write, matplotlib, os; print(matplotlib.get_backend(), os.environ['MPLBACKEND'])"
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["svg" if backend == "svg" else "agg", backend]
