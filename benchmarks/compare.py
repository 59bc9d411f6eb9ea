"""Compare the ratios of this tree with those of a commit: `make bench-compare BASE=<git ref>`.

Each tree runs its own benchmarks on its own code, in turns, so that a slow hour of the machine affects both. Every
ratio is a cost over the cost of something outside the project; lower is better. Exits with 1 if one is over 10 % worse.

With --busy each benchmark also runs next to busy loops. This script starts them, since a benchmark of an older tree may
not have the option.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from turns import GIVEN, busy_loops

PROJECT = Path(__file__).parents[1]
LIMIT = 1.10
PARTS = [("", nullcontext), (", busy", busy_loops)]
BRIEF = {
    "step": [["step.py", "--quick", "--scale", "demo", "--rounds", "21"], ["step.py", "--quick", "--rounds", "5"]],
    "augment": [["augment.py"]],
    "trainer": [["trainer.py", "--scale", "demo", "--rounds", "5"]],
    "evaluation": [["evaluation.py", "--scale", "demo", "--rounds", "5"]],
    "loader": [["loader.py", "--one-core", "--images", "512", "--rounds", "5"]],
    "prepare": [["prepare.py", "--race", "--images", "200", "--rounds", "3"]],
    "startup": [["startup.py", "--rounds", "2"]],
}


def run(tree: Path, command: list[str]) -> dict[str, float]:
    """Run a benchmark of a tree and return its ratios; empty if it does not exist or fails."""
    if not (tree / "benchmarks" / command[0]).exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "ratios.json"
        environment = {**GIVEN, "PYTHONPATH": str(tree / "src"), "ALEXLAB_CACHE": str(PROJECT / "cache")}
        line = [sys.executable, *command, "--json", str(to)]
        done = subprocess.run(
            line, cwd=tree / "benchmarks", env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"{tree}: {' '.join(command)} failed: {(done.stderr.splitlines() or ['?'])[-1]}", file=sys.stderr)
            return {}
        return json.loads(to.read_text()) if to.exists() else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a commit, branch or tag")
    parser.add_argument("--only", nargs="+", choices=BRIEF, default=list(BRIEF))
    parser.add_argument("--busy", action="store_true", help="also run each next to one busy loop per usable core")
    parser.add_argument("--repeats", type=int, default=2, help="of each benchmark on each tree (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        git = ["git", "-C", str(PROJECT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(base), args.base], check=True)
        try:
            found: dict[Path, dict[str, list[float]]] = {base: {}, PROJECT: {}}
            for command in (command for name in args.only for command in BRIEF[name]):
                for repeat in range(args.repeats):
                    for tree in (base, PROJECT) if repeat % 2 == 0 else (PROJECT, base):
                        for suffix, surroundings in PARTS[: 1 + args.busy]:
                            line = f"{'base' if tree == base else 'now'}{suffix}: {' '.join(command)}"
                            print(line, file=sys.stderr, flush=True)
                            with surroundings():
                                ratios = run(tree, command)
                            for name, ratio in ratios.items():
                                found[tree].setdefault(f"{name}{suffix}", []).append(ratio)
        finally:
            subprocess.run([*git, "remove", "--force", str(base)], check=True)
    medians = {tree: {name: statistics.median(own) for name, own in found[tree].items()} for tree in found}
    return show(medians[base], medians[PROJECT])


def show(base: dict[str, float], now: dict[str, float]) -> int:
    """Print both trees' ratios; return 1 if one is worse than the limit, else 0."""
    status = False
    print("| cost, lower is better | base | now | change | |\n|---|--:|--:|--:|---|")
    for name in now:
        if name not in base:
            print(f"| {name} | - | {now[name]:.3g} | new | |")
            continue
        change = now[name] / base[name]
        verdict = "worse" if change > LIMIT else "better" if change < 1 / LIMIT else ""
        status |= change > LIMIT
        print(f"| {name} | {base[name]:.3g} | {now[name]:.3g} | {100 * (change - 1):+.0f} % | {verdict} |")
    for name in base.keys() - now.keys():
        print(f"| {name} | {base[name]:.3g} | - | gone | |")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
