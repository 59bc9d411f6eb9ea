"""Format, lint and types, as `make check` does them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from alexlab.config import PROJECT_DIR


@pytest.mark.parametrize("command", [["format", "--check"], ["check"]], ids=" ".join)
def test_ruff(command: list[str]):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=PROJECT_DIR, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_pyright():
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    if subprocess.run([*pyright, "--version"], capture_output=True).returncode != 0:
        pytest.skip("pyright cannot start: its first start fetches itself from the npm registry")
    done = subprocess.run(pyright, cwd=PROJECT_DIR, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
