"""Bundles: the plans and records of a folder of runs as one compressed file, which a report reads like the folder.

    studies/<study id>.json    what each study planned
    <run id>/<file>            of each record what `FILES` names: no weights, no log, nothing of W&B

Folders in configurations and plans are left out, so that a bundle has no path of the machine that made it. The same
records give the same bytes.
"""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alexlab.errors import UserError
from alexlab.files import is_foreign, open_atomic, read_regular
from alexlab.tree import read_json

FILES = (
    *("config.yaml", "conv1.npy", "diverged.json", "environment.json", "metrics.csv", "neighbours.json"),
    *("predictions.npz", "result.json", "status.json", "train_error.csv"),
)
_MEMBER = re.compile(
    rf"studies/[\w.-]+\.json|[0-9a-f]{{12}}/[\w-]+\.(?:{'|'.join({name.split('.')[1] for name in FILES})})"
)
_LARGEST, _ALL = 2**28, 2**33  # bytes of one file, and of all
_FOLDERS = {"data": {"raw": None, "root": None, "cache": "cache", "stage": None}, "paths": {"runs": "runs"}}
_OVERRIDE = re.compile(r"(data\.(raw|root|cache|stage)|paths\.runs)=")


def pack(path: Path, runs: Path, run_ids: Sequence[str]) -> None:
    """Write the bundle of some of a folder's records, and of all of its plans, to a file, which is replaced."""
    members: dict[str, bytes] = {}
    for plan in sorted((runs / "studies").glob("*.json")):
        if is_foreign(plan.name):
            continue
        try:
            content = _without_folders(read_json(plan, {}, _LARGEST))
        except ValueError as error:
            raise UserError(f"{plan}: is corrupt ({error}); bring it back from a copy") from error
        members[f"studies/{plan.name}"] = (json.dumps(content, indent=1) + "\n").encode()
    for run_id in sorted(run_ids):
        for name in FILES:
            file = runs / run_id / name
            if file.is_file():
                content = read_regular(file, _LARGEST)
                if name == "config.yaml":
                    content = _neutral_config(content.decode()).encode()
                members[f"{run_id}/{name}"] = content
    with (
        open_atomic(path) as temporary,
        zipfile.ZipFile(temporary.file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name, content in members.items():
            member = zipfile.ZipInfo(name)  # with the date of 1980
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, content)


def opened(path: Path) -> Path:
    """The folder of runs that a bundle holds: unpacked until this process ends.

    Raises:
        UserError: for a file that is no bundle, is corrupt, or holds anything else than plans and records.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"alexlab-{path.stem}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _ALL:
                raise UserError(f"{path}: unpacks to more than {_ALL // 2**30} GiB, which no bundle does")
            for member in members:
                if not _MEMBER.fullmatch(member.filename) or member.file_size > _LARGEST:
                    raise UserError(f"{path}: holds {member.filename!r}, which no bundle does")
                target = folder / member.filename
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(archive.read(member))  # checked by its CRC
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise UserError(f"{path}: is not a bundle ({error}); python src/runs.py bundle makes one") from error
    return folder


def _neutral_config(text: str) -> str:
    """A record's config.yaml without the folders of a machine; only the name of a file of weights stays."""
    lines, section = [], ""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "#")):
            section = name
        folders = _FOLDERS.get(section, {})
        if name.startswith("  ") and name.strip() in folders:
            line = f"{name}: {folders[name.strip()] or 'null'}"
        elif name == "weights" and value.strip() != "null":
            line = f"{name}: {Path(value.strip()).name}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _without_folders(content: Any) -> Any:
    """A plan without the overrides that name folders."""
    if isinstance(content, dict):
        return {name: None if name == "config_dir" else _without_folders(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_without_folders(one) for one in content if not (isinstance(one, str) and _OVERRIDE.match(one))]
    return content


def folders(places: Sequence[Path]) -> Iterator[Path]:
    """Folders of runs, each bundle among them unpacked."""
    for place in places:
        yield opened(place) if place.is_file() else place
