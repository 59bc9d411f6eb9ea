"""Differences that runs of the same configuration may still have: data, code, packages, machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from alexlab.console import plural
from alexlab.runs.packages import computes, is_of_cuda
from alexlab.study.records import RunData

Value = Callable[[RunData], str | None]  # None: the record is older than the entry
_SHORT_HASH = 8


def _code(run: RunData) -> str:
    commit, changes = run.environment.get("git_commit"), run.environment.get("changes")
    if not commit:
        return "unknown"
    is_changed = run.environment.get("git_dirty")
    if changes is not None:  # of src/ and conf/ alone, and with their hash
        is_changed = changes.get("sha256")
    mark = f" {is_changed[:_SHORT_HASH]}" if isinstance(is_changed, str) else ""
    return f"{str(commit)[:10]}{f' with changes{mark}' if is_changed else ''}"


def _entry(name: str, of_gpus: bool = False) -> Value:
    """A run's entry of environment.json; `of_gpus`: it is ignored without a GPU."""

    def value(run: RunData) -> str | None:
        found: dict[str, Any] = run.environment
        if name not in found:
            return None
        return str(found[name] or "none") if found.get("gpus") or not of_gpus else "none"

    return value


def _main_packages(run: RunData) -> str:
    packages = run.environment.get("packages") or {}
    return " ".join(
        f"{name} {packages[name]}" for name in ("torch", "torchvision", "lightning", "numpy") if name in packages
    )


_STORE: dict[str, Value] = {"the store": lambda run: str(run.result["data"]["store"])}
_CODE: dict[str, Value] = {
    "the code": _code,
    "modified code": lambda run: str(run.environment.get("modified_code") or "none"),
}
_MACHINE: dict[str, Value] = {
    "the CPU": lambda run: str(run.environment.get("cpu") or "unknown"),
    "the number of threads": lambda run: str(run.environment.get("threads") or "unknown"),
    "the device": lambda run: run.result.get("device"),  # of a run that is done
    "the GPU": lambda run: ", ".join(sorted(set(run.environment.get("gpus") or ()))) or "none",
    "the driver": _entry("driver", of_gpus=True),
    "CUDA": _entry("cuda"),
    "cuDNN": _entry("cudnn", of_gpus=True),
    "the C library": _entry("libc"),
}
_SETTINGS: dict[str, Value] = {
    "the precision": lambda run: str(run.result["precision"]),
    "the weights": lambda run: str(run.result["checkpoint"]),
}
SURROUNDINGS = {**_STORE, **_CODE, **_MACHINE, **_SETTINGS}
SHOWN = {**_STORE, **_CODE, "the packages": _main_packages, **_MACHINE, **_SETTINGS}  # on a page, each with its values


def between_arms(arms: Sequence[Sequence[RunData]]) -> tuple[list[str], list[str]]:
    """A line for each difference between two arms, and for each that occurs within both in the same way."""

    def seen(value: Value) -> list[dict[str, None]]:
        return [dict.fromkeys(text for run in runs if (text := value(run)) is not None) for runs in arms]

    apart, mixed = {}, {}
    for what, value in {**SURROUNDINGS, **_packages(run for runs in arms for run in runs)}.items():
        found = seen(value)
        if all(found) and found[0].keys() != found[1].keys():
            apart[what] = " against ".join(map(", ".join, found))
        elif len(found[0]) > 1 and len(found[1]) > 1:
            mixed[what] = ", ".join(found[0])
    return _lines(apart, "between the arms"), _lines(mixed, "within each arm")


def between_runs(arms: Mapping[str, Sequence[RunData]]) -> list[str]:
    """A line for each difference in code, packages or machine between any runs of a study's arms."""
    every = [run for runs in arms.values() for run in runs]
    differing = {}
    for what, value in {**_CODE, **_MACHINE, **_packages(every)}.items():
        found: dict[str, Counter[str]] = {}
        for name, runs in arms.items():
            for text in (value(run) for run in runs):
                if text is not None:
                    found.setdefault(text, Counter())[name] += 1
        if len(found) > 1:
            first, *others = sorted(found.items(), key=lambda item: -item[1].total())
            parts = [f"{first[0]} in {plural(first[1].total(), 'run')}"]
            parts += [f"{text} in {counts.total()} ({_some(list(counts))})" for text, counts in others]
            differing[what] = ", ".join(parts)
    return _lines(differing, "between the runs")


def between_two(one: RunData, other: RunData) -> list[tuple[str, str, str]]:
    """(what, value of one, value of the other) for each difference between two runs; values None are left out."""
    found = []
    for what, value in {**_CODE, **_MACHINE, **_packages([one, other])}.items():
        first, second = value(one), value(other)
        if first != second and None not in (first, second):
            found.append((what, str(first), str(second)))
    return found


def _version(name: str, run: RunData) -> str | None:
    """A package's version, "none" without it; None if an older record, which lists nine packages, lacks it."""
    is_complete = "implementation" in run.environment
    return (run.environment.get("packages") or {}).get(name, "none" if is_complete else None)


def _packages(runs: Iterable[RunData]) -> dict[str, Value]:
    """The version of each package that any of the runs had."""
    names = sorted({name for run in runs for name in run.environment.get("packages") or ()})
    return {name: partial(_version, name) for name in names}


def _lines(differing: Mapping[str, str], where: str) -> list[str]:
    """A line for each difference, and one for all packages if any of these computes something."""
    lines = [f"{what} differs {where}: {text}" for what, text in differing.items() if what in SURROUNDINGS]
    packages = {name: text for name, text in differing.items() if name not in SURROUNDINGS}
    named = [f"{name} {text}" for name, text in packages.items() if computes(name) and not is_of_cuda(name)]
    libraries = sum(map(is_of_cuda, packages))
    if not named and not libraries:
        return lines
    if libraries:
        named.append(f"{libraries} of CUDA's libraries")
    if others := sum(not computes(name) for name in packages):
        named.append(f"{plural(others, 'other package')} that compute{'s' * (others == 1)} nothing")
    return [*lines, f"packages differ {where}: {'; '.join(named)}"]


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
