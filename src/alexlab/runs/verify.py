"""Check bundles of alexlab's records: python verify.py BUNDLE.zip [ANOTHER.zip ...]

Needs only Python 3.8 or later. It checks that

- every file has the SHA-256 hash listed in manifest.json, and that no file is missing or added;
- every test error in a result.json equals the one computed from the run's predictions, image by image.

It also lists planned runs that are missing, and for several bundles compares the predictions of runs that they share,
bit by bit.

It cannot check how the predictions were made. If you doubt them, train a run again: the same code and machine reproduce
it to the last bit. If you doubt a bundle, take this file from the project instead.
Exit status: 0 everything checks out, 1 something does not, 2 a file cannot be read as a bundle.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import stat
import sys
import zipfile
from array import array
from collections import Counter
from operator import eq, or_

VERSION = 1  # of a bundle
MANIFEST, CRATE, VERIFIER = "manifest.json", "ro-crate-metadata.json", "verify.py"
LARGEST, LARGEST_ARRAY, ALL = 2**28, 2**26, 2**33  # bytes of a file, of an array of predictions, of all files
MOST = 200_000  # files
TYPES = {"<i8": "q", "<i4": "i", "<i2": "h", "|u1": "B", "|i1": "b"}


def read_array(content: bytes) -> tuple[array[int], tuple[int, ...]]:
    """The integers of a .npy file, in C order, and their shape.

    Raises:
        ValueError: for any other content.
    """
    if content[:6] != b"\x93NUMPY" or len(content) < 12:
        raise ValueError("is not an array")
    size = 2 if content[6] == 1 else 4
    end = 8 + size + int.from_bytes(content[8 : 8 + size], "little")
    if end - 8 - size > 10_000:
        raise ValueError("has a header that is too long")
    header = ast.literal_eval(content[8 + size : end].decode("latin-1"))
    shape = header["shape"]
    if header["fortran_order"] or header["descr"] not in TYPES:
        raise ValueError(f"is an array of {header['descr']}")
    values = array(TYPES[header["descr"]])
    values.frombytes(content[end:])
    if sys.byteorder == "big":
        values.byteswap()
    count = 1
    for length in shape:
        count *= length
    if count != len(values):
        raise ValueError("does not have the number of values that its header gives")
    return values, shape


def read_member(archive: zipfile.ZipFile, name: str, limit: int = LARGEST) -> bytes:
    """Read a file of an archive, whose size is limited whatever the archive claims.

    Raises:
        ValueError, zipfile.BadZipFile: for a file that is larger, or differs from what the archive claims.
    """
    member = archive.getinfo(name)
    if member.file_size > limit:
        raise ValueError(f"{name} unpacks to {member.file_size:,} bytes")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} has a compression method whose output size cannot be limited")
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)  # without a number, zipfile unpacks up to 2 GiB at once
    if len(content) != member.file_size:
        raise ValueError(f"{name} has {len(content):,} bytes, but the archive claims {member.file_size:,}")
    return content


def check_size(members: list[zipfile.ZipInfo]) -> None:
    """Raise ValueError for more files, or more bytes in them, than any bundle has."""
    if len(members) > MOST:
        raise ValueError(f"contains {len(members):,} files, more than {MOST:,}")
    if sum(member.file_size for member in members) > ALL:
        raise ValueError(f"unpacks to more than {ALL // 2**30} GiB")


def odd_members(members: list[zipfile.ZipInfo]) -> list[str]:
    """A line for each duplicate name, and for each entry that is not a regular file."""
    twice = [name for name, count in Counter(member.filename for member in members).items() if count > 1]
    kinds = {member.filename: stat.S_IFMT(member.external_attr >> 16) for member in members}
    others = [name for name, kind in kinds.items() if name.endswith("/") or kind not in (0, stat.S_IFREG)]
    return [f"{name}: is duplicated" for name in sorted(twice)] + [f"{name}: is not a regular file" for name in others]


def errors_of(predictions: bytes) -> dict[str, dict[str, float]]:
    """Top-1 and top-5 error by kind of view, from the content of a predictions.npz."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(predictions)) as arrays:
        labels, _ = read_array(read_member(arrays, "labels.npy", LARGEST_ARRAY))
        if not labels:
            raise ValueError("has no images")
        for view in ("center", "ten"):
            if f"{view}_top5.npy" not in arrays.namelist():
                continue
            classes, (images, places) = read_array(read_member(arrays, f"{view}_top5.npy", LARGEST_ARRAY))
            if images != len(labels) or not 0 < places <= 5:
                raise ValueError(f"has {len(labels)} labels for {images} images of {places} classes each")
            hits = list(map(eq, classes[::places], labels))
            first = images - sum(hits)
            for place in range(1, places):
                hits = list(map(or_, hits, map(eq, classes[place::places], labels)))
            found[view] = {"top1_error": first / images, "top5_error": (images - sum(hits)) / images}
    return found


def check_run(run: str, files: dict[str, bytes]) -> list[str]:
    """A line for each fault in the errors of one record."""
    try:
        result = json.loads(files["result.json"])
        found = errors_of(files["predictions.npz"])
        if result["run_id"] != run:
            return [f"{run}: its result is that of run {result['run_id']}"]
        views = [view for view, errors in result["test"].items() if isinstance(errors, dict)]
        wrong = [f"{run}: has no predictions for view {view}" for view in views if view not in found]
        for view, errors in found.items():
            for metric, error in errors.items():
                stated = result["test"][view][metric]
                if not abs(stated - error) <= 1e-9:
                    wrong.append(f"{run}: {metric} of view {view} is {stated:.6f}, but {error:.6f} by its predictions")
        return wrong if found else [f"{run}: has no predictions"]
    except Exception as error:  # an untrusted file may contain anything
        return [f"{run}: its predictions cannot be checked ({type(error).__name__}: {error})"]


def verify(path: str) -> tuple[list[str], list[str], dict[str, str]]:
    """Check a bundle; return lines about it, lines about its faults, and {finished run: SHA-256 of its predictions}.

    Raises:
        ValueError, KeyError, OSError, zipfile.BadZipFile: for a file that is not a bundle.
    """
    lines: list[str] = []
    with zipfile.ZipFile(path) as archive:
        check_size(archive.infolist())
        if MANIFEST not in archive.namelist():
            raise ValueError(
                f"it has no {MANIFEST}; to add one to an older bundle: alexlab runs bundle NEW.zip paths.runs=OLD.zip"
            )
        content = read_member(archive, MANIFEST)
        manifest = json.loads(content)
        if manifest["version"] != VERSION:
            raise ValueError(
                f"it is a bundle of version {manifest['version']}, but this verifier is for version {VERSION}; "
                "use the one from the version of the project that made it"
            )
        listed, names = manifest["files"], set(archive.namelist())
        wrong = odd_members(archive.infolist())
        wrong += [f"{name}: is missing" for name in sorted(set(listed) - names)]
        wrong += [f"{name}: is not in the manifest" for name in sorted(names - set(listed) - {MANIFEST})]
        files: dict[str, set[str]] = {}  # of each record
        pair: dict[str, bytes] = {}  # of the record being read
        planned: set[str] = set()
        done: set[str] = set()
        digests: dict[str, str] = {}
        for name in sorted(set(listed) & names):
            data = read_member(archive, name)
            digest = hashlib.sha256(data).hexdigest()
            if digest != listed[name]:
                wrong.append(f"{name}: has another hash than in the manifest")
            run, _, file = name.partition("/")
            if run == "studies":
                for arm in json.loads(data)["looks"][-1]["arms"]:
                    planned.update(arm["runs"].values())
            elif file:
                if run not in files:  # only one record is held in memory
                    pair.clear()
                files.setdefault(run, set()).add(file)
                if file == "status.json" and json.loads(data)["state"] == "DONE":
                    done.add(run)
                if file in ("result.json", "predictions.npz"):
                    pair[file] = data
                    if len(pair) == 2:
                        wrong += check_run(run, pair)
                if file == "predictions.npz":
                    digests[run] = digest
    finished = {run for run, found in files.items() if "result.json" in found or "predictions.npz" in found} | done
    for run in sorted(finished):
        for file, what in (("result.json", "result"), ("predictions.npz", "predictions")):
            if file not in files[run]:
                wrong.append(f"{run}: has no {what}")
    failed = len(files) - len(finished)
    also = f"; {failed} failed permanently" if failed else ""
    lines.append(f"{len(listed)} files, {len(finished)} finished runs, errors computed from their predictions{also}")
    if missing := sorted(planned - set(files)):
        more = " ..." if len(missing) > 5 else ""
        lines.append(f"planned runs that are missing: {len(missing)} ({', '.join(missing[:5])}{more})")
    commits = ", ".join(manifest["commits"]) or "unknown"
    lines.append(f"code {commits}; submitted by {manifest['submitter'] or 'an unnamed submitter'}")
    lines.append(f"SHA-256 of the manifest, for citation: {hashlib.sha256(content).hexdigest()}")
    return lines, wrong, digests


def compare(digests: dict[str, dict[str, str]]) -> list[str]:
    """For each pair of bundles, the number of runs in both, and how many of those have the same predictions."""
    lines = []
    paths = list(digests)
    for place, first in enumerate(paths):
        for second in paths[place + 1 :]:
            both = sorted(set(digests[first]) & set(digests[second]))
            other = [run for run in both if digests[first][run] != digests[second][run]]
            more = f": {', '.join(other[:5])}{' ...' if len(other) > 5 else ''}" if other else ""
            if both:
                lines.append(
                    f"{len(both)} runs are in {first} and in {second}: {len(both) - len(other)} with the same "
                    f"predictions, {len(other)} with different ones{more}"
                )
    return lines


def report(paths: list[str]) -> tuple[list[str], int]:
    """The lines to print, and the exit status."""
    lines, status = [], 0
    digests: dict[str, dict[str, str]] = {}
    for path in paths:
        if len(paths) > 1:
            lines.append(f"{path}:")
        try:
            about, wrong, digests[path] = verify(path)
        except Exception as error:  # an untrusted file may contain anything
            lines.append(f"{path}: cannot be read as a bundle ({type(error).__name__}: {error})")
            status = 2
            continue
        lines += [*about, *(f"WRONG: {line}" for line in wrong), "WRONG" if wrong else "Everything checks out."]
        status = max(status, 1 if wrong else 0)
    return lines + compare(digests), status


def main() -> int:
    """Check the bundles that the command line names; return the exit status."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        lines, status = [__doc__ or ""], 2
    else:
        lines, status = report(sys.argv[1:])
        lines = ["".join(sign if sign.isprintable() else "?" for sign in line) for line in lines]
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # such as from `| head`; the interpreter would flush again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


if __name__ == "__main__":
    sys.exit(main())
