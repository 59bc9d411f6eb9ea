"""What `--dry-run` prints of a study's plan."""

from __future__ import annotations

from pathlib import Path

from alexlab.cli.prospects import reckon
from alexlab.sweep.plan import make_plan
from support.settings import composer


def test_a_corrupt_record_does_not_prevent_it(tmp_path: Path):
    plan = make_plan(["study=lrn", f"paths.runs={tmp_path}"], composer=composer())
    expected = reckon(plan)
    assert expected
    (tmp_path / "0123456789ab").mkdir()
    (tmp_path / "0123456789ab" / "status.json").write_text("{")
    assert reckon(plan) == expected
