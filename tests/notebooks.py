"""Execute the notebooks of notebooks/ and store them with their outputs: `python tests/notebooks.py [NAME ...]`.

Runs that were trained before are reused from the temporary folder `alexlab-notebooks`. Outputs are stored without
progress lines, times of execution and paths of this machine, and images with 256 colours, a third as large.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from alexlab.config import PROJECT_DIR

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Jupyter's packages about each other
    import nbclient
    import nbformat

FOLDER = PROJECT_DIR / "notebooks"
NAMES = ("1_quick_start", "2_a_look_inside", "3_planning_a_study", "4_a_lesson_on_seeds")
SHOWN = {"image/png", "text/html", "text/plain"}  # kinds of output that are stored


def environment(folder: Path) -> dict[str, str]:
    """Variables with which Jupyter finds one kernel, `python3`, in an empty folder: this interpreter."""
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return {
        "JUPYTER_PATH": str(folder),
        "JUPYTER_DATA_DIR": str(folder / "data"),  # else a kernel of the user's comes first
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": str(PROJECT_DIR / "src"),  # else the kernel imports the checkout that is installed
    }


def execute(name: str, folder: Path, smaller: Mapping[str, str] | None = None, timeout: int = 3600) -> Any:
    """Execute a notebook from start to end in this current folder; return it with its outputs.

    `smaller`: texts that are in exactly one cell, and what replaces them. `timeout`: seconds for each cell.
    """
    notebook = nbformat.reads((FOLDER / f"{name}.ipynb").read_text(), 4)
    for old, new in (smaller or {}).items():
        [cell] = [cell for cell in notebook.cells if old in cell.source]
        cell.source = cell.source.replace(old, new)
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", record_timing=False, resources=resources
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's packages about each other
        client.execute()
    return notebook


def stored(notebook: Any) -> str:
    """Return the content of an executed notebook's file."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined([output for output in cell.outputs if output.get("name") != "stderr"])
            for data in (output.data for output in cell.outputs if "data" in output):
                for kind in data.keys() - SHOWN:
                    del data[kind]
                if "image/png" in data:
                    data["image/png"] = smaller_image(data["image/png"])
    text = nbformat.writes(notebook).rstrip() + "\n"
    return text.replace(tempfile.gettempdir(), "/tmp")


def joined(outputs: list[Any]) -> list[Any]:
    """Join adjacent pieces of one stream."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == "stream" and found[-1].get("name") == output.name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def smaller_image(encoded: str) -> str:
    """A PNG, encoded as base64, with a palette."""
    image, packed = Image.open(io.BytesIO(base64.b64decode(encoded))), io.BytesIO()
    image.convert("RGB").quantize(256).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def main() -> int:
    named = sys.argv[1:] or list(NAMES)
    if unknown := [name for name in named if name not in NAMES]:
        print(f"error: {unknown[0]}: is none of {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in named:
        with tempfile.TemporaryDirectory() as jupyter:
            os.environ.update(environment(Path(jupyter)))
            text = stored(execute(name, FOLDER))
        (FOLDER / f"{name}.ipynb").write_text(text)
        print(f"{name}: {len(text) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
