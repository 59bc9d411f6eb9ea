"""The environment of a run, which is recorded with a result but is not part of its identity."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from alexlab import threads
from alexlab.config import CONF_DIR, PROJECT_DIR, TrainerConfig
from alexlab.files import is_foreign
from alexlab.runs.code_fingerprint import modified
from alexlab.runs.device import driver_version
from alexlab.runs.identity import RESULTS_VERSION
from alexlab.runs.packages import computing, installed, installed_commit

log = logging.getLogger(__name__)
OWN = ("src", "conf")  # the project's folders whose changes can affect a run
_SOURCES = (".py", ".pyi", ".yaml", ".yml", ".json", ".toml", ".txt", ".j2", ".sh", ".c", ".cc", ".cpp", ".cu", ".h")
_ROOM = 2**18  # characters that a tree's changes may take in the record, as JSON
_MOST_FILES = 200  # untracked files that are listed
_LARGEST = 2**24  # bytes of a file that is hashed
_PATIENCE = 20  # seconds for one call of git


def environment(trainer: TrainerConfig) -> dict[str, Any]:
    """Versions, commit with the changes since, machine, threads, and the devices that a run is split over.

    Contains no value of an environment variable, no address, and no path outside the project.
    """
    import torch

    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "packages": installed(),
        **code(),
        "changes": changes(),
        "modified_code": modified(RESULTS_VERSION),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "system": platform.system(),
        "os": _os_release(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "cpus": threads.cores(),
        "threads": torch.get_num_threads(),
        "devices": trainer.devices,
        "strategy": trainer.strategy.name if trainer.devices > 1 else None,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "cudnn": _cudnn(),
    }


def with_earlier(now: dict[str, Any], before: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Combine the environments of this attempt and earlier ones; also return which entries differ from the last.

    `before`: the record's content so far. Of an earlier attempt only the packages that compute and the hash of the
    changes are kept, since there may be hundreds of attempts. Differences in other packages are ignored.
    """
    before = {**before}
    earlier = before.pop("earlier", [])
    if not before:
        return now, []
    last, this = _short(before), _short(now)
    changed = [name for name in this if name in last and last[name] != this[name]]
    if last != this and last not in earlier:
        earlier = [*earlier, last]
    return {**now, "earlier": earlier} if earlier else now, changed


def _short(found: dict[str, Any]) -> dict[str, Any]:
    short = {**found, "packages": computing(found.get("packages") or {})}
    if "changes" in found:
        short["changes"] = {"sha256": found["changes"].get("sha256")}
    return short


def _os_release() -> str | None:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    return f"macOS {platform.mac_ver()[0]}" if platform.mac_ver()[0] else None


def _cudnn() -> str | None:
    """The version of cuDNN that torch uses, as one number; None without a GPU."""
    import torch

    with suppress(RuntimeError):  # an incompatible cuDNN
        if torch.cuda.device_count() and (version := torch.backends.cudnn.version()) is not None:
            return str(version)
    return None


@cache
def cpu_model() -> str:
    """The processor's name with its family and model, which decide how float32 sums are rounded."""
    with suppress(OSError):
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines())
        found = {name.strip(): value.strip() for name, _, value in lines}
        if "model name" in found:
            return f"{found['model name']} (family {found.get('cpu family')}, model {found.get('model')})"
    return platform.processor() or platform.machine()


@cache
def code() -> dict[str, str | bool | None]:
    """The commit of the code that this process loaded, and whether the tree had changes; None if unknown.

    Changes are modified tracked files anywhere, and untracked files in src/ and conf/. If the project is not a git
    repository, the commit is ALEXLAB_COMMIT, which the image sets, or the one that pip installed.
    """
    if not _has_repository():
        commit = os.environ.get("ALEXLAB_COMMIT") or (None if _is_checkout() else installed_commit())
        return {"git_commit": commit, "git_dirty": None}
    tracked = _git("status", "--porcelain", "--untracked-files=no")
    untracked = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *OWN)
    is_dirty = None if tracked is None or untracked is None else bool(tracked or untracked)
    return {"git_commit": (_git("rev-parse", "HEAD") or "").strip() or None, "git_dirty": is_dirty}


def ownership_fix() -> str | None:
    """The git command that makes git read the project's repository where it refuses another user's; else None."""
    if not _is_checkout() or not (PROJECT_DIR / ".git").exists():
        return None
    with tempfile.TemporaryFile() as file:
        found = re.search(r"git config --global --add safe\.directory .+", _run_git(["rev-parse", "HEAD"], file))
    return None if found is None else found[0]


@cache
def changes() -> dict[str, Any]:
    """The changes since the commit in the tree that this process loaded; empty if there are none.

    sha256: a hash over the changed and untracked files in src/ and conf/, null without any. diff: that of all tracked
    files, those in src/ and conf/ first. untracked: hash and content of each untracked source file in src/ and conf/.
    Beyond 256 KiB, the diff is cut, with a last line that says so, and file contents are left out.
    """
    if not code()["git_dirty"]:
        return {}
    changed = _names("diff", "--name-only", "-z", "HEAD", "--", *OWN)
    untracked = _names("ls-files", "--others", "--exclude-standard", "-z", "--", *OWN)
    sources = [name for name in untracked if name.endswith(_SOURCES) and not is_foreign(Path(name).name)]
    found = hashlib.sha256()
    for name in sorted({*changed, *sources}):
        found.update(os.fsencode(f"{name}\0{_hash(PROJECT_DIR / name)}\0"))
    own = _diff(_ROOM, *OWN)
    room = max(0, _ROOM - _size(own))
    contents: dict[str, dict[str, str]] = {}
    for name in sources[:_MOST_FILES]:
        entry = contents[os.fsencode(name).decode(errors="backslashreplace")] = {"sha256": _hash(PROJECT_DIR / name)}
        content = _text(PROJECT_DIR / name, room)
        if content is not None:
            entry["content"] = content
            room -= _size(content)
    others = _diff(room, ".", *(f":(exclude){name}" for name in OWN))
    return {
        "sha256": found.hexdigest() if changed or sources else None,
        "diff": own + others,
        "untracked": contents,
        **({"untracked_left_out": len(sources) - _MOST_FILES} if len(sources) > _MOST_FILES else {}),
    }


def _hash(path: Path) -> str:
    """SHA-256 of a file, or the reason why there is none."""
    try:
        if path.is_symlink():
            return "a link"
        if not path.is_file():
            return "no file"
        if path.stat().st_size > _LARGEST:
            return "a large file"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "a file that cannot be read"


def _text(path: Path, room: int) -> str | None:
    """The content of a text file; None if it is not a text file or exceeds `room`."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > room:
            return None
        text = path.read_bytes().decode()
    except (OSError, ValueError):
        return None
    return text if _size(text) <= room else None


def _size(text: str) -> int:
    return len(json.dumps(text))


def _diff(room: int, *paths: str) -> str:
    """The diff of tracked files against the commit, binary files by name; if too long, cut with a note at the end."""
    options = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--full-index", "--submodule=short")
    with tempfile.TemporaryFile() as file:  # it may be larger than memory
        if _run_git(["diff", *options, "--src-prefix=a/", "--dst-prefix=b/", "HEAD", "--", *paths], file):
            return ""
        whole = file.seek(0, os.SEEK_END)
        file.seek(0)
        text = file.read(_ROOM).decode(errors="replace")
    mark = f"[cut here: the whole diff has {whole:,} bytes]\n"
    if not whole or (whole <= _ROOM and _size(text) <= room):
        return text
    while text and _size(text) > room:
        text = text[: len(text) * room // _size(text)]
    return text[: text.rfind("\n") + 1] + mark


def _is_checkout() -> bool:
    return CONF_DIR.parent == PROJECT_DIR


def _has_repository() -> bool:
    """Whether the project is a repository, rather than a folder in another one, and git can read it."""
    return _is_checkout() and (_git("rev-parse", "--show-toplevel") or "").strip() == str(PROJECT_DIR.resolve())


def _names(*arguments: str) -> list[str]:
    return [name for name in (_git(*arguments) or "").split("\0") if name]


def _git(*arguments: str) -> str | None:
    """The output of git in the project's folder; None if there is no git, or it fails or takes too long."""
    with tempfile.TemporaryFile() as file:
        if _run_git([*arguments], file):
            return None
        file.seek(0)
        return os.fsdecode(file.read())  # file names may contain any bytes


def _run_git(arguments: list[str], file: Any) -> str:
    """Run git in the project's folder, with its output in a file; return why it failed, empty if it succeeded."""
    # Unset GIT_DIR and the like, which a hook of another repository sets, and run no program that the user configured.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables["GIT_TERMINAL_PROMPT"] = "0"  # such as for objects missing in a partial clone
    variables["LC_ALL"] = "C"  # `ownership_fix` reads its messages
    line = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.PIPE}
        done = subprocess.run(line, cwd=PROJECT_DIR, env=variables, timeout=_PATIENCE, **pipes)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = f"takes more than {_PATIENCE} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
    else:
        if done.returncode == 0:
            return ""
        why = " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
    log.info("git %s: %s", arguments[0], why)
    return why
