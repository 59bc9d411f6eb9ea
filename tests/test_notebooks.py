"""The notebooks of notebooks/: their stored outputs, and executed as a reader would, with fewer seeds and epochs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from alexlab.compose import Composer
from alexlab.config import PROJECT_DIR
from alexlab.study.power import seeds_needed
from alexlab.sweep.study_plan import make_study
from notebooks import FOLDER, NAMES, environment, execute
from support.commands import PATIENCE, until
from support.settings import _marked

# What the tests make smaller, by notebook: text of a cell, and what stands there instead.
SMALLER = {
    "1_quick_start": {
        "study.seeds=3": "study.seeds=1",
        "study.base_seeds=3": "study.base_seeds=2",
        "data.train_images=1600": "data.train_images=400",
        "data.val_images=200": "data.val_images=20",
        "data.test_images=400": "data.test_images=150",
        "trainer.max_epochs=8": "trainer.max_epochs=4",
    },
    "2_a_look_inside": {
        '"seed=0"': '"data.train_images=400", "data.val_images=30", "data.test_images=150", "trainer.max_epochs=2"'
    },
}
LARGEST = 600_000  # bytes of a notebook


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.iterdir()) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stored(name: str):
    """Of one execution from start to end, without a warning, a path of the machine or times of the execution.

    If not: python tests/notebooks.py.
    """
    notebook, text = read(name), (FOLDER / f"{name}.ipynb").read_text()
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert "image/png" in {kind for output in outputs for kind in output.get("data", {})}
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert len(text) < LARGEST
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    assert f"{PROJECT_DIR}/" not in text
    assert set(re.findall(r"(?<![\w.:/])/(?:tmp|home|root|work|Users)/[\w.-]*", text)) <= {"/tmp/alexlab-notebooks"}
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"] == {"name": "python"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of all notebooks, which share the store of their images."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture
def shown_by(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in environment(tmp_path / "jupyter").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(files))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)

    def run(name: str, folder: Path) -> dict[str, str]:
        """Execute a notebook in a folder; return what its code cells have shown as text, by their source."""
        notebook = execute(name, folder, SMALLER.get(name), int(PATIENCE))
        return {cell.source: shown(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"}

    yield run
    asyncio.set_event_loop(None)
    until(lambda: not _marked(f"ALEXLAB_TESTS={os.environ['ALEXLAB_TESTS']}"))  # what a kernel has begun ends after it


def shown(outputs: list[Any]) -> str:
    return "\n".join(map(_shown, outputs))


def _shown(output: Any) -> str:
    assert output["output_type"] != "error"
    if output["output_type"] == "stream":
        text = "".join(output["text"])
        assert "Warning" not in text, text
        return text
    text = "".join(output["data"].get("text/plain", ""))
    return re.sub(r"\x1b\[\d+m", "", text) + (" image/png" if "image/png" in output["data"] else "")


@pytest.mark.slow
@pytest.mark.processes
def test_quick_start(shown_by, files: Path):
    shown = "\n".join(shown_by("1_quick_start", FOLDER).values())
    [page] = files.glob("alexlab-notebooks/reports/*/report.html")
    assert "<title>" in page.read_text()
    assert "paper/overlap_overfits" in page.with_name("claims.csv").read_text()
    assert "3 of 3 already done" in shown
    assert "A rehearsal" in shown
    assert shown.count("image/png") == 3  # the forest plot, the runs, the learning curves
    assert not (FOLDER / "runs").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.processes
def test_a_look_inside(shown_by):
    shown = "\n".join(shown_by("2_a_look_inside", PROJECT_DIR).values())
    assert shown.count("image/png") == 10
    assert "from 0.594" in shown
    [share] = re.findall(r"another answer: (\d+) of 150 images", shown)
    assert 0 < int(share) < 150


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.processes
def test_planning_a_study(shown_by):
    shown = "\n".join(shown_by("3_planning_a_study", FOLDER).values())
    wanted = seeds_needed(0.4, 0.3, 12)
    assert f"for the true effect: {wanted} seeds" in shown
    assert re.search(rf"^0\.4 +\d+ +{wanted} +\d+$", shown, re.MULTILINE)
    study = make_study(Composer(), ["study=lrn", "study.seeds=3"])
    runs = len(study.jobs())
    assert f"{runs} runs: 0 done, {runs} to do" in shown


@pytest.mark.slow
@pytest.mark.processes
def test_a_lesson_on_seeds(shown_by):
    """It trains nothing, so what it shows is what is stored, but for figure 1, whose records grow."""
    cells = shown_by("4_a_lesson_on_seeds", PROJECT_DIR)
    for cell in read("4_a_lesson_on_seeds")["cells"]:
        if cell["cell_type"] == "code" and "figure1" not in (source := "".join(cell["source"])):
            assert cells[source].split() == shown(cell["outputs"]).split(), source
    with zipfile.ZipFile(PROJECT_DIR / "results" / "demo" / "records.zip") as bundle:
        found = [json.loads(bundle.read(name)) for name in bundle.namelist() if name.endswith("result.json")]
    base = [100 * run["test"]["ten"]["top1_error"] for run in found if run["labels"]["ablation"] == "none"]
    mean, sd = statistics.mean(base), statistics.stdev(base)
    text = "\n".join(cells.values())
    assert f"{len(base)} runs: mean {mean:.1f} %, from {min(base):.1f} to {max(base):.1f} %" in text
    assert f"standard deviation {sd:.1f} points" in text
    pairs = [abs(one - other) for i, one in enumerate(base) for other in base[:i]]
    assert f"{sum(pair > 4.3 for pair in pairs) / len(pairs):.0%} of {len(pairs)} pairs" in text


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
