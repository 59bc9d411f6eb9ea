"""Python processes that a command starts: all of them run the command's own code."""

from __future__ import annotations

import os
from pathlib import Path

from alexlab.config import CONF_DIR


def inherit_code() -> None:
    """Make child processes import this same package, whatever the current folder.

    multiprocessing, loky, submitit and Ray start Python with -c or -m. Python then looks for modules in the current
    folder first, which PYTHONSAFEPATH prevents, and next finds the installed package, which may be another checkout's.
    multiprocessing's fork server loads its modules without this process's `sys.path` (python/cpython#117378).
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    root = Path(__file__).absolute().parents[1]
    if CONF_DIR.parent != root.parent:
        return  # installed: a child finds it where this process did
    # Absolute, since a child may start in another folder, where `src` is another one or none.
    given = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *(path for path in given if path != str(root))])
