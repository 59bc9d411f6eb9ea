"""The environment of child processes; tests/sweep/test_child_code.py has the processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alexlab.children import inherit_code
from alexlab.config import PROJECT_DIR

SRC = str(PROJECT_DIR / "src")


@pytest.mark.parametrize(
    ("given", "inherited"),
    [
        ("", [SRC]),
        ("src", [SRC]),
        (os.pathsep.join(["mine", "", "/other", SRC]), [SRC, str(PROJECT_DIR / "mine"), "/other"]),
    ],
)
def test_paths_do_not_depend_on_the_folder_where_a_child_starts(
    given: str, inherited: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", given)
    monkeypatch.chdir(PROJECT_DIR)
    inherit_code()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == inherited
    monkeypatch.chdir(tmp_path)
    inherit_code()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == inherited
