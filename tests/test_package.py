"""The wheel: configuration files and the command are in it, and `load` works where nothing but it is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from alexlab.config import CONF_DIR, PROJECT_DIR, load
from alexlab.runs.identity import run_id


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ALEXLAB_RUNS")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(PROJECT_DIR)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    packaged = {path.relative_to(tmp_path / "site/alexlab/conf") for path in (tmp_path / "site").rglob("*.yaml")}
    assert packaged == {path.relative_to(CONF_DIR) for path in CONF_DIR.rglob("*.yaml")}
    assert (tmp_path / "site" / "hydra_plugins" / "alexlab.py").is_file()
    assert (tmp_path / "site" / "alexlab" / "py.typed").is_file()
    [entries] = (tmp_path / "site").glob("alexlab-*.dist-info/entry_points.txt")
    assert "alexlab = alexlab.cli.__main__:main" in entries.read_text()
    (tmp_path / "work").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import alexlab, alexlab.config as c\n"
        "config = c.load(['ablation=no_lrn'])\n"
        "from alexlab.runs.identity import run_id\n"
        "print(alexlab.__file__, config.model.lrn, config.paths.runs, run_id(config), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "work", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, lrn, runs, name = done.stdout.split()
    assert where.startswith(str(tmp_path / "site"))
    assert lrn == "False"
    assert Path(runs) == tmp_path / "work" / "runs"
    assert name == run_id(load(["ablation=no_lrn"]))
