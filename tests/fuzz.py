"""Damage valid files of every kind that may come from strangers, and check that each is read or refused.

    python tests/fuzz.py [--cases N] [--seed S] [--kind KIND ...] [--folder DIR]

Records, plans, claims, manifests, stores, tars, parquet tables and CIFAR-10's pickles are mutated, case by case from a
seed, and read as the commands read them. A case fails if anything but the documented error classes is raised, if it
takes more than 5 seconds, if its process has more than 1 GB or ends, or if a file outside of its folder is opened for
writing, made, renamed or removed. Failing cases are listed with the command that repeats each; exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import faulthandler
import gzip
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 5.0  # of processor time, and thrice that by the clock: the machine may be busy
MAX_BYTES = 10**9
CHUNK = 250  # cases of a process

Seed = dict[str, bytes]  # {file: content}


# --- what is mutated ------------------------------------------------------------------------------------------------

INTEGERS = [0, 1, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e300, -1e-300, float("nan"), float("inf"), 0.5),
    *("", "x", "x" * 100_000, "\x1b[31mx", "\x00", "a\nb", "../../x", "/etc/passwd", "${oc.env:HOME}", "é中"),
    *([], {}, [[]], [None], {"x": {}}, [1, 2, 3], {"": None}, list(range(3000))),
]


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip bits, overwrite numbers, cut, insert, repeat or move pieces."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8, 30])):
        size = len(data)
        at = rng.randrange(size + 1)
        kind = rng.randrange(8)
        if kind == 0 and size:
            data[at % size] ^= 1 << rng.randrange(8)
        elif kind == 1 and size:
            data[at % size] = rng.choice([0, 1, 9, 32, 47, 48, 57, 127, 128, 255])
        elif kind == 2:
            width, order = rng.choice([1, 2, 4, 8]), rng.choice(["little", "big"])
            data[at : at + width] = (rng.choice(INTEGERS) % 256**width).to_bytes(width, order)
        elif kind == 3:
            del data[at : at + rng.choice([1, 2, 8, 512, size])]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
        elif kind == 5:
            piece = data[at : at + rng.choice([1, 16, 512, 4096])]
            data[at:at] = piece * rng.choice([1, 2, 50])
        elif kind == 6:
            data[at : at + rng.choice([8, 512])] = bytes(rng.choice([8, 512]))
        elif size:
            other = rng.randrange(size)
            length = rng.choice([1, 8, 512])
            data[at : at + length] = data[other : other + length]
        if len(data) > 2**24:
            break
    return bytes(data)


def mutate_tree(rng: random.Random, text: str) -> str:
    """Replace, remove or add values in JSON, or write them in another way."""
    tree = json.loads(text)
    for _ in range(rng.choice([1, 1, 2, 5])):
        places = list(_places(tree))
        if not places:
            break
        parent, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(["x", "", "hydra", "../x", "a" * 5000])] = parent.pop(key)
        elif kind == 2:
            other_parent, other_key = rng.choice(places)
            with contextlib.suppress(KeyError, IndexError):
                parent[key] = json.loads(_dumped(other_parent[other_key]))
        else:
            parent[key] = copy.deepcopy(rng.choice(VALUES))  # or a list among them could come to hold itself
    text = _dumped(tree)
    kind = rng.randrange(12)
    if kind == 0:
        return "[" * 100_000 + text
    if kind == 1:
        return "\ufeff" + text
    if kind == 2:
        return text[: rng.randrange(len(text) + 1)]
    return text


def _dumped(tree: Any) -> str:
    sys.set_int_max_str_digits(0)  # a reader is to meet such numbers, not this writer
    try:
        return json.dumps(tree)
    finally:
        sys.set_int_max_str_digits(4300)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items:
        yield tree, key
        yield from _places(value)


def mutate_text(rng: random.Random, content: bytes) -> bytes:
    """JSON as a tree; other text by lines and values, or as bytes."""
    kind = rng.randrange(4)
    if kind == 0:
        return mutate_bytes(rng, content)
    try:
        return mutate_tree(rng, content.decode()).encode("utf-8", "surrogatepass")
    except ValueError:
        pass
    lines = content.decode("utf-8", "replace").splitlines(keepends=True)
    for _ in range(rng.choice([1, 2, 4])):
        at = rng.randrange(len(lines) + 1)
        if not lines or kind == 1:
            lines.insert(
                at, rng.choice(["x: &a [*a]\n", "? !!python/object:os.system x\n", "- -\n", "\t\n", "{" * 5000])
            )
        elif kind == 2:
            name, sign, _ = lines[at % len(lines)].partition(rng.choice([":", ","]))
            lines[at % len(lines)] = f"{name}{sign} {_dumped(rng.choice(VALUES))}\n"
        else:
            lines[at : at + 1] = lines[at : at + 1] * rng.choice([0, 2, 100])
    return "".join(lines).encode("utf-8", "surrogatepass")


def mutate_tar(rng: random.Random, content: bytes) -> bytes:
    """A tar's headers with valid checksums, or any of its bytes."""
    if rng.randrange(3) == 0:
        return mutate_bytes(rng, content)
    data = bytearray(content)
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.choice(headers)
        block = bytearray(data[at : at + 512])
        kind = rng.randrange(5)
        if kind == 0:
            size = rng.choice([*INTEGERS, -1, -512, -1024])
            octal = b"%011o\0" % size if 0 <= size < 8**11 else b"\x80" + (size % 256**11).to_bytes(11, "big")
            block[124:136] = octal if size >= 0 else b"\xff" + octal[1:]
        elif kind == 1:
            block[156:157] = rng.choice([b"0", b"1", b"2", b"5", b"7", b"L", b"K", b"x", b"g", b"S", b"X", b"Z", b"\0"])
        elif kind == 2:
            name = rng.choice([b"../x", b"/x", b"a/../../x.JPEG", b"\xff.JPEG", b"n00000001.tar", b"x" * 100, b""])
            block[:100] = name[:100].ljust(100, b"\0")
        elif kind == 3:
            block[:512] = mutate_bytes(rng, bytes(block))[:512].ljust(512, b"\0")
        else:
            data[at:at] = data[at : at + 512] * rng.choice([1, 500])
            block = bytearray(data[at : at + 512])
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % (sum(block) % 8**6)
        data[at : at + 512] = block
    return bytes(data)


def mutate_gzip(rng: random.Random, content: bytes) -> bytes:
    """A compressed tar: what is in it, or its own bytes."""
    if rng.randrange(4) == 0:
        return mutate_bytes(rng, content)
    return gzip.compress(mutate_tar(rng, gzip.decompress(content)), 1)


def mutate_array(rng: random.Random, content: bytes) -> bytes:
    """A NumPy array: its header as text, its values, or any of its bytes."""
    if rng.randrange(2):
        return mutate_bytes(rng, content)
    shape = rng.choice(
        ["()", "(0,)", "(-1,)", "(5,)", "(2**40,)", "(1099511627776,)", "(1, 2, 3)", "(" * 500 + ")" * 500]
    )
    dtype = rng.choice(["'<i8'", "'>i8'", "'|O'", "'|u1'", "'<f8'", "[('a', '<i8')]", "'|V0'", "'<U100000'", "7"])
    header = f"{{'descr': {dtype}, 'fortran_order': {rng.choice(['True', 'False', '3'])}, 'shape': {shape}, }}"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + content[128:]


def mutate_pickle(rng: random.Random, content: bytes) -> bytes:
    """A pickle's opcodes and their arguments; most of it is pixels, of which few are changed."""
    head = rng.choice([200, 200, len(content)])
    if rng.randrange(2):
        return mutate_bytes(rng, content[:head]) + content[head:]
    import pickle
    import pickletools

    starts = [at for _, _, at in pickletools.genops(content) if at is not None]
    at = rng.choice(starts[:60] + starts[-60:])
    codes = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
    calls = [b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"cnumpy\ndtype\n"]
    argument = rng.choice(
        [b"", struct.pack("<I", rng.choice(INTEGERS) % 2**32), struct.pack("<Q", rng.choice(INTEGERS))]
    )
    piece = rng.choice(
        [rng.choice(codes) + argument, rng.choice(calls), pickle.dumps(rng.choice(VALUES[:12]), 2)[2:-1]]
    )
    return content[:at] + piece * rng.choice([1, 1, 1, 200]) + content[at + rng.choice([0, 0, 1]) :]


MUTATORS: list[tuple[str, Callable[[random.Random, bytes], bytes]]] = [
    (r".*\.(json|yaml|csv|txt)", mutate_text),
    (r".*\.(tgz|tar\.gz)", mutate_gzip),
    (r".*\.tar", mutate_tar),
    (r".*\.npy", mutate_array),
    (r".*(batch.*|\.meta)", mutate_pickle),
    (r".*", mutate_bytes),
]


# --- what reads it --------------------------------------------------------------------------------------------------


@dataclass
class Kind:
    """Valid files of a kind, which of them are mutated, and what reads them with the errors that it documents."""

    make: Callable[[Path], None]
    read: Callable[[Path], None]
    errors: tuple[type[BaseException], ...]
    mutates: str = r".*"
    seed: Seed = field(default_factory=dict)


def _prepare(data: str) -> Callable[[Path], None]:
    """As `prepare` does, without the composition of a configuration."""

    def read(folder: Path) -> None:
        from alexlab.config import DataConfig, Dataset
        from alexlab.data.build import build_store
        from alexlab.data.sources import recognise

        config = DataConfig(name=Dataset[data])
        source = recognise(config, folder / "raw", folder / "cache" / "scratch", 1)
        build_store(source, folder / "cache" / "store", 8, data, allow_lost_classes=True)

    return read


def _read_store(folder: Path) -> None:
    from alexlab.data.changes import describe_changes, read_states
    from alexlab.data.store import SOURCE_FILES, counts_held_out, find_corruption, open_store, staged

    path = folder / "store"
    store = open_store(path)
    counts_held_out(path, store.manifest["hash"], 1)
    for name in store.manifest["images"]:
        split = store.split(name)
        for index in range(len(split)):
            split.image(index)
    find_corruption(path, 1)
    if (path / SOURCE_FILES).is_file():
        read_states(path / SOURCE_FILES)
        describe_changes({})
    if find_corruption(path, 1) == []:
        staged(path, folder / "stage")


def _read_records(folder: Path) -> None:
    from alexlab.errors import UserError
    from alexlab.study.frames import load_runs
    from alexlab.study.records import read_archive

    archive = read_archive([folder / "runs"])
    for run in archive.runs.values():
        for read in (
            lambda run=run: archive.config(run),
            lambda run=run: run.environment,
            lambda run=run: run.epochs,
            lambda run=run: run.train_errors,
            lambda run=run: run.wrong("top1_error", "ten"),
        ):
            with contextlib.suppress(UserError):
                read()
    load_runs(folder / "runs")


def _read_plans(folder: Path) -> None:
    from alexlab.study.plans import read_looks

    for path in folder.glob("*.json"):
        read_looks(path)


def _read_claims(folder: Path) -> None:
    from alexlab.study.claims import read_claims

    for path in folder.glob("*.yaml"):
        read_claims(path)


def kinds() -> dict[str, Kind]:
    """All kinds, by name."""
    sys.path.insert(0, str(Path(__file__).parent))  # which a safe path (PYTHONSAFEPATH) leaves out
    from alexlab.config import CONF_DIR, PROJECT_DIR
    from alexlab.data.build import BadImage, build_store
    from alexlab.data.sources import RawError
    from alexlab.data.sources.folders import read_folders
    from alexlab.data.store import BadData
    from alexlab.errors import UserError
    from support import source_files as raw

    def in_raw(make: Callable[[Path], Path]) -> Callable[[Path], None]:
        return lambda folder: shutil.rmtree(make(folder / "raw") / "nothing", ignore_errors=True)

    def make_store(kind: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            root = raw.class_folders(folder / "raw")
            build_store(read_folders(root), folder / "store", 8, "folder", kind)
            shutil.rmtree(root)

        return make

    def from_demo(pattern: str, into: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            with zipfile.ZipFile(PROJECT_DIR / "results" / "demo" / "records.zip") as archive:
                names = [name for name in archive.namelist() if re.fullmatch(pattern, name)]
                first = {name.partition("/")[0] for name in names}
                for name in names:
                    if name.partition("/")[0] in sorted(first)[:2]:
                        path = folder / into / name.removeprefix("studies/")
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(archive.read(name))

        return make

    def make_claims(folder: Path) -> None:
        for path in sorted((CONF_DIR / "claims").glob("*.yaml"))[:3]:
            shutil.copy(path, folder)

    prepared = (RawError, BadImage, OSError)
    return {
        "tars": Kind(in_raw(raw.imagenet_tars), _prepare("imagenet2012"), prepared),
        "tars2010": Kind(in_raw(raw.imagenet2010_tars), _prepare("imagenet2010"), prepared),
        "imagenette": Kind(in_raw(raw.imagenette), _prepare("imagenette"), prepared),
        "folders": Kind(in_raw(raw.class_folders), _prepare("folder"), prepared),
        "kaggle": Kind(in_raw(raw.kaggle), _prepare("imagenet2012"), prepared, r".*\.(csv|txt)"),
        "tiny": Kind(in_raw(raw.tiny_imagenet), _prepare("folder"), prepared, r".*\.txt"),
        "parquet": Kind(in_raw(raw.parquet), _prepare("imagenet2012"), prepared),
        "cifar": Kind(in_raw(raw.cifar), _prepare("cifar10"), prepared),
        "batches": Kind(
            in_raw(
                lambda root: raw.write_tree(
                    root, {f"cifar-10-batches-py/{n}": c for n, c in raw.cifar_batches().items()}
                )
            ),
            _prepare("cifar10"),
            prepared,
        ),
        "manifests": Kind(make_store("raw"), _read_store, (BadData, ValueError), r".*\.json"),
        "stores": Kind(make_store("raw"), _read_store, (BadData,), r".*\.npy"),
        "jpegstores": Kind(make_store("jpeg"), _read_store, (BadData,), r".*\.(npy|jpegs)"),
        "records": Kind(from_demo(r"[0-9a-f]{12}/.*", "runs"), _read_records, (UserError,)),
        "plans": Kind(from_demo(r"studies/.*", "."), _read_plans, (UserError,)),
        "claims": Kind(make_claims, _read_claims, (UserError,)),
    }


# --- a case ---------------------------------------------------------------------------------------------------------


class Hang(BaseException):
    """A case that took too long; no reader's `except Exception` may catch it."""


class Outside(BaseException):
    """A file outside of the case's folder was to be changed."""


_allowed: list[str] = []  # where files may be changed now


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: refuse changes of files that lie elsewhere."""
    if not _allowed:
        return
    if event == "open":
        path, _, flags = arguments
        paths = [path] if flags and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else []
    elif event in ("os.rename", "os.link", "os.symlink"):
        paths = [arguments[1]] if event != "os.rename" else list(arguments[:2])
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree"):
        is_relative = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # to a folder that rmtree opened
        paths = [] if is_relative else [arguments[0]]
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        raise Outside(f"{event} {arguments[0]!r}")
    else:
        return
    for path in paths:
        if isinstance(path, int) or path is None:
            continue
        full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # which takes ".." away, and follows no link
        if not full.startswith((*_allowed, "/dev/null", "/dev/shm")) and "__pycache__" not in full:
            raise Outside(f"{event} {full}")


def _peak() -> int:
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def run_case(kind: Kind, name: str, number: int, seed: int, folder: Path) -> str:
    """What is wrong with a case; empty if nothing is."""
    rng = random.Random(f"{seed}/{name}/{number}")
    shutil.rmtree(folder, ignore_errors=True)
    for file, content in kind.seed.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    files = sorted(file for file in kind.seed if re.fullmatch(kind.mutates, file))
    for file in rng.sample(files, min(len(files), rng.choice([1, 1, 1, 2]))):
        mutate = next(mutate for pattern, mutate in MUTATORS if re.fullmatch(pattern, file))
        (folder / file).write_bytes(mutate(rng, kind.seed[file]))

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, stop)
    signal.signal(signal.SIGALRM, stop)
    _allowed.append(f"{folder}{os.sep}")
    found = ""
    output = io.StringIO()
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(int(3 * SECONDS))
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # in code that no signal reaches
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(folder)
    except kind.errors as error:
        if not str(error):
            found = f"an error without words: {type(error).__name__}"
    except Hang:
        found = f"more than {SECONDS:g} s: {_last_line(sys.exc_info()[1])}"
    except Outside as error:
        found = f"outside of its folder: {error}"
    except BaseException as error:  # whatever is not documented
        found = f"{type(error).__name__}: {str(error)[:200]!r} at {_last_line(error)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        _allowed.clear()
    if not found and _peak() > MAX_BYTES:
        found = f"{_peak() / 1e9:.1f} GB"
    return found


def _last_line(error: BaseException | None) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__ if error else None) if "fuzz" not in frame.filename
    ]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-3:]))


def work(names: list[str], first: int, last: int, seed: int, folder: Path) -> None:
    """Run cases, as a process of its own; print each one's number before, and what is wrong after."""
    found = kinds()
    for name in names:
        made = folder / f"seed-{name}"
        made.mkdir(parents=True)
        with contextlib.redirect_stderr(io.StringIO()):
            found[name].make(made)
        files = sorted(path for path in made.rglob("*") if path.is_file())
        found[name].seed = {path.relative_to(made).as_posix(): path.read_bytes() for path in files}
        shutil.rmtree(made)
    sys.addaudithook(_watch)
    for number in range(first, last):
        name = names[number % len(names)]
        print(f"case {number} {name}", flush=True)
        if wrong := run_case(found[name], name, number, seed, folder / "case"):
            print(f"wrong {wrong}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", nargs="*", default=[], help="of these kinds alone")
    parser.add_argument("--folder", type=Path, help="where to work; a failing case's files stay there with --cases 1")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    names = args.kind or list(kinds())
    if args.worker:
        work(names, args.first, args.first + args.cases, args.seed, args.folder)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        failures = _supervise(names, args.first, args.cases, args.seed, args.folder or Path(temporary))
    print(f"{args.cases} cases of {', '.join(names)}: {len(failures)} failed")
    return 1 if failures else 0


def _supervise(names: list[str], first: int, cases: int, seed: int, folder: Path) -> list[str]:
    """Run all cases in processes that may end, one after the other."""
    failures, number, started = [], first, time.monotonic()
    end = first + cases
    while number < end:
        work_folder = folder / "work"
        shutil.rmtree(work_folder, ignore_errors=True)
        count = min(CHUNK, end - number)
        command = [
            sys.executable,
            __file__,
            "--worker",
            "--seed",
            str(seed),
            "--first",
            str(number),
            "--cases",
            str(count),
        ]
        command += ["--folder", str(work_folder), "--kind", *names]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        current = f"{number}"
        ran = 0
        for line in done.stdout.splitlines():
            if line.startswith("case "):
                current, ran = line.removeprefix("case "), ran + 1
            elif line.startswith("wrong "):
                failures.append(_failure(current, line.removeprefix("wrong "), names, seed))
                print(failures[-1], flush=True)
        if done.returncode != 0:
            words = done.stderr.strip().splitlines() or ["nothing on stderr"]
            why = f"its process ended with {done.returncode}: {words[-1][:200]}"
            failures.append(_failure(current, why, names, seed))
            print(failures[-1], flush=True)
            if ran == 0:
                break
        number += max(ran, 1)
        if cases > CHUNK:
            print(
                f"{number - first} of {cases}, {len(failures)} failed, {time.monotonic() - started:.0f} s", flush=True
            )
    return failures


def _failure(case: str, wrong: str, names: list[str], seed: int) -> str:
    number = case.partition(" ")[0]
    kind = f" --kind {' '.join(names)}" if len(names) < 15 else ""
    return f"{case}: {wrong}\n    python tests/fuzz.py --seed {seed} --first {number} --cases 1{kind} --folder DIR"


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
