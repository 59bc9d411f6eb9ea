"""Commands that tests start as a user types them: in processes of their own, watched while they run."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alexlab.config import PROJECT_DIR
from support.settings import last_of_each

TRAIN = [sys.executable, str(PROJECT_DIR / "src" / "train.py")]
PATIENCE = 600.0  # seconds that a test waits for anything; what has failed is told sooner

_started: list[subprocess.Popen[str]] = []


def start(
    line: Iterable[str],
    more: dict[str, str] | None = None,
    *,
    script: str = "train.py",
    cwd: Path = PROJECT_DIR,
    stderr: int = subprocess.STDOUT,
) -> subprocess.Popen[str]:
    """A command that has begun, in a session of its own. `more`: for its environment."""
    words = [sys.executable, str(PROJECT_DIR / "src" / script), *last_of_each(line)]
    return begin(words, more, cwd=cwd, stderr=stderr)


def begin(
    words: list[str],
    more: dict[str, str] | None = None,
    *,
    cwd: Path = PROJECT_DIR,
    stderr: int = subprocess.STDOUT,
    terminal: int | None = None,
) -> subprocess.Popen[str]:
    """As `start`, of any program; `terminal`: what it is to have as its own, for input and output."""
    # torch._inductor's folder is in the environment of whatever process has imported that, as this one may have.
    others = ("WANDB", "MLFLOW", "ALEXLAB", "SLURM", "TORCHINDUCTOR_CACHE_DIR")
    kept = {name: value for name, value in os.environ.items() if name == "ALEXLAB_TESTS" or not name.startswith(others)}
    process = subprocess.Popen(
        last_of_each(words),
        stdin=terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=stderr,
        preexec_fn=None if terminal is None else _own_terminal,
        text=True,
        start_new_session=True,
        cwd=cwd,
        env={**kept, "COLUMNS": "100", **(more or {})},
    )
    _started.append(process)
    return process


def _own_terminal() -> None:
    """Make standard input this session's terminal, and heed its end, which nohup would have had ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def end_all() -> None:
    """End what a test has begun and, having failed, has not waited for."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            for pid in [process.pid, *descendants(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status and output."""
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def run(line: Iterable[str], more: dict[str, str] | None = None) -> tuple[int, str]:
    return finish(start(line, more))


def command(
    *line: str, script: str = "train.py", cwd: Path = PROJECT_DIR, **more: str
) -> subprocess.CompletedProcess[str]:
    """A command from its start to its end, on 80 columns, its output and its errors apart."""
    process = start(line, {"COLUMNS": "80", **more}, script=script, cwd=cwd, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def until(is_so: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """What a question answers once that is not nothing; `process`: what is to live meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := is_so()):
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)
    return answer


def told(process: subprocess.Popen[str], text: str) -> None:
    """Wait until a command says something."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it has not said {text!r}")


def descendants(pid: int) -> list[int]:
    """The processes below one, in the order of generations."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listing.splitlines())}
    found = [pid]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


def trainers(pid: int) -> list[int]:
    """The processes below one that train: each leads a session of its own, below multiprocessing's server.

    So does W&B's service, but below one of them.
    """
    leaders = []
    for below in sorted(descendants(pid)):
        with suppress(ProcessLookupError):
            if os.getsid(below) == below:
                leaders.append(below)
    services = {service for leader in leaders for service in descendants(leader)}
    return [leader for leader in leaders if leader not in services]


def command_line(pid: int) -> list[str]:
    """Of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def under_way(runs: Path, number: int) -> list[Path]:
    """The records of runs that have trained an epoch and go on; empty until there are so many."""
    found = [path.parent for path in sorted(runs.glob("*/metrics.csv")) if list(path.parent.glob("claim.*"))]
    return found if len(found) >= number else []


@contextmanager
def halted(process: subprocess.Popen[str], runs: Path, number: int = 1) -> Iterator[list[int]]:
    """The processes that train a command's runs, each halted once it has trained an epoch, in the order of records.

    So none ends before others begin, and what is sent to the command meanwhile finds all of them at work.
    """
    pids: dict[Path, int] = {}

    def halt() -> bool:
        for record in under_way(runs, 1):
            if record not in pids and (found := trainers(owner(record))):  # none before its first process is started
                pids[record] = found[-1]
                os.kill(pids[record], signal.SIGSTOP)
                until(lambda pid=pids[record]: is_halted(pid))
        return len(pids) == number

    until(halt, process)
    yield [pids[record] for record in sorted(pids)]
    for pid in pids.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def is_halted(pid: int) -> bool:
    """Whether all of its threads are, so that none takes a signal any more."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def is_sent(pid: int, number: signal.Signals) -> bool:
    """Whether a signal waits for a process that is halted."""
    [mask] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd")]
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def stop(process: subprocess.Popen[str], runs: Path, number: int = 1, by: signal.Signals = signal.SIGTERM) -> str:
    """Ask a command to stop while it trains `number` runs; its output."""
    with halted(process, runs, number) as pids:
        process.send_signal(by)
        until(lambda: all(is_sent(pid, signal.SIGTERM) for pid in pids), process)
    status, output = finish(process)
    assert status == 75, output
    return output


def statuses(runs: Path) -> list[tuple[str, int]]:
    read = [json.loads(path.read_text()) for path in sorted(runs.glob("*/status.json"))]
    return [(status["state"], status["attempt"]) for status in read]


def owner(record: Path) -> int:
    """The process that works on a run: that of its launcher."""
    [claim] = record.glob("claim.*")
    return json.loads(claim.read_text())["pid"]


def living(pids: list[int]) -> list[str]:
    """Those of these processes that are there; what has ended, and only its parent has not looked, is not."""
    listing = subprocess.run(["ps", "-wweo", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listing.splitlines()]
    return [" ".join(row) for row in rows if int(row[0]) in pids and not row[1].startswith("Z")]
