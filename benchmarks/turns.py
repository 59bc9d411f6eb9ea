"""Shared by all benchmarks: contenders that take turns, busy loops next to them, ratios within a round, a table.

Every benchmark imports this module before torch and before the project; ruff keeps that order (pyproject.toml). So a
benchmark runs the code of its own tree, and `alexlab` sets the thread wait policy before torch loads OpenMP.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parents[1] / "src"))
GIVEN = dict(os.environ)  # before alexlab adds to it

from alexlab import children, threads  # noqa: E402

# isort: split
import torch  # noqa: E402

children.inherit_code()
threads.use(threads.of_command())

DISTRIBUTIONS = ["torch", "torchvision", "lightning", "numpy", "pillow", "simplejpeg", "ffcv", "numba"]
DISTRIBUTIONS += ["mosaicml-streaming", "litdata", "webdataset", "datasets", "spdl", "grain"]

PEERS = ("plain", "torchvision")  # prefixes of contenders that are not ours


def arguments(about: str | None, rounds: int) -> argparse.ArgumentParser:
    """Parser of the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="rounds that count, 2 or more (default: %(default)s)"
    )
    parser.add_argument("--busy", action="store_true", help="also measure next to one busy loop per usable core")
    parser.add_argument("--json", type=Path, help="add the ratios to this file, for benchmarks/compare.py")
    return parser


BUSY_LOOP = """
import os, sys
print(flush=True)
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000):
        pass
"""


@contextmanager
def busy_loops() -> Iterator[None]:
    """Run one busy loop per usable core; they end with the block, or with this process."""
    command, loops = [sys.executable, "-I", "-S", "-c", BUSY_LOOP, str(os.getpid())], []
    try:
        for _ in range(threads.cores()):
            loops.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        for loop in loops:
            loop.stdout.read(1)  # it runs
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()


@dataclass(frozen=True)
class Times:
    """Seconds of each contender's turns; `busy`: those in the same rounds next to busy loops, or empty."""

    quiet: dict[str, list[float]]
    busy: dict[str, list[float]]


def take_turns(
    contenders: dict[str, Callable[[], object]],
    rounds: int,
    busy: bool = False,
    beside: Callable[[], AbstractContextManager[None]] = busy_loops,
) -> Times:
    """Let contenders take turns; every second round is in reverse order, and the first does not count.

    With `busy` each round has a second part, inside `beside`. A turn that returns a number has measured its seconds
    itself; one that returns a dictionary has measured the seconds of several.
    """
    times = Times({}, {})
    parts = [(times.quiet, nullcontext), (times.busy, beside)]
    for number in range(rounds + 1):
        for seconds, surroundings in parts if busy else parts[:1]:
            with surroundings():
                for name in contenders if number % 2 == 0 else reversed(contenders):
                    for measured, took in _turn(name, contenders[name]).items():
                        seconds.setdefault(measured, []).extend([took] if number else [])
    return times


def _turn(name: str, contender: Callable[[], object]) -> dict[str, float]:
    started = time.perf_counter()
    measured = contender()
    took = time.perf_counter() - started
    if isinstance(measured, dict):
        return measured
    return {name: measured if isinstance(measured, float) else took}


# Threads wait as in any program that uses torch. GNU OpenMP does not read it, LLVM's and Intel's have it as default.
AS_SHIPPED = {"KMP_BLOCKTIME": "200"}


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment `variables`, in place of this process's thread settings, for processes started in this block."""
    own = dict(os.environ)
    for name in threads.WAITING:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(own)


class Apart:
    """A contender in a process of its own, with memory of its own; made there by `make(*given)`.

    A call is a turn: it repeats `step()` of what was made there for half a second, or runs it once if that takes
    longer, and returns the seconds of one. A shorter turn would not show how cores are shared with busy loops.
    """

    SECONDS = 0.5

    def __init__(self, make: Callable[..., Any], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._own, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, given))
        self._process.start()
        theirs.close()
        atexit.register(self.end)  # before multiprocessing waits for it
        self._answer()

    def __call__(self) -> float:
        self._own.send(None)
        return self._answer()

    def ask(self, name: str, *given: Any) -> Any:
        """Call a method of the contender and return its result."""
        self._own.send((name, given))
        return self._answer()

    def _answer(self) -> Any:
        answer = self._own.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        self._own.close()
        self._process.join()


def _serve(connection: Connection, make: Callable[..., Any], given: tuple[Any, ...]) -> None:
    try:
        made, answer = make(*given), None
        while True:
            connection.send(answer)
            try:
                asked = connection.recv()
            except EOFError:
                return
            answer = _mean_seconds(made.step) if asked is None else getattr(made, asked[0])(*asked[1])
    except Exception as error:
        connection.send(error)


def _mean_seconds(step: Callable[[], object]) -> float:
    gc.collect()
    steps, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < Apart.SECONDS or steps == 0:
        steps += 1
        measured = step()
        if isinstance(measured, float):
            return measured
    return took / steps


@dataclass(frozen=True)
class Ratio:
    """Cost over another's cost: the median over rounds, and the quartiles."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(own: list[float], others: list[float]) -> Ratio:
        ratios = [mine / theirs for mine, theirs in zip(own, others, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return Ratio(middle, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3g} | {self.low:.3g} to {self.high:.3g}"


def tell(title: str, times: Times, like: str, to: Path | None, extra: dict[str, dict[str, str]] | None = None) -> None:
    """Print a table of contenders, with more columns by name in `extra`, and add the ratios to a file.

    Times next to busy loops are the last columns: milliseconds, cost, and the share of its own quiet speed.
    """
    parts = {title: times.quiet} | ({f"{title}, busy": times.busy} if times.busy else {})
    ratios = {part: {name: Ratio.of(own, times[like]) for name, own in times.items()} for part, times in parts.items()}
    more = dict(extra or {})
    if times.busy:
        busy = ratios[f"{title}, busy"]
        more["busy: ms"] = {name: f"{1000 * statistics.median(own):.4g}" for name, own in times.busy.items()}
        more[f"busy: cost over {like}"] = {name: f"{ratio.median:.3g}" for name, ratio in busy.items()}
        shares = {name: Ratio.of(times.quiet[name], own).median for name, own in times.busy.items()}
        more["busy: of its quiet speed"] = {name: f"{share:.2f}" for name, share in shares.items()}
    print(f"\n| {title} | ms | cost over {like} | half of rounds |{''.join(f' {name} |' for name in more)}")
    print(f"|---|--:|--:|---|{'--:|' * len(more)}")
    for name, ratio in ratios[title].items():
        columns = "".join(f" {column.get(name, '')} |" for column in more.values())
        print(f"| {name} | {1000 * statistics.median(times.quiet[name]):.4g} | {ratio} |{columns}", flush=True)
    for part, found in ratios.items():
        record(to, {f"{part}: {name}": own for name, own in found.items() if not name.startswith((like, *PEERS))})


def record(to: Path | None, ratios: dict[str, Ratio]) -> None:
    """Add ratios to a file; lower is better in all of them."""
    if to is not None:
        known = json.loads(to.read_text()) if to.exists() else {}
        known.update({name: ratio.median for name, ratio in ratios.items()})
        to.write_text(json.dumps(known, indent=1))


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cpu}, {torch.get_num_threads()} threads, {device}, load average before {os.getloadavg()[0]:.1f}"


def versions() -> str:
    found = []
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([f"Python {sys.version.split()[0]}", *found])


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def settled() -> None:
    """Synchronise with the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _best(call: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times):
        settled()
        started = time.perf_counter()
        call()
        settled()
        found.append(time.perf_counter() - started)
    return min(found)


def matrix_rate(dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a product of square matrices: the limit of a net's arithmetic."""
    size = 8192 if torch.cuda.is_available() else 2048
    a, b = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: a @ b)


def bandwidth() -> float:
    """Bytes per second, read and written, of a copy larger than any cache: the limit of memory-bound work."""
    source = torch.ones(2**28 if torch.cuda.is_available() else 2**26, device=device())
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source))
