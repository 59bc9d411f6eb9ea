"""Fixtures: the records of a study in which LRN is worth ten points."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from support.judging import CLAIMS, LINE
from support.studies import made_study


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "claims").mkdir()
    (folder / "claims" / "mine.yaml").write_text(yaml.safe_dump(CLAIMS))
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, own: Path) -> Path:
    """Records of a whole study, in which LRN is worth ten points."""
    folder = tmp_path_factory.mktemp("runs")
    made_study(folder, LINE, {"none": 0.3, "no_lrn": 0.4}, config_dir=own)
    return folder


@pytest.fixture
def records(finished: Path, tmp_path: Path) -> Path:
    """A copy of them to break."""
    return Path(shutil.copytree(finished, tmp_path / "runs"))
