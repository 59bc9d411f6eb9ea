"""What benchmarks share: contenders that take turns, ratios within a round, a table, what the machine can do."""

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
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

DISTRIBUTIONS = ["torch", "torchvision", "lightning", "numpy", "pillow", "simplejpeg", "ffcv", "numba"]
DISTRIBUTIONS += ["mosaicml-streaming", "litdata", "webdataset", "datasets"]

PEERS = ("plain", "torchvision")  # how contenders are called that are not ours to make better or worse


def arguments(about: str | None, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="that count, 2 or more (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="a file to which the ratios are added, for benchmarks/compare.py")
    return parser


def take_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender's turns; every second round goes the other way, and the first does not count.

    A turn that returns a number has measured its seconds itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name in contenders if number % 2 == 0 else reversed(contenders):
            started = time.perf_counter()
            measured = contenders[name]()
            took = time.perf_counter() - started
            if number:
                seconds[name].append(measured if isinstance(measured, float) else took)
    return seconds


class Apart:
    """A contender in a process of its own, where nobody else's memory is in its way; made there by `make(*given)`.

    A call is a turn: it lets `step()` of what was made run once there, and returns its seconds.
    """

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
        """What a method of the contender returns."""
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
            gc.collect()
            started = time.perf_counter()
            answer = made.step() if asked is None else getattr(made, asked[0])(*asked[1])
            if asked is None:
                answer = answer if isinstance(answer, float) else time.perf_counter() - started
    except Exception as error:
        connection.send(error)


@dataclass(frozen=True)
class Ratio:
    """Cost over another's cost: the median over rounds, and where the middle half of the rounds lies."""

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


def tell(
    title: str,
    seconds: dict[str, list[float]],
    like: str,
    to: Path | None,
    extra: dict[str, dict[str, str]] | None = None,
) -> dict[str, Ratio]:
    """Print a table of contenders, with more columns by name in `extra`, and add the ratios to a file."""
    extra = extra or {}
    ratios = {name: Ratio.of(own, seconds[like]) for name, own in seconds.items()}
    print(f"\n| {title} | ms | cost over {like} | half of rounds |{''.join(f' {name} |' for name in extra)}")
    print(f"|---|--:|--:|---|{'--:|' * len(extra)}")
    for name, ratio in ratios.items():
        more = "".join(f" {column.get(name, '')} |" for column in extra.values())
        print(f"| {name} | {1000 * statistics.median(seconds[name]):.4g} | {ratio} |{more}", flush=True)
    record(to, {f"{title}: {name}": ratio for name, ratio in ratios.items() if not name.startswith((like, *PEERS))})
    return ratios


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
    """Wait until the device has done what it was told."""
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
    """Multiplications and additions a second, of a product of square matrices: the limit of a net's arithmetic."""
    size = 8192 if torch.cuda.is_available() else 2048
    a, b = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: a @ b)


def bandwidth() -> float:
    """Bytes a second, read and written, of a copy that fits no cache: the limit of what only passes over numbers."""
    source = torch.ones(2**28 if torch.cuda.is_available() else 2**26, device=device())
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source))
