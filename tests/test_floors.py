"""The floors of the package: a module imports only from floors below its own, and no import goes in a circle."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter

from alexlab.config import PROJECT_DIR

SRC = PROJECT_DIR / "src"
# From the top. Packages and modules of `alexlab`; those of one floor may import each other, though not in a circle.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("sweep", "evidence"),
    ("report",),
    ("study",),
    ("runs",),
    ("training",),
    ("compose",),
    ("validate",),
    ("data", "models"),
    ("architecture", "children", "command", "own_net"),
    ("spelling",),
    ("config",),
    (
        *("console", "distributed", "errors", "files", "hydra_compat", "output", "progress", "streams", "crossings"),
        *("tree", "lean", "signals", "tiles"),
    ),
    ("alexlab",),  # the package itself, which every import of a module runs first
    ("threads",),
)
# Upward or circular on purpose, inside a function.
ALLOWED = {
    ("alexlab.config", "alexlab.compose"),  # `config.load` is a published name; composing needs Hydra
    ("alexlab", "alexlab.runs.trained"),  # likewise `alexlab.load_run`, which needs torch
    ("alexlab", "alexlab.study.sweeps"),  # and `alexlab.load_sweep`, which needs pandas
}


@cache
def find_imports() -> dict[str, set[str]]:
    """{module: modules of the package that it imports}, also within functions and for types alone."""
    paths = {".".join(path.relative_to(SRC).with_suffix("").parts): path for path in SRC.rglob("alexlab/**/*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: imports are absolute"
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name in paths else str(node.module) for name in full}
        found[module] = {name for name in names & paths.keys() if (module, name) not in ALLOWED}
    return found


def floor(module: str) -> int:
    """Counted from the top."""
    name = module.removeprefix("alexlab.").split(".")[0]
    return next(number for number, names in enumerate(FLOORS) if name in names)


def test_imports_go_down():
    arrows = [(name, one) for name, found in find_imports().items() for one in found]
    up = [f"{name} imports {one}" for name, one in arrows if floor(one) < floor(name)]
    assert not up


def test_no_import_goes_in_a_circle():
    TopologicalSorter(find_imports()).prepare()  # which raises with the circle
