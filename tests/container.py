"""Build the Dockerfile's image and use it as the README says, with podman: no Docker, and no registry of images.

    python tests/container.py            (make container; as root on Debian, about ten minutes, 12 GB of disk)
    python tests/container.py --folder /var/tmp/alexlab --demo

Its base is made of Debian's packages instead of fetched, so this is run by that Debian's Python. The packages of
requirements.lock are got by this machine's pip, in the versions locked and for that Python, and the image's own pip
installs them by their hashes, without a network. `--folder` keeps base, packages and image for the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alexlab.config import PROJECT_DIR
from support import source_files as raw_data
from support.settings import TINY, last_of_each

TOOLS = {"podman": "podman", "runc": "runc", "mmdebstrap": "mmdebstrap"}  # and Debian's packages of them
PACKAGE = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)
COMMIT = "0123456789abcdef"
UID = 54321  # of nobody
# What Triton does on a GPU before its first kernel: it builds a module of C.
BUILD = """
from triton.runtime.build import compile_module_from_src
source = '''
#include <Python.h>
static struct PyModuleDef stub = {PyModuleDef_HEAD_INIT, "stub", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_stub(void) {return PyModule_Create(&stub);}
'''
print(compile_module_from_src(source, "stub").__name__, "built")
"""
# An engine that itself runs in a container may not raise limits, and podman would.
LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"]


def sh(line: list[str], timeout: float = 300, wanted: int = 0, **named: Any) -> str:
    """Run a line and return what it says; it must end with the wanted status."""
    done = subprocess.run(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, errors="replace", **named
    )
    assert done.returncode == wanted, f"{' '.join(line)}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


@contextmanager
def told(what: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"{what} ...", end="", flush=True)
    yield
    print(f" {time.monotonic() - started:.0f} s", flush=True)


class Engine:
    """Podman with all that it stores in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._podman = ["podman", "--root", str(folder / "images"), "--runroot", str(folder / "running")]
        self._podman += ["--cgroup-manager=cgroupfs", "--runtime=runc"]
        self._count = 0

    def __call__(self, *arguments: str, **named: Any) -> str:
        return sh([*self._podman, *arguments], **named)

    def has(self, image: str) -> bool:
        return subprocess.run([*self._podman, "image", "exists", image], timeout=60).returncode == 0

    def line(self, *words: str, options: tuple[str, ...] = (), runs: Path | None = None, uid: int = UID) -> list[str]:
        """`docker run` as in the README, with the folders of a test."""
        folders = [f"--volume={self.folder / 'cache'}:/cache"]
        folders += [f"--volume={runs}:/runs"] if runs is not None else []
        own = [] if any(option.startswith("--ulimit=nofile") for option in options) else LIMITS[:1]
        shown = [
            "--network=none",
            "--env=OMP_NUM_THREADS=1",
            *own,
            LIMITS[1],
            f"--user={uid}:{uid}",
            *folders,
            *options,
        ]
        return [*self._podman, "run", *shown, "alexlab", *last_of_each(words)]

    def run(self, *words: str, options: tuple[str, ...] = (), runs: Path | None = None, **named: Any) -> str:
        return sh(self.line(*words, options=("--rm", *options), runs=runs), **named)

    def records(self) -> Path:
        """A new folder for records, the user's own."""
        self._count += 1
        return self.own(f"runs{self._count}")

    def own(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        os.chown(folder, UID, UID)
        return folder

    def close(self) -> None:
        with suppress(subprocess.SubprocessError):
            subprocess.run([*self._podman, "rm", "--all", "--force", "--time=0"], capture_output=True, timeout=60)
            subprocess.run(
                ["umount", "--lazy", str(self.folder / "images" / "overlay")], capture_output=True, timeout=60
            )


def make_base(engine: Engine) -> None:
    if engine.has("localhost/debian-python"):
        return
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    sources = next(
        path
        for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
        if path.exists() and path.read_text().strip()
    )
    tar = engine.folder / "base.tar"
    packages = "--include=python3-venv,python3-dev,gcc,libc6-dev"
    made = ["mmdebstrap", "--variant=minbase", packages, release["VERSION_CODENAME"].strip('"')]
    sh([*made, str(tar), str(sources)], timeout=600)
    engine("import", str(tar), "localhost/debian-python")
    tar.unlink()


def get_wheels(folder: Path) -> str:
    """Wheels of what is locked; returns a lock of these very files."""
    folder.mkdir(exist_ok=True)
    missing = set(PACKAGE.findall((PROJECT_DIR / "requirements.lock").read_text()))
    for wheel in folder.glob("*.whl"):
        if _release(wheel) in missing:
            missing.remove(_release(wheel))
        else:
            wheel.unlink()  # of an earlier lock
    if missing:
        get = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
        sh([*get, *("==".join(release) for release in missing)], timeout=1800)
    lines = []
    for wheel in sorted(folder.glob("*.whl")):
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{'=='.join(_release(wheel))} --hash=sha256:{digest}\n")
    return "".join(lines)


def _release(wheel: Path) -> tuple[str, str]:
    name, version = wheel.name.split("-")[:2]
    return re.sub(r"[-_.]+", "-", name).lower(), version


def build(engine: Engine, context: Path) -> None:
    """The Dockerfile as it is; pip finds the wheels, and nothing else."""
    (engine.folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    mounts = [f"--volume={engine.folder}/wheels:/wheels:ro", f"--volume={engine.folder}/pip.conf:/etc/pip.conf:ro"]
    given = ["--build-arg=BASE=localhost/debian-python", f"--build-arg=COMMIT={COMMIT}"]
    isolated = ["--isolation=chroot", "--network=host", *LIMITS]
    engine("build", *isolated, *mounts, *given, "--layers", "--tag=alexlab", str(context), timeout=1800)


def copy_checkout(context: Path) -> None:
    for name in sh(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=PROJECT_DIR).splitlines():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT_DIR / name).exists():
            shutil.copy2(PROJECT_DIR / name, context / name)


def statuses(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in runs.glob("*/status.json")]


def states(runs: Path) -> list[str]:
    return sorted(status["state"] for status in statuses(runs))


def check_commands(engine: Engine) -> None:
    assert "ablation" in engine.run()  # of itself it shows its help
    assert "data.raw" in engine.run("prepare", "--help")
    assert "weights=" in engine.run("evaluate", "--help")
    assert "60,965,224" in engine.run("--net", "recipe=imagenet2012")
    assert "error: prepair" in engine.run("prepair", "data=cifar10", wanted=2)
    assert engine.run("-u", options=("--entrypoint=id",)).split() == [str(UID)]
    assert "built" in engine.run("-c", BUILD, options=("--entrypoint=python",))
    default = engine("run", "--rm", "--network=none", *LIMITS, "--entrypoint=id", "alexlab", "-u")
    assert default.split() == ["1000"]


def check_records(engine: Engine) -> None:
    runs = engine.records()
    assert "1 of 1 ran one batch" in engine.run(*TINY, "trainer.fast_dev_run=true", runs=runs)
    assert list(runs.iterdir()) == []
    engine.run("-m", *TINY, "seed=0,1", "data.num_workers=2", runs=runs)  # in 64 MB of shared memory
    records = [path.parent for path in runs.glob("*/result.json")]
    assert len(records) == 2
    assert {path.stat().st_uid for path in runs.rglob("*")} == {UID}
    environment = json.loads((records[0] / "environment.json").read_text())
    assert environment["git_commit"] == COMMIT
    listed = engine.run("runs", "list", runs=runs)
    assert all(path.name in listed for path in records), listed
    averaged = engine.run("evaluate", f"runs=[{records[0].name},{records[1].name}]", runs=runs)
    assert "mean of the 2" in averaged, averaged
    shown = engine.run("report", "study=lrn", runs=runs)
    [page] = runs.glob("reports/*/report.html")
    assert f"/runs/{page.relative_to(runs)}" in shown, shown
    assert "2 runs in" in engine.run("runs", "bundle", "records.zip", runs=runs)
    assert (runs / "records.zip").stat().st_uid == UID


def check_preparation(engine: Engine) -> None:
    raw = raw_data.class_folders(engine.folder / "raw")
    options = (f"--volume={raw}:/raw:ro",)
    words = ("data=folder", "data.raw=/raw", "data.size=32", "data.cache=/cache/prepared")
    assert "Store: /cache/prepared/" in engine.run("prepare", *words, options=options)
    assert "every image is intact" in engine.run("prepare", "check", *words, options=options)


def check_limits(engine: Engine) -> None:
    line = (*TINY, "data.num_workers=4")
    small = engine.run(*line, options=("--shm-size=1m",), runs=(runs := engine.records()), wanted=1)
    assert "FAILED (no shared memory): data.num_workers=4: batches need" in small, small
    assert "--ipc=host" in statuses(runs)[0]["hint"]
    few = engine.run(*line, options=("--ulimit=nofile=128:128",), runs=(runs := engine.records()), wanted=1)
    assert "FAILED (too many open files): data.num_workers=4: needs 148 open files" in few, few
    engine.run(*line, options=("--ipc=host",), runs=runs)  # the same line goes on


def wait_for(runs: Path, done: int, epochs: int) -> None:
    """Wait until so many runs are done, and the one under way has so many epochs."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        ended = {path.parent for path in runs.glob("*/result.json")}
        under_way = [path for path in runs.glob("*/metrics.csv") if path.parent not in ended]
        if len(ended) == done and any(len(path.read_text().splitlines()) > epochs for path in under_way):
            return
        time.sleep(0.1)
    raise AssertionError(f"{runs} did not come so far")


def check_stop(engine: Engine, init: tuple[str, ...]) -> None:
    """`docker stop` in the second run of a sweep, then the same line."""
    runs, line = engine.records(), ("-m", *TINY, "trainer.max_epochs=15", "seed=0,1", "data.num_workers=1")
    sh(engine.line(*line, options=("--detach", "--name=stopped", *init), runs=runs))
    wait_for(runs, done=1, epochs=2)
    zombies = "grep -ls '^State:.Z' /proc/[0-9]*/status; true"
    left = engine("exec", "stopped", "sh", "-c", zombies)
    assert left == "", f"processes that nobody waited for: {left}"
    started = time.monotonic()
    engine("stop", "--time=60", "stopped")
    assert time.monotonic() - started < 45, "it was killed"
    output = engine("logs", "stopped")
    assert engine("wait", "stopped").strip() == "75", output
    engine("rm", "stopped")
    assert states(runs) == ["DONE", "PREEMPTED"], output
    again = engine.run(*line, options=init, runs=runs)
    assert "1 of 2 already done" in again
    assert "resumes from step" in again
    assert states(runs) == ["DONE", "DONE"]


def check_keyboard(engine: Engine) -> None:
    """Ctrl-C in a terminal is one request, however many processes it reaches."""
    runs = engine.records()
    ours, theirs = pty.openpty()
    line = engine.line(*TINY, "trainer.max_epochs=40", options=("--rm", "-it"), runs=runs)
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        wait_for(runs, done=0, epochs=2)
        os.write(ours, b"\x03")
        shown = b""
        with suppress(OSError):  # its end
            while read := os.read(ours, 65536):
                shown += read
        code = process.wait(timeout=60)
    finally:
        process.kill()
        os.close(ours)
    assert code == 75, shown.decode(errors="replace")
    assert b"Stopping: the current step is finished" in shown
    [status] = statuses(runs)
    assert status["state"] == "PREEMPTED"
    assert status["message"].startswith("run the same command again")  # it saved, and was not ended at once


def check_demo(engine: Engine) -> None:
    table = engine.run("-m", "model.lrn=true,false", "pool.overlap=true,false", runs=engine.records(), timeout=1800)
    print("\n" + table)
    assert "1 seed: no conclusion" in table


def check_all(engine: Engine, demo: bool) -> None:
    with told("Base of Debian's packages"):
        make_base(engine)
    version = engine(
        "run", "--rm", "--network=none", *LIMITS, "localhost/debian-python", "python3", "--version"
    ).strip()
    ours = f"Python {sys.version_info.major}.{sys.version_info.minor}."
    assert version.startswith(ours), f"this is {ours}x, and Debian's is {version}: the wheels would not fit"
    with told("Wheels of what is locked"):
        lock = get_wheels(engine.folder / "wheels")
    shutil.rmtree(context := engine.folder / "context", ignore_errors=True)
    copy_checkout(context)
    (context / "requirements.lock").write_text(lock)
    with told("Image"):
        build(engine, context)
    with (context / "src" / "alexlab" / "__init__.py").open("a") as file:
        file.write(f"# {time.time()}\n")
    with told("Image, after a change of the source"):
        build(engine, context)
    print(engine("image", "ls", "--format={{.Repository}} {{.Size}}", "alexlab").strip())
    layers = engine("history", "--format={{.Size}} {{.CreatedBy}}", "--no-trunc", "alexlab").splitlines()
    print("\n".join(f"  {layer[:90]}" for layer in layers if not layer.startswith("0 B")))
    engine.own("cache")
    with told("Every command"):
        check_commands(engine)
    with told("A trial, a sweep with loaders, its records, its average"):
        check_records(engine)
    with told("Preparation"):
        check_preparation(engine)
    with told("Too little shared memory, too few open files"):
        check_limits(engine)
    for init in ((), ("--init",)):
        with told(f"Stopped, and gone on {' '.join(init)}".strip()):
            check_stop(engine, init)
    with told("Ctrl-C"):
        check_keyboard(engine)
    if demo:
        with told("The demo"):
            check_demo(engine)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="where base, packages and image are kept; without it they are not")
    parser.add_argument("--demo", action="store_true", help="the README's sweep, too, which takes five minutes")
    args = parser.parse_args()
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        told = f"apt-get install {' '.join(missing)}" if missing else "it is run by root, on Debian"
        print(f"error: tests/container.py: {told}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="alexlab-container-", dir="/var/tmp") as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        engine = Engine(folder)
        try:
            check_all(engine, args.demo)
        finally:
            engine.close()
    print("The image does what the README says.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
