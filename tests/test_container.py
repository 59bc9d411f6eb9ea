"""The image's packages and its entry point; tests/container.py builds and uses it (`make container`)."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from alexlab.config import PROJECT_DIR

LOCK = (PROJECT_DIR / "requirements.lock").read_text()


def test_the_lock_has_what_the_project_asks_for():
    """If not: `make lock`."""
    project = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())["project"]
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", LOCK, re.MULTILINE))
    extras = project["optional-dependencies"]
    for asked in [*project["dependencies"], *extras["joblib"], *extras["parquet"], *extras["container"]]:
        requirement = Requirement(asked)
        if requirement.name != "alexlab":
            assert requirement.specifier.contains(locked[requirement.name]), asked


def test_every_locked_package_has_hashes_and_none_a_place():
    entries = re.split(r"^(?=\w)", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE), flags=re.MULTILINE)
    for entry in filter(None, entries):
        assert re.fullmatch(r"[a-z0-9-]+==[^ ;]+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+", entry), entry


def test_relative_paths_are_in_the_mounted_folder():
    """Reports and what `runs bundle` writes; the rest of the image is not the user's."""
    dockerfile = (PROJECT_DIR / "Dockerfile").read_text()
    [runs] = re.findall(r"\bALEXLAB_RUNS=(\S+)", dockerfile)
    assert re.findall(r"^WORKDIR (\S+)$", dockerfile, re.MULTILINE)[-1] == runs


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("prepare data=cifar10", "prepare.py data=cifar10"),
        ("runs list", "runs.py list"),
        ("evaluate weights=x", "evaluate.py weights=x"),
        ("train seed=1", "train.py seed=1"),
        ("-m seed=0,1", "train.py -m seed=0,1"),
        ("seed=1", "train.py seed=1"),
        ("alexlab", "train.py alexlab"),
        ("", "train.py"),
    ],
)
def test_the_first_word_names_the_command(line: str, command: str, tmp_path: Path):
    """As the README has it for its container."""
    shown = tmp_path / "python3"
    shown.write_text('#!/bin/sh\nbasename "$1" | tr -d "\\n"; shift; printf " %s" "$@"\n')
    shown.chmod(0o755)
    entry = [str(PROJECT_DIR / "docker-entrypoint.sh"), *line.split()]
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(entry, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == command
