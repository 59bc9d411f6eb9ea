"""Bundles: the plans and records of a folder of runs as one compressed file, which a report reads like the folder.

    studies/<study id>.json    what each study planned
    <run id>/<file>            of each record what `FILES` names: no weights, no log, nothing of W&B
    manifest.json              the SHA-256 hash of each of these, the commits of the code, who submits it
    verify.py                  checks all that, and every error from its predictions, with Python alone
    ro-crate-metadata.json     the same as an RO-Crate, for repositories of data

Folders in configurations and plans are left out, so that a bundle has no path of the machine that made it. The same
records give the same bytes.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from alexlab.errors import UserError
from alexlab.files import json_files, open_atomic, process_folder, read_regular
from alexlab.runs import verify
from alexlab.runs.record import Record
from alexlab.tree import ANY, INTEGER, NULL, TEXT, check_types, read_json

FILES = (
    *("config.yaml", "conv1.npy", "diverged.json", "environment.json", "metrics.csv", "neighbours.json"),
    *("predictions.npz", "result.json", "status.json", "train_error.csv"),
)
_MEMBER = re.compile(
    rf"studies/[\w.-]+\.json|[0-9a-f]{{12}}/[\w-]+\.(?:{'|'.join({name.split('.')[1] for name in FILES})})"
)
_DESCRIBING = (verify.MANIFEST, verify.VERIFIER, verify.CRATE)
MANIFEST_VERSION = 1
_MANIFEST = {"version": INTEGER, "submitter": TEXT | NULL, "commits": [TEXT], "files": {ANY: TEXT}}
_LARGEST, _ALL = 2**28, 2**33  # bytes of one file, and of all
_FOLDERS = {
    "data": {"raw": None, "root": None, "cache": "cache", "stage": None},
    "paths": {"runs": "runs", "code": None},
}
_OVERRIDE = re.compile(r"(data\.(raw|root|cache|stage)|paths\.(runs|code))=")


def pack(path: Path, runs: Path, run_ids: Sequence[str], submitter: str | None = None) -> None:
    """Write the bundle of some of a folder's records, and of all of its plans, to a file, which is replaced.

    `submitter`: who answers for the runs, such as a laboratory.
    """
    members: dict[str, bytes] = {}
    for plan in json_files(runs / "studies"):
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
    members |= _described(members, [Record(runs, run_id) for run_id in run_ids], submitter)
    with (
        open_atomic(path) as temporary,
        zipfile.ZipFile(temporary.file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name, content in members.items():
            member = zipfile.ZipInfo(name)  # with the date of 1980
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, content)


def _described(members: dict[str, bytes], records: Sequence[Record], submitter: str | None) -> dict[str, bytes]:
    """The files of a bundle that describe the others."""
    commits = {record.read("environment.json").get("git_commit") for record in records}
    ended = max((record.status().get("ended") or 0.0 for record in records), default=0.0)
    verifier = Path(verify.__file__).read_bytes()
    crate = _crate([*members, verify.VERIFIER, verify.MANIFEST], submitter, ended)
    described = {verify.VERIFIER: verifier, verify.CRATE: (json.dumps(crate, indent=1) + "\n").encode()}
    manifest = {
        "version": MANIFEST_VERSION,
        "submitter": submitter,
        "commits": sorted(commit for commit in commits if commit),
        "files": {name: sha256(content).hexdigest() for name, content in sorted({**members, **described}.items())},
    }
    return {**described, verify.MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode()}


def _crate(names: Sequence[str], submitter: str | None, ended: float) -> dict[str, Any]:
    """The metadata of an RO-Crate (w3id.org/ro/crate/1.1), with the date of the last run."""
    people = [{"@id": "#submitter", "@type": "Organization", "name": submitter}] if submitter else []
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": "Records of alexlab's runs",
        "description": "Plans, configurations, environments and predictions of training runs, without weights.",
        "datePublished": datetime.fromtimestamp(ended, UTC).date().isoformat(),
        "license": "Results of the submitters; see the archive that publishes them.",
        "hasPart": [{"@id": name} for name in names],
        **({"author": [{"@id": one["@id"]} for one in people]} if people else {}),
    }
    about = {
        "@id": verify.CRATE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    files = [{"@id": name, "@type": "File"} for name in names]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [about, root, *people, *files]}


def opened(path: Path) -> Path:
    """The folder of runs that a bundle holds: unpacked until this process ends.

    A file whose hash is not that of the manifest is refused; bundles made before there were manifests have none.

    Raises:
        UserError: for a file that is no bundle, is corrupt or was changed, or holds anything but plans and records.
    """
    folder = process_folder()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _ALL:
                raise UserError(f"{path}: unpacks to more than {_ALL // 2**30} GiB, which no bundle does")
            hashes = _hashes(archive)
            if hashes is not None and (
                odd := set(hashes) ^ ({member.filename for member in members} - {verify.MANIFEST})
            ):
                raise UserError(f"{path}: {min(odd)} is in its files or in its manifest, not in both; fetch it again")
            for member in members:
                if member.filename in _DESCRIBING:
                    continue
                if not _MEMBER.fullmatch(member.filename) or member.file_size > _LARGEST:
                    raise UserError(f"{path}: holds {member.filename!r}, which no bundle does")
                target = folder / member.filename
                target.parent.mkdir(exist_ok=True)
                content = archive.read(member)  # checked by its CRC
                if hashes is not None and sha256(content).hexdigest() != hashes[member.filename]:
                    raise UserError(f"{path}: {member.filename} was changed after the bundle was made; fetch it again")
                target.write_bytes(content)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error) as error:
        raise UserError(f"{path}: is not a bundle ({error}); python src/runs.py bundle makes one") from error
    return folder


def _hashes(archive: zipfile.ZipFile) -> dict[str, str] | None:
    """{file: hash} of a bundle's manifest."""
    if verify.MANIFEST not in archive.namelist():
        return None
    if archive.getinfo(verify.MANIFEST).file_size > _LARGEST:
        raise ValueError(f"{verify.MANIFEST} is too large")
    found = json.loads(archive.read(verify.MANIFEST))
    check_types(found, _MANIFEST)
    if found.get("version") != MANIFEST_VERSION:
        raise OSError(
            f"{verify.MANIFEST} is version {found.get('version')}, this code reads version {MANIFEST_VERSION}"
        )
    return found["files"]


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
