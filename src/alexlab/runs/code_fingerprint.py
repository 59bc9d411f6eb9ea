"""A fingerprint of the code that decides results, so that runs of modified code get ids of their own.

Comments, docstrings and formatting do not count. known_code.json lists, for each RESULTS_VERSION, the fingerprints
known to give bit-identical results; `tests/runs/test_code_fingerprint.py` and the golden tests guard it.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
DECIDES = ("architecture.py", "distributed.py", "streams.py", "data", "models", "training")
ONLY_SHOWS = ("training/estimate.py", "training/progress_bar.py")  # modules in these folders that affect no result
_HAVE_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_WITHOUT_MEANING = ("ctx", "kind", "type_comment")  # implied by a node's position, or comments


def fingerprint(package: Path = PACKAGE) -> str:
    """The first 12 hex digits of a hash over the syntax trees of the modules that decide results."""
    found = hashlib.sha256()
    for name in DECIDES:
        path = package / name
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            relative = module.relative_to(package).as_posix()
            if relative not in ONLY_SHOWS:
                found.update(f"\n{relative}\n".encode())
                found.update(" ".join(_canonical(ast.parse(module.read_bytes()))).encode())
    return found.hexdigest()[:12]


def _canonical(node: object) -> Iterator[str]:
    """A syntax tree as text that is the same in every supported release of Python."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if name in _WITHOUT_MEANING or value is None or value == []:
                continue  # Python releases differ in their empty fields
            if (
                name == "body"
                and isinstance(node, _HAVE_DOCSTRINGS)
                and ast.get_docstring(node, clean=False) is not None
            ):
                value = value[1:]
            yield name
            yield from _canonical(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _canonical(item)
        yield "]"
    else:
        yield repr(node)


def known(results_version: int) -> dict[str, str]:
    """{fingerprint: description} of all code that gives the bits of a results version."""
    return json.loads(Path(__file__).with_name("known_code.json").read_text(encoding="utf-8"))[str(results_version)]


@cache
def modified(results_version: int) -> str | None:
    """The fingerprint of this code; None if it is known to give the results of this version."""
    return None if (found := fingerprint()) in known(results_version) else found
