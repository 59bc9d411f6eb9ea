"""The cause of a run's failure: its class, a one-line message, and a hint on how to fix it."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from alexlab.config import ConfigError, Retry
from alexlab.errors import UserError

DIVERGED, NOT_LEARNING, NOT_LEARNT, MEMORY, DISK, DATA, KILLED, ERROR = (
    *("diverged", "does not learn", "not learnt", "out of memory", "disk full", "bad data", "killed", "error"),
)
SHARED, FILES = "no shared memory", "too many open files"
CONFIGURATION = "configuration"
# Hints for the table and status.json, which outlives the command: with the installed command, not as it was typed.
HINTS = {
    DIVERGED: "this is a result; lower optim.lr for another arm, or set retry=all to retry; see diverged.json",
    NOT_LEARNING: "this is a result; check model.init and optim.lr; retry=all trainer.chance_epochs=null continues it",
    NOT_LEARNT: "check optim.lr and model.init; trainer.limit_train_batches=N allows more steps",
    MEMORY: "free memory, or lower data.eval_batch_size or data.num_workers; then run the same command again",
    SHARED: "docker run --ipc=host or --shm-size=2g gives more, data.num_workers=0 needs none; then run the same "
    "command again",
    FILES: "raise the limit with `ulimit -n 4096` or docker run --ulimit nofile=65536:65536, or lower "
    "data.num_workers; then run the same command again",
    DISK: "free disk space (`alexlab runs prune` may help), then run the same command again",
    DATA: "`alexlab prepare check` with the same data= lists what is corrupt; then run the same command again",
    KILLED: "run the same command again: it resumes from the last checkpoint",
    ERROR: "train.log has the traceback; run the same command again to retry",
    CONFIGURATION: "fix this first: until then the same command fails in the same way",
}
RESULTS = (DIVERGED, NOT_LEARNING)  # retrying these until they pass would introduce survivorship bias

_OURS = {  # by name, since torch is not loaded here
    **{"Diverged": DIVERGED, "DoesNotLearn": NOT_LEARNING, "NotLearnt": NOT_LEARNT, "BadData": DATA},
    **{"NoSharedMemory": SHARED, "TooManyFiles": FILES},
}
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|Cannot allocate memory|bad_alloc|out of memory|ALLOC_FAILED"
)
_NO_SHARED = re.compile(r"shared memory|Bus error|</torch_\w+>")  # checked before a full disk, whose text it contains
_NO_FILES = re.compile(r"Too many open files|received \d+ items of ancdata")
_NO_ROOM = re.compile(r"No space left|Disk quota exceeded|inline_container.* unexpected pos|file write failed")
_KILLED = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)")


def is_shared(failure: str | None, message: str, varying: Collection[str]) -> bool:
    """Whether the other runs of a sweep will fail in the same way, due to the configuration or the installation.

    `varying`: the keys in which the sweep's runs differ. If any key of `data` varies, a message `data.size=...` may not
    concern all runs, since keys depend on one another. Lightning's own errors are about `trainer`.
    """
    named = re.match(r"[\w.]+(?=[=:,])", message)
    group = named[0].partition(".")[0] if named else ""
    group = {"MisconfigurationException": "trainer"}.get(group, group)
    return failure == CONFIGURATION and group not in {name.partition(".")[0] for name in varying}


def is_retried(failure: str | None, retry: Retry) -> bool:
    """Whether a run with this failure is retried when its command is run again."""
    return retry is Retry.all or (retry is Retry.faults and failure not in RESULTS)


def failure_of(error: BaseException, oom_kills: int = 0) -> str:
    """The class of an error that ended a training; `oom_kills`: number of processes OOM-killed meanwhile."""
    return _decided(error, oom_kills)[0]


def message_of(error: BaseException) -> str:
    """A one-line message, from the error in the chain that decides the class."""
    error = _decided(error)[1]
    text = str(error)
    if (
        text.startswith("Caught ") and "Original Traceback" in text
    ):  # in a loader's process: its last line is the message
        text = text.rstrip().rsplit("\n", 1)[-1].split(": ", 1)[-1]
    text = " ".join(text.split()) or type(error).__name__
    is_ours = isinstance(error, UserError) or type(error).__name__ in _OURS
    return text if is_ours else f"{type(error).__name__}: {text}"


def _decided(error: BaseException, oom_kills: int = 0) -> tuple[str, BaseException]:
    for cause in _chain(error):
        kind, text = type(cause).__name__, str(cause)
        if kind in _OURS:
            return _OURS[kind], cause
        is_setting = isinstance(cause, ConfigError | ImportError) or kind == "MisconfigurationException"  # Lightning's
        if is_setting and cause in (error, error.__cause__):  # not one that led to a fallback
            return CONFIGURATION, cause
        number = cause.errno if isinstance(cause, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE) or _NO_FILES.search(text):
            return FILES, cause
        if _NO_SHARED.search(text):
            return SHARED, cause
        if number in (errno.ENOSPC, errno.EDQUOT) or _NO_ROOM.search(text):
            return DISK, cause
        is_memory = isinstance(cause, MemoryError) or kind == "OutOfMemoryError" or number == errno.ENOMEM
        if is_memory or (isinstance(cause, RuntimeError | OSError) and _NO_MEMORY.search(text)):
            return MEMORY, cause
        if _KILLED.search(text):
            return (MEMORY if oom_kills else KILLED), cause
        if number is not None and not isinstance(cause, ConnectionError):
            return ERROR, cause  # such as EIO, which torch reports as its own failed write
    return ERROR, error


_LOST_CONTACT = re.compile(r"\b(gloo|NCCL|ProcessGroup\w*)\b|Connection closed by peer", re.IGNORECASE)


def is_echo(error: BaseException) -> bool:
    """Whether an error may mean only that another process of the run is gone."""
    if isinstance(error, UserError) or failure_of(error) != ERROR:
        return False
    return any(type(cause).__name__.startswith("Dist") or _LOST_CONTACT.search(str(cause)) for cause in _chain(error))


def ended_by(code: int) -> str:
    """The signal or exit status with which a process ended."""
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def oom_kills() -> int:
    """The number of processes of this container or job that the kernel has OOM-killed so far; 0 if unknown."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = Path("/sys/fs/cgroup") if not controllers else Path("/sys/fs/cgroup/memory")
            for folder in (root / path.lstrip("/"), root):  # a container sees its own group as the root
                for name in ("memory.events", "memory.oom_control"):
                    with suppress(OSError):
                        counts = dict(row.split()[:2] for row in (folder / name).read_text().splitlines())
                        if "oom_kill" in counts:
                            return int(counts["oom_kill"])
    return 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
