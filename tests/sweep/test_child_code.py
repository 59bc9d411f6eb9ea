"""The code that was typed is the code that trains: with another checkout installed, in any folder, by any launcher."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import alexlab.runs.environment
from alexlab.config import PROJECT_DIR
from alexlab.runs.environment import code
from support.repositories import commit_all
from support.settings import TINY, last_of_each

SHADOWED = ("random", "queue", "signal", "typing", "alexlab")  # names of modules that every child process imports


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkout than the one that is installed, whose code differs from it: it trains on a machine named B."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "conf"):
        shutil.copytree(PROJECT_DIR / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(PROJECT_DIR / name, folder / name)
    path = folder / "src" / "alexlab" / "runs" / "environment.py"
    text = path.read_text()
    path.write_text(text.replace("platform.machine()", "'B'"))
    assert path.read_text() != text
    commit_all(folder)
    return folder


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    "launcher", ["joblib", *(pytest.param(name, marks=pytest.mark.long) for name in ("basic", "submitit_local", "ray"))]
)
def test_every_launcher_trains_with_the_code_of_the_command(launcher: str, checkout: Path, tmp_path: Path, cache: Path):
    here = tmp_path / "here"
    here.mkdir()
    for name in SHADOWED:
        (here / f"{name}.py").write_text("raise SystemExit('a module of the current folder')\n")
    line = [sys.executable, str(checkout / "src" / "train.py"), "-m", "seed=0", f"hydra/launcher={launcher}"]
    tiny = [*TINY, "trainer.max_epochs=1", f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"]
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")},
        **{"GIT_DIR": str(PROJECT_DIR / ".git"), "OMP_DISPLAY_ENV": "VERBOSE", "RAY_TMPDIR": "/tmp"},
    }
    done = subprocess.run([*line, *last_of_each(tiny)], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/environment.json")]
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=checkout, text=True).strip()
    assert [(one["machine"], one["git_commit"], one["git_dirty"]) for one in found] == [("B", head, False)]
    if launcher == "basic" and sys.platform == "linux":  # by the words of the OpenMP that torch has loaded
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
        assert "GOMP_SPINCOUNT = '1000'" in done.stderr


class TestCode:
    """The commit that a record names, of a project in a folder of its own."""

    @pytest.fixture
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "project"
        for name in ("conf", "src", "docs"):
            (folder / name).mkdir(parents=True)
            (folder / name / "kept").write_text("kept")
        monkeypatch.setattr(alexlab.runs.environment, "PROJECT_DIR", folder)
        monkeypatch.setattr(alexlab.runs.environment, "CONF_DIR", folder / "conf")
        monkeypatch.delenv("ALEXLAB_COMMIT", raising=False)
        return folder

    def test_a_clean_tree(self, project: Path, monkeypatch: pytest.MonkeyPatch):
        head = commit_all(project)
        monkeypatch.setenv("GIT_DIR", str(PROJECT_DIR / ".git"))
        monkeypatch.setenv("ALEXLAB_COMMIT", "another")
        assert code.__wrapped__() == {"git_commit": head, "git_dirty": False}

    @pytest.mark.parametrize(
        ("path", "is_dirty"),
        [("src/kept", True), ("docs/kept", True), ("src/new.py", True), ("conf/new.yaml", True), ("notes.txt", False)],
    )
    def test_a_change(self, path: str, is_dirty: bool, project: Path):
        head = commit_all(project)
        (project / path).write_text("changed")
        assert code.__wrapped__() == {"git_commit": head, "git_dirty": is_dirty}

    def test_a_repository_around_it_is_another(self, project: Path, monkeypatch: pytest.MonkeyPatch):
        commit_all(project.parent)
        assert code.__wrapped__() == {"git_commit": None, "git_dirty": None}
        monkeypatch.setenv("ALEXLAB_COMMIT", "the image's")
        assert code.__wrapped__() == {"git_commit": "the image's", "git_dirty": None}
