"""The wheel: everything is in it, and the command works where nothing but it is installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import alexlab
from alexlab.command import as_typed, program
from alexlab.config import CONF_DIR, PROJECT_DIR, load
from alexlab.runs.identity import run_id


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(PROJECT_DIR)], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ALEXLAB_RUNS")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    packaged = {path.relative_to(tmp_path / "site/alexlab/conf") for path in (tmp_path / "site").rglob("*.yaml")}
    assert packaged == {path.relative_to(CONF_DIR) for path in CONF_DIR.rglob("*.yaml")}
    assert (tmp_path / "site/alexlab/conf/schema.json").is_file()
    for source in ("alexlab", "hydra_plugins"):  # page.html.j2 and py.typed among them
        files = {path.relative_to(PROJECT_DIR / "src") for path in (PROJECT_DIR / "src" / source).rglob("*.*")}
        assert not [path for path in files if path.suffix != ".pyc" and not (tmp_path / "site" / path).exists()]
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


@pytest.mark.slow
@pytest.mark.long
def test_the_command_in_an_empty_environment(wheel: Path, tmp_path: Path):
    """Of this project only the wheel is installed; a path file leads to the packages that it requires."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "required.pth").write_text(sysconfig.get_path("purelib"))
    work = tmp_path / "work"
    work.mkdir()

    def run(*words: str) -> str:
        line = [str(python.with_name(words[0])), *words[1:]]
        columns = str(80 + len(str(work)))  # so that no line with this path wraps
        environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": columns}
        done = subprocess.run(line, cwd=work, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("python", "-c", "import alexlab; print(alexlab.__file__)").startswith(str(site))
    for command in (["alexlab"], ["python", "-m", "alexlab"]):
        assert run(*command, "--version") == f"alexlab {alexlab.__version__}\n"
    assert "alexlab report " in run("alexlab", "--help")
    assert "complete -o default -F _alexlab alexlab" in run("alexlab", "--completion", "bash")
    assert run("alexlab", "train", "--help").startswith("usage: alexlab train [-m] ")
    assert not list(work.iterdir())
    assert "1 run: 0 done, 1 to do." in run("alexlab", "train", "--dry-run")
    assert f"0 runs in {work / 'runs'}" in run("alexlab", "runs", "list")


@pytest.mark.parametrize(
    ("typed", "usage"),
    [
        ("alexlab train", "alexlab train"),
        ("python -m alexlab train", "python -m alexlab train"),
        ("src/train.py", "python src/train.py"),
        ("./src/runs.py", "python src/train.py"),
        ("ipykernel_launcher.py", "alexlab train"),
        ("-c", "alexlab train"),
    ],
)
def test_usage_names_the_command_as_it_was_typed(typed: str, usage: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(PROJECT_DIR)
    monkeypatch.setattr(sys, "argv", [typed, "--help"])
    assert program("train") == usage


def test_the_columns_of_a_usage_text_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["alexlab train"])
    text = "  python src/train.py seed=3        one run\n  python src/runs.py list\nrun python src/train.py now"
    assert as_typed(text) == "  alexlab train seed=3              one run\n  alexlab runs list\nrun alexlab train now"
