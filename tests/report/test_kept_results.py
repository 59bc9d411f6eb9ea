"""The kept studies: their reports are those that their records give."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from alexlab.cli import report
from alexlab.config import PROJECT_DIR

KEPT = sorted(path.parent for path in PROJECT_DIR.glob("results/*/records.zip"))
TODAY = re.compile(r"\b\d{4}-\d\d-\d\d\b( at \d\d:\d\d UTC)?")


@pytest.mark.slow
@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name)
def test_a_kept_report_is_made_again_to_the_byte_but_for_dates(kept: Path, tmp_path: Path):
    assert report.main([f"runs={kept / 'records.zip'}", f"out={tmp_path}"]) == 0
    made = {path.name.partition("-")[0]: path for path in tmp_path.iterdir()}
    for folder in (path for path in kept.iterdir() if path.is_dir()):
        for name in ("claims.csv", "report.md"):
            before, now = (TODAY.sub("", (place / name).read_text()) for place in (folder, made[folder.name]))
            assert now == before, f"{folder / name}: python src/report.py runs={kept / 'records.zip'} makes it anew"


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name)
def test_a_kept_bundle_is_verified_by_python_alone(kept: Path):
    """That is, its files are those of its manifest, and its errors are those of its predictions."""
    verifier = PROJECT_DIR / "src" / "alexlab" / "runs" / "verify.py"
    line = [sys.executable, "-I", "-S", str(verifier), str(kept / "records.zip")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Everything checks out.\n")


def test_a_clone_has_tens_of_kept_files():
    assert len([path for path in (PROJECT_DIR / "results").rglob("*") if path.is_file()]) < 60
