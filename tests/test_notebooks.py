"""The notebooks of notebooks/, executed as a reader would, with fewer seeds and epochs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from alexlab.compose import Composer
from alexlab.config import PROJECT_DIR
from alexlab.study.statistics import seeds_needed
from alexlab.sweep.arms import make_study
from support.commands import PATIENCE, until
from support.settings import _marked

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Jupyter's packages about each other
    import nbclient
    import nbformat

FOLDER = PROJECT_DIR / "notebooks"
NAMES = ("1_quick_start", "2_a_look_inside", "3_planning_a_study")
# What the tests make smaller, by notebook: text of a cell, and what stands there instead.
SMALLER = {
    "1_quick_start": {
        "study.seeds=3": "study.seeds=1",
        "study.base_seeds=3": "study.base_seeds=2",
        "data.train_images=600": "data.train_images=400",
        "trainer.max_epochs=5": "trainer.max_epochs=4",
    },
    "2_a_look_inside": {"trainer.max_epochs=8": "trainer.max_epochs=3"},
}


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def text_of(name: str) -> str:
    return "\n".join("".join(cell["source"]) for cell in read(name)["cells"])


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_is_stripped(name: str):
    notebook = read(name)
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"] == {"name": "python"}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one kernel `python3`, which is this interpreter."""
    folder = tmp_path_factory.mktemp("jupyter")
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of all notebooks, which share the store of their images."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture
def execute(kernels: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUPYTER_PATH", str(kernels))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))  # else a kernel of the user's comes first
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(files))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)

    def run(name: str, folder: Path) -> str:
        """All that the cells have shown, as text, of a notebook with this current folder."""
        notebook = nbformat.reads((FOLDER / f"{name}.ipynb").read_text(), 4)
        for old, new in SMALLER.get(name, {}).items():
            cells = [cell for cell in notebook.cells if old in cell.source]
            assert len(cells) == 1, old
            cells[0].source = cells[0].source.replace(old, new)
        client = nbclient.NotebookClient(
            notebook, timeout=int(PATIENCE), kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Jupyter's packages about each other
            client.execute()
        return "\n".join(map(_shown, (output for cell in notebook.cells for output in cell.get("outputs", []))))

    yield run
    asyncio.set_event_loop(None)
    until(lambda: not _marked(f"ALEXLAB_TESTS={os.environ['ALEXLAB_TESTS']}"))  # what a kernel has begun ends after it


def _shown(output: Any) -> str:
    assert output.output_type != "error"
    if output.output_type == "stream":
        assert "Warning" not in output.text, output.text
        return output.text
    return re.sub(r"\x1b\[\d+m", "", output.data.get("text/plain", "")) + (
        " image/png" if "image/png" in output.data else ""
    )


@pytest.mark.slow
@pytest.mark.processes
def test_quick_start(execute, files: Path):
    shown = execute("1_quick_start", FOLDER)
    [page] = files.glob("alexlab-notebooks/reports/*/report.html")
    assert "<title>" in page.read_text()
    assert "paper/overlap_overfits" in page.with_name("claims.csv").read_text()
    assert "3 of 3 already done" in shown
    assert "A rehearsal" in shown
    assert shown.count("image/png") == 1  # the forest plot
    assert not (FOLDER / "runs").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.processes
def test_a_look_inside(execute):
    shown = execute("2_a_look_inside", PROJECT_DIR)
    assert shown.count("image/png") == 9
    assert "from 0.594" in shown
    [share] = re.findall(r"another answer: (\d+) of 150 images", shown)
    assert 0 < int(share) < 150


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.processes
def test_planning_a_study(execute):
    shown = execute("3_planning_a_study", FOLDER)
    wanted = seeds_needed(0.4, 0.3, 12)
    assert f"for the true effect: {wanted} seeds" in shown
    assert re.search(rf"^0\.4 +\d+ +{wanted} +\d+$", shown, re.MULTILINE)
    study = make_study(Composer(), ["study=lrn", "study.seeds=3"])
    runs = len(study.jobs())
    assert f"{runs} runs: 0 done, {runs} to do" in shown


def test_the_first_cell_installs_what_is_missing(tmp_path: Path):
    """By an interpreter that sees no packages (-S), and a pip that only says what it is told."""
    package = tmp_path / "pip"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; print(*sys.argv[1:])")
    cell = next("".join(cell["source"]) for cell in read("1_quick_start")["cells"] if cell["cell_type"] == "code")

    def told(folder: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-S", "-c", cell],
            cwd=folder,
            env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "ALEXLAB_SOURCE": "git+https://example.org/it"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert told(FOLDER) == told(PROJECT_DIR) == f"install --quiet --editable {PROJECT_DIR}"
    assert told(tmp_path) == "install --quiet git+https://example.org/it"
