"""Bundles: the plans and records of a folder of runs as one compressed file, which a report reads like the folder.

    studies/<study id>.json    what each study planned
    <run id>/<file>            the files of each record named in `FILES`: no weights, no log, nothing of W&B
    manifest.json              the SHA-256 hash of each of these, the commits of the code, the submitter
    verify.py                  checks all of this and recomputes every error from the predictions, with Python alone
    ro-crate-metadata.json     the same as RO-Crate metadata, for data repositories

Folders in configurations and plans are left out, so a bundle contains no path of the machine that made it. The same
records give the same bytes.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    *("net.py", "predictions.npz", "result.json", "status.json", "train_error.csv"),
)
_MEMBER = re.compile(rf"studies/[\w.-]+\.json|[0-9a-f]{{12}}/(?:{'|'.join(map(re.escape, FILES))})")
_DESCRIBING = (verify.MANIFEST, verify.VERIFIER, verify.CRATE)
_MANIFEST = {"version": INTEGER, "submitter": TEXT | NULL, "commits": [TEXT], "files": {ANY: TEXT}}
HERE = "here"  # stands for the submitter of runs in a folder
LONGEST_SUBMITTER = 200
_UNREADABLE = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error)
_FOLDERS = {
    "data": {"raw": None, "root": None, "cache": "cache", "stage": None},
    "paths": {"runs": "runs", "code": None},
}
_OVERRIDE = re.compile(r"(data\.(raw|root|cache|stage)|paths\.(runs|code))=")


@dataclass(frozen=True)
class Source:
    """A folder of runs, or a bundle unpacked to a folder that is removed when this process ends."""

    folder: Path
    name: str  # shown to the user: the folder or the bundle's file, as given
    is_bundle: bool = False
    submitter: str | None = None  # from a bundle's manifest

    @property
    def who(self) -> str:
        """The submitter of its runs; the bundle's file if the manifest has no submitter."""
        return self.submitter or (self.name if self.is_bundle else HERE)

    def __str__(self) -> str:
        return f"{self.name} ({self.submitter})" if self.submitter else self.name

    def named(self, text: str) -> str:
        """The text with the bundle's file in place of the folder that it was unpacked to."""
        return text.replace(str(self.folder), self.name) if self.is_bundle else text


def source(place: Path) -> Source:
    """Open a folder of runs or a bundle, which is unpacked; raises the errors of `unpacked`."""
    if not place.is_file():
        return Source(place, str(place))
    folder, submitter = _unpack(place)
    return Source(folder, str(place), True, submitter)


def check_submitter(name: str) -> None:
    """Raise ValueError unless a name fits into a line of a table."""
    if not (name.strip() and name.isprintable() and len(name) <= LONGEST_SUBMITTER):
        shown = repr(name[:40]) + "..." * (len(name) > 40)
        raise ValueError(f"submitter is {shown}, must be one line of 1 to {LONGEST_SUBMITTER} printable characters")


def pack(
    path: Path,
    runs: Path,
    run_ids: Sequence[str],
    submitter: str | None = None,
    plans: Iterable[Path] | None = None,
) -> None:
    """Write some of a folder's records, and the given plans or all, to a bundle; an existing file is replaced.

    `submitter`: who is responsible for the runs, such as a laboratory. Only one file at a time is held in memory.

    Raises:
        UserError: for a corrupt plan, or a file that is too large for a record.
    """
    hashes: dict[str, str] = {}
    with (
        open_atomic(path) as temporary,
        zipfile.ZipFile(temporary.file, "w") as archive,
    ):

        def add(name: str, content: bytes) -> None:
            member = zipfile.ZipInfo(name)  # its default date, in 1980, makes the bytes reproducible
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, content)
            hashes[name] = sha256(content).hexdigest()

        for plan in json_files(runs / "studies") if plans is None else sorted(plans):
            add(f"studies/{plan.name}", _plan(plan))
        for run_id in sorted(run_ids):
            for name in FILES:
                file = runs / run_id / name
                if file.is_file():
                    add(f"{run_id}/{name}", _file_of_record(file))
        records = [Record(runs, run_id) for run_id in run_ids]
        add(verify.VERIFIER, Path(verify.__file__).read_bytes())
        ended = max((record.status().get("ended") or 0.0 for record in records), default=0.0)
        add(verify.CRATE, _json(_crate([*hashes, verify.MANIFEST], submitter, ended)))
        commits = {record.read("environment.json").get("git_commit") for record in records}
        manifest = {
            "version": verify.VERSION,
            "submitter": submitter,
            "commits": sorted(commit for commit in commits if commit),
            "files": dict(sorted(hashes.items())),
        }
        add(verify.MANIFEST, _json(manifest))


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _plan(path: Path) -> bytes:
    try:
        return _json(_without_folders(read_json(path, {}, verify.LARGEST)))
    except ValueError as error:
        raise UserError(f"{path}: is corrupt ({error}); restore it from a backup") from error


def _file_of_record(path: Path) -> bytes:
    try:
        content = read_regular(path, verify.LARGEST)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return _neutral_config(content.decode()).encode() if path.name == "config.yaml" else content


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


def is_bundle(path: Path) -> bool:
    """Whether a file is a zip archive of nothing but plans and records, which a new bundle may replace."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _UNREADABLE:
        return False
    return bool(names) and all(map(_is_member, names))


def _is_member(name: str) -> bool:
    return name in _DESCRIBING or _MEMBER.fullmatch(name) is not None


def unpacked(path: Path) -> Path:
    """Unpack a bundle to a folder of runs, which is removed when this process ends.

    A file whose hash differs from the manifest's is refused; bundles made before manifests existed have no hashes.

    Raises:
        UserError: for a file that is not a bundle, is corrupt or modified, or contains other than plans and records.
    """
    return _unpack(path)[0]


def _unpack(path: Path) -> tuple[Path, str | None]:
    """The folder that `unpacked` returns, and the submitter of its runs."""
    folder = process_folder()
    made: set[Path] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if not members:
                raise ValueError("it is an empty archive")
            verify.check_size(members)
            if odd := verify.odd_members(members):
                raise ValueError(odd[0])
            manifest = _manifest(archive, path)
            hashes = None if manifest is None else manifest["files"]
            if hashes is not None and (
                unlisted := set(hashes) ^ ({member.filename for member in members} - {verify.MANIFEST})
            ):
                raise UserError(f"{path}: its files and its manifest differ in {min(unlisted)}; download it again")
            for member in members:
                if not _is_member(member.filename):
                    raise UserError(f"{path}: contains {member.filename!r}, which does not belong in a bundle")
            for member in members:
                if member.filename in _DESCRIBING:
                    continue
                target = folder / member.filename
                if target.parent not in made:
                    target.parent.mkdir()
                    made.add(target.parent)
                content = verify.read_member(archive, member.filename, verify.LARGEST)  # checked by its CRC
                if hashes is not None and sha256(content).hexdigest() != hashes[member.filename]:
                    raise UserError(f"{path}: {member.filename} was modified after packing; download it again")
                target.write_bytes(content)
    except _UNREADABLE as error:
        raise UserError(f"{path}: is not a bundle ({error}); python src/runs.py bundle makes one") from error
    return folder, None if manifest is None else manifest.get("submitter")


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any] | None:
    """A bundle's manifest; None if it was made before manifests existed."""
    if verify.MANIFEST not in archive.namelist():
        return None
    found = json.loads(verify.read_member(archive, verify.MANIFEST))
    check_types(found, _MANIFEST)
    if (version := found.get("version")) != verify.VERSION:
        raise UserError(
            f"{path}: is a bundle of version {version}, but this code reads version {verify.VERSION}; use the version "
            "of alexlab that made it"
        )
    if "files" not in found:
        raise ValueError(f"{verify.MANIFEST} lists no files")
    if found.get("submitter") is not None:
        check_submitter(found["submitter"])
    return found


def _neutral_config(text: str) -> str:
    """A record's config.yaml without the machine's folders; of a weights file only the name is kept."""
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
