"""Check a bundle of alexlab's records: python verify.py BUNDLE.zip

Needs Python 3.8 or later and nothing else. It checks that

- every file is the one whose SHA-256 hash manifest.json has, and that none is missing or added;
- every test error in a result.json is what the run's predictions come to, image by image;
- the planned runs are there, those that are missing being named.

It says nothing of how the predictions were made: who doubts them runs one again, which the same code and machine repeat
to the last bit. Take this file from the project rather than from a bundle that you doubt.
Exit status: 0 all is as it was, 1 something is not, 2 the file cannot be read as a bundle.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import sys
import zipfile
from array import array

MANIFEST, CRATE, VERIFIER = "manifest.json", "ro-crate-metadata.json", "verify.py"
LARGEST, LARGEST_ARRAY, ALL = 2**28, 2**26, 2**33  # bytes of a file, of an array of predictions, of all files
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
        raise ValueError("has another number of values than its header says")
    return values, shape


def read_member(archive: zipfile.ZipFile, name: str, limit: int = LARGEST) -> bytes:
    """A file of an archive, of limited size."""
    member = archive.getinfo(name)
    if member.file_size > limit:
        raise ValueError(f"{name} unpacks to {member.file_size:,} bytes")
    with archive.open(member) as file:
        return file.read(limit)


def errors_of(predictions: bytes) -> dict[str, dict[str, float]]:
    """Top-1 and top-5 error by kind of view, from the content of a predictions.npz."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(predictions)) as arrays:
        labels, _ = read_array(read_member(arrays, "labels.npy", LARGEST_ARRAY))
        if not labels:
            raise ValueError("has no image")
        for view in ("center", "ten"):
            if f"{view}_top5.npy" not in arrays.namelist():
                continue
            classes, (images, places) = read_array(read_member(arrays, f"{view}_top5.npy", LARGEST_ARRAY))
            if images != len(labels) or not 0 < places <= 5:
                raise ValueError(f"has {len(labels)} labels for {images} images of {places} classes each")
            first = sum(classes[image * places] != label for image, label in enumerate(labels))
            five = sum(
                label not in classes[image * places : (image + 1) * places] for image, label in enumerate(labels)
            )
            found[view] = {"top1_error": first / images, "top5_error": five / images}
    return found


def check_run(run: str, files: dict[str, bytes]) -> list[str]:
    """What is wrong with the errors of one record."""
    try:
        result = json.loads(files["result.json"])
        found = errors_of(files["predictions.npz"])
        if result["run_id"] != run:
            return [f"{run}: its result is that of run {result['run_id']}"]
        views = [view for view, said in result["test"].items() if isinstance(said, dict)]
        wrong = [f"{run}: has no predictions of view {view}" for view in views if view not in found]
        for view, errors in found.items():
            for metric, error in errors.items():
                said = result["test"][view][metric]
                if not abs(said - error) <= 1e-9:
                    wrong.append(f"{run}: {metric} of view {view} is {error:.6f} by its predictions, not {said:.6f}")
        return wrong if found else [f"{run}: has no predictions"]
    except Exception as error:  # whatever a stranger's file may hold
        return [f"{run}: its predictions cannot be checked ({type(error).__name__}: {error})"]


def verify(path: str) -> tuple[list[str], list[str]]:
    """What a bundle holds, in words, and what is wrong with it.

    Raises:
        ValueError, KeyError, OSError, zipfile.BadZipFile: for a file that is no bundle.
    """
    said, wrong = [], []
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > ALL:
            raise ValueError(f"unpacks to more than {ALL // 2**30} GiB")
        content = read_member(archive, MANIFEST)
        manifest = json.loads(content)
        listed = manifest["files"]
        names = archive.namelist()
        wrong += [f"{name}: is there twice" for name in sorted({one for one in names if names.count(one) > 1})]
        wrong += [f"{name}: is missing" for name in sorted(set(listed) - set(names))]
        wrong += [f"{name}: is not in the manifest" for name in sorted(set(names) - set(listed) - {MANIFEST})]
        records: dict[str, set[str]] = {}
        pair: dict[str, bytes] = {}  # of the record that is read
        planned: set[str] = set()
        for name in sorted(set(listed) & set(names)):
            data = read_member(archive, name)
            if hashlib.sha256(data).hexdigest() != listed[name]:
                wrong.append(f"{name}: is not the file of the manifest")
            run, _, file = name.partition("/")
            if run == "studies":
                for arm in json.loads(data)["looks"][-1]["arms"]:
                    planned.update(arm["runs"].values())
            elif file in ("result.json", "predictions.npz"):
                if run not in records:  # the memory of one record at a time
                    pair.clear()
                pair[file] = data
                records[run] = {*pair}
                if len(pair) == 2:
                    wrong += check_run(run, pair)
    for run, found in records.items():
        if len(found) < 2:
            wrong.append(f"{run}: has no {'predictions' if 'result.json' in found else 'result'}")
    said.append(f"{len(listed)} files, {len(records)} finished runs, their errors computed from their predictions")
    if missing := sorted(planned - set(records)):
        more = " ..." if len(missing) > 5 else ""
        said.append(f"{len(missing)} planned runs are not in it: {', '.join(missing[:5])}{more}")
    commits = ", ".join(manifest["commits"]) or "unknown"
    said.append(f"code {commits}; submitted by {manifest['submitter'] or 'nobody named'}")
    said.append(f"SHA-256 of the manifest, to be cited: {hashlib.sha256(content).hexdigest()}")
    return said, wrong


def main() -> int:
    """Check the bundle that the command line names; return the exit status."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 2
    try:
        said, wrong = verify(sys.argv[1])
    except Exception as error:  # whatever a stranger's file may hold
        print(f"{sys.argv[1]}: cannot be read as a bundle ({type(error).__name__}: {error})")
        return 2
    for line in said:
        print("".join(sign if sign.isprintable() else "?" for sign in line))
    for line in wrong:
        print("WRONG: " + "".join(sign if sign.isprintable() else "?" for sign in line))
    print("WRONG" if wrong else "All is as it was.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
