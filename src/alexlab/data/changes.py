"""Changes to source files since a store was made from them, by name, size and modification time."""

from __future__ import annotations

import json
import os
from pathlib import Path

from alexlab.data.sources.source import is_ignored, is_ignored_folder

FileStates = dict[str, list[int]]  # {path below an input, empty for the input itself: [bytes, time of change in ns]}


def input_states(inputs: list[Path]) -> dict[str, FileStates]:
    """{absolute path of an input file or folder: the states of its files, empty if it is absent}."""
    return {str(Path(path).absolute()): _states(Path(path)) for path in inputs}


def describe_changes(before: dict[str, FileStates]) -> str:
    """The changes since `input_states` returned `before`: "2 files are new (a.jpg, b.jpg), 1 file changed (c.jpg)".

    Empty without changes. Inputs whose parent folder is missing (an unmounted disk) are not compared.
    """
    new: list[str] = []
    changed: list[str] = []
    gone: list[str] = []
    for path, old in before.items():
        if not Path(path).parent.exists():
            continue
        now, name = _states(Path(path)), Path(path).name
        new += [f"{name}/{file}" if file else name for file in now.keys() - old.keys()]
        gone += [f"{name}/{file}" if file else name for file in old.keys() - now.keys()]
        changed += [f"{name}/{file}" if file else name for file in now.keys() & old.keys() if now[file] != old[file]]
    parts = []
    for files, one, several in (
        (new, "is new", "are new"),
        (changed, "changed", "changed"),
        (gone, "is gone", "are gone"),
    ):
        if files:
            count = f"1 file {one}" if len(files) == 1 else f"{len(files):,} files {several}"
            parts.append(f"{count} ({', '.join(sorted(files)[:2])}{', ...' if len(files) > 2 else ''})")
    return ", ".join(parts)


def read_states(path: Path) -> dict[str, FileStates]:
    """Read the result of `input_states` from a JSON file.

    Raises:
        ValueError: if it holds anything else.
        OSError: if it cannot be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({error})") from error
    inputs = list(value.values()) if isinstance(value, dict) else [None]
    states = [state for files in inputs for state in (files.values() if isinstance(files, dict) else [None])]
    if not all(isinstance(state, list) and [type(number) for number in state] == [int, int] for state in states):
        raise ValueError(f"{path}: is not a table of source files with their sizes and times")
    return value


def _states(path: Path) -> FileStates:
    found: FileStates = {}
    if not path.is_dir():
        _add_state(found, "", path)
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not is_ignored_folder(name)]
        below = os.path.relpath(folder, path)
        prefix = "" if below == "." else f"{below}/"
        for name in files:
            if not is_ignored(name):
                _add_state(found, f"{prefix}{name}", Path(folder) / name)
    return found


def _add_state(found: FileStates, name: str, path: Path) -> None:
    try:
        status = path.stat()
    except OSError:  # missing, or a broken link
        return
    found[name] = [status.st_size, status.st_mtime_ns]
