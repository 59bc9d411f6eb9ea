"""Compare the bits of this tree's results with those of a commit: `make compat BASE=<commit, tag or branch>`.

Each small configuration is trained by the code of BASE and by this tree's, and a run half done on BASE is resumed here.
Where RESULTS_VERSION is equal, all bits must be, and so must run ids: exit status 1 if they are not, with the first
difference. Where it differs, the first difference is information: exit status 0. Two cores take about two minutes.

    python tests/compat.py v0.2.0
    python tests/compat.py --release         the last release; skipped in a clone that does not have its commit
    git bisect start; git bisect bad; git bisect good BASE
    git bisect run python COPY/tests/compat.py BASE --tree .      COPY: a checkout that stays where it is
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
RECORDING = PROJECT / "tests" / "support" / "recording.py"
# Stands for the last release until there is a tag v*: the commit from which the studies on real images were planned.
FIRST_BASE = "05c1be8486763303d0271e02d9a4989ad3d5d0be"
NEEDED = ("src/alexlab/config.py", "src/alexlab/training/fit.py", "src/alexlab/runs/identity.py", "conf")
HALF = 6  # steps of 12: in the second of three epochs

SMALL = [
    *("data.train_images=80", "data.val_images=30", "data.test_images=37", "data.batch_size=20"),
    *("trainer.max_epochs=3", "optim.drops=[0.3,0.6]", f"checkpoint.every_steps={HALF}"),
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false"),
]
NARROW = ["model.width=0.0625", "model.hidden=128"]
LATE = ["augment.pca_until=0.5", "optim.conv1_cut_at=0.3", "optim.conv1_freeze_at=0.6"]  # what it does late in a run
# Together they use every rule that a CPU can: colours, dropout, LRN, momentum and decay, drops of the rate, freezing.
CONFIGURATIONS = {
    "demo": [*NARROW, "model.dropout=0.5", "model.init_bias=0.1"],
    "source2012": [*NARROW, "protocol=source2012", *LATE],
    "caffe": [*NARROW, "protocol=caffe"],
    "towers": [*NARROW, "model.groups=2", "model.lrn_per_tower=true"],
    "cifar": ["recipe=cifar10", "data=shapes", "model=cifar_11pct"],
    "normalised": [*NARROW, "ablation=batch_norm_before", "optim.schedule=plateau", "optim.patience=1"],
    "bf16": [*NARROW, "trainer.precision=bf16-mixed"],
}
# Stopped in the middle, once it has trained an epoch; with more epochs if it was done before that.
STOPPABLE = [*SMALL[:4], *SMALL[-2:], *NARROW]
DRAWS = ("images", "labels", "crops", "flips", "colours", "pixels", "inputs")
STOPPED = 75  # the exit status of a command that was asked to stop


class CompatError(Exception):
    """A comparison that cannot be made; its text is one line."""


# What differs


def first_difference(base: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first thing in which two recordings differ, in the order of cause and effect; None if nothing does.

    Draws come first, since they depend on no weight; then the initial weights; then each step's loss, and the weights
    and velocities after it; then errors. Only steps that both have are compared, and `start` only at the same step.
    """
    steps = sorted(base["steps"].keys() & now["steps"].keys(), key=int)
    for step in steps:
        one, other = base["steps"][step]["draws"], now["steps"][step]["draws"]
        if found := [kind for kind in DRAWS if one.get(kind) != other.get(kind)]:
            return f"{found[0]} of step {step}"
    if base["start"]["step"] == now["start"]["step"] == 0 and (
        found := _differing(base["start"]["weights"], now["start"]["weights"])
    ):
        return f"initial weights: {_few(found)}"
    for step in steps:
        one, other = base["steps"][step], now["steps"][step]
        if one["loss"] != other["loss"]:
            return f"loss of step {step}: {one['loss']} on BASE, {other['loss']} here"
        for kind, also in (("weights", "velocities"), ("velocities", "")):
            if found := _differing(one[kind], other[kind]):
                second = f"; {also}, too" if also and _differing(one[also], other[also]) else ""
                return f"{kind} after step {step}: {_few(found)}{second}"
    if "errors" in base and "errors" in now:
        lengths = [max(map(int, one["steps"]), default=0) for one in (base, now)]
        if lengths[0] != lengths[1]:
            return f"length: {lengths[0]} steps on BASE, {lengths[1]} here"
        one, other = base["errors"], now["errors"]
        if found := _differing(one, other):
            return f"{found[0]}: {one.get(found[0], 'none')} on BASE, {other.get(found[0], 'none')} here"
    return None


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names whose values differ, those of only one side included, in the order of the first."""
    return [name for name in {**one, **other} if name not in one or name not in other or one[name] != other[name]]


def _few(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


@dataclass
class Findings:
    """What one configuration's recordings come to."""

    bits: str | None = None  # the first difference of the whole runs
    resumed: str | None = None  # of the run resumed here
    keys: list[str] = field(default_factory=list)  # "key: on BASE -> here", where run ids differ
    refused: str | None = None  # why BASE does not train the line
    problem: str | None = None  # why nothing can be compared

    def is_wrong(self, intended: list[str]) -> bool:
        """Whether equal bits were promised and not kept; `intended`: keys of run ids that were to change."""
        if self.keys and all(key.partition(":")[0] in intended for key in self.keys):
            return self.problem is not None
        return any((self.bits, self.resumed, self.keys, self.problem))


def findings(whole: dict[str, Any], half: dict[str, Any], now: dict[str, Any], resumed: dict[str, Any]) -> Findings:
    """Judge a configuration: `whole` and `half` are BASE's runs, `now` and `resumed` this tree's."""
    if "refused" in whole:
        return Findings(refused=whole["refused"])
    if "refused" in now:
        return Findings(problem=f"this tree does not train what BASE does: {now['refused']}")
    found = Findings(keys=id_differences(whole, now))
    repeated = half.get("refused") or first_difference(whole, half)
    if repeated is not None:
        found.problem = f"BASE does not repeat its own bits here: {repeated}"
        return found
    found.bits = first_difference(whole, now)
    if found.bits is None and whole["results_version"] == now["results_version"]:
        if "refused" in resumed:
            found.resumed = resumed["refused"]
        elif resumed["start"]["step"] != HALF:
            found.resumed = f"starts at step {resumed['start']['step']} instead of {HALF}"
        else:
            found.resumed = _difference_of_state(half, resumed) or first_difference(whole, resumed)
    return found


def _difference_of_state(half: dict[str, Any], resumed: dict[str, Any]) -> str | None:
    saved, read = half["steps"][str(HALF)], resumed["start"]
    for kind in ("weights", "velocities"):
        if found := _differing(saved[kind], read[kind]):
            return f"{kind} as read from BASE's state of step {HALF}: {_few(found)}"
    return None


def id_differences(base: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What makes two run ids differ, RESULTS_VERSION aside; the code is taken as known on both sides."""
    if base["run_id"] == now["run_id"]:
        return []
    one, other = ({k: v for k, v in side["keys"].items() if k != "results_version"} for side in (base, now))
    found = [f"{key}: {_shown(one, key)} -> {_shown(other, key)}" for key in _differing(one, other)]
    return found or ([] if base["results_version"] != now["results_version"] else ["how it is computed"])


def _shown(keys: dict[str, Any], key: str) -> str:
    return json.dumps(keys[key]) if key in keys else "none"


# Checkouts


def git(tree: Path, *arguments: str) -> str | None:
    """What git prints, or None if it fails."""
    # Without GIT_DIR and the like, which a hook sets.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(tree), *arguments], env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise CompatError("git is not installed; it is what reads the other commit") from None
    return done.stdout.strip() if done.returncode == 0 else None


def commit_of(tree: Path, base: str) -> str:
    """The full name of a commit of the tree's repository."""
    if git(tree, "rev-parse", "--git-dir") is None:
        raise CompatError(f"{tree}: is no git repository, so it has no commits to compare with; clone the project")
    found = git(tree, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    if not found:
        more = (
            "; the clone is shallow: git fetch --unshallow" if _is_shallow(tree) else "; git log --oneline lists them"
        )
        raise CompatError(f"BASE={base}: no such commit, tag or branch here{more}")
    return found


def _is_shallow(tree: Path) -> bool:
    return git(tree, "rev-parse", "--is-shallow-repository") == "true"


def release(tree: Path) -> str | None:
    """The last release before this commit, or what stands for it; None if the clone lacks it."""
    tag = git(tree, "describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD")
    return tag or git(tree, "rev-parse", "--verify", "--quiet", f"{FIRST_BASE}^{{commit}}")


def check_out(tree: Path, commit: str, folder: Path) -> Path:
    """Put the code of a commit into a new folder; the repository itself is left as it is."""
    archive, base = folder / "base.tar", folder / "base"
    lacking = [name for name in NEEDED if git(tree, "cat-file", "-e", f"{commit}:{name}") is None]
    if lacking:
        raise CompatError(f"BASE={commit[:7]}: has no {lacking[0]}, so this command cannot run its code")
    if git(tree, "archive", "--format=tar", f"--output={archive}", commit, "src", "conf") is None:
        raise CompatError(f"BASE={commit[:7]}: git archive failed; a partial clone needs: git fetch --refetch")
    with tarfile.open(archive) as file:
        file.extractall(base, filter="data")
    archive.unlink()
    return base


# Processes


def environment(tree: Path) -> dict[str, str]:
    """The user's, with the code of a tree, one thread, and nothing else of this project, of W&B or of a cluster."""
    others = ("ALEXLAB", "WANDB", "SLURM", "GIT_")
    kept = {name: value for name, value in os.environ.items() if name == "ALEXLAB_TESTS" or not name.startswith(others)}
    own = {"PYTHONPATH": str(tree / "src"), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**kept, **own}


@contextmanager
def started(line: list[str], tree: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; it has ended when the block has, whatever ends that."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *line],
            cwd=tree,
            env=environment(tree),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # a command ends its runs first
            process.wait()


@dataclass(frozen=True)
class Side:
    """One of the two trees, and a folder for its runs."""

    name: str  # "BASE" or "this tree"
    tree: Path
    folder: Path

    @property
    def cache(self) -> str:
        return f"data.cache={self.folder / 'cache'}"  # each side draws and prepares its own images

    @contextmanager
    def recording(self, jobs: Sequence[tuple[str, str, int | None]]) -> Iterator[subprocess.Popen[bytes]]:
        """A process that trains and records (kind of run, configuration, steps after which to stop) in this order."""
        self.folder.mkdir(exist_ok=True)
        entries = [
            {
                "line": [*SMALL, *CONFIGURATIONS[name], self.cache],
                "folder": str(self.folder / kind / name),
                "recording": str(self.folder / kind / f"{name}.json"),
                "stop_after": stop_after,
            }
            for kind, name, stop_after in jobs
        ]
        path = self.folder / "jobs.json"
        path.write_text(json.dumps(entries))
        with started(["-P", str(RECORDING), str(path)], self.tree, self.folder / "recording.log") as process:
            yield process

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a recording process."""
        if process.wait():
            raise CompatError(f"{self.name}: training ended with status {process.returncode}: {self.last_line()}")

    def last_line(self, log: str = "recording.log") -> str:
        lines = (self.folder / log).read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")

    def read(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads((self.folder / kind / f"{name}.json").read_text())

    @contextmanager
    def command(self, epochs: int, runs: Path, log: str) -> Iterator[subprocess.Popen[bytes]]:
        """The command `train` as a user types it."""
        line = [*STOPPABLE, f"trainer.max_epochs={epochs}", self.cache, f"paths.runs={runs}"]
        with started(["src/train.py", *line], self.tree, self.folder / log) as process:
            yield process


def record_all(base: Side, here: Side, names: list[str]) -> dict[str, Findings]:
    """Train every configuration on both sides, resume BASE's halves here if RESULTS_VERSION is equal, and judge."""
    say(f"training {len(names)} configurations with both codes ...")
    halves = [job for name in names for job in (("whole", name, None), ("half", name, HALF))]
    with base.recording(halves) as one, here.recording([("whole", name, None) for name in names]) as other:
        base.wait(one)
        here.wait(other)
    whole = {name: (base.read("whole", name), here.read("whole", name)) for name in names}
    trained = [name for name in names if not any("refused" in one for one in whole[name])]
    if not trained:
        refused = next(one["refused"] for one in whole[names[0]] if "refused" in one)
        raise CompatError(f"none of the configurations is trained by both codes; {names[0]}: {refused}")
    resumable = [name for name in trained if len({one["results_version"] for one in whole[name]}) == 1]
    if resumable:
        say("resuming here what is half done on BASE ...")
        for name in resumable:
            shutil.copytree(base.folder / "half" / name, here.folder / "resumed" / name)
        with here.recording([("resumed", name, None) for name in resumable]) as process:
            here.wait(process)
    return {
        name: findings(
            whole[name][0],
            base.read("half", name),
            whole[name][1],
            here.read("resumed", name) if name in resumable else {"refused": "not tried"},
        )
        for name in names
    }


def resume_by_command(base: Side, here: Side, epochs: int = 8) -> str | None:
    """Stop the command on BASE in the middle of a run, and run it again here; what is wrong with that."""
    say("stopping the command on BASE, and running it again here ...")
    runs, undisturbed = here.folder / f"runs-{epochs}", here.folder / "undisturbed"
    with base.command(epochs, runs, "command.log") as process:
        while process.poll() is None and not list(runs.glob("*/metrics.csv")):  # its first epoch
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        status = process.wait()
    if status == 0 and epochs < 1000:
        return resume_by_command(base, here, 4 * epochs)  # it was done before it was stopped
    if status != STOPPED:
        return f"stopped on BASE, it ended with status {status}: {base.last_line('command.log')}"
    with (
        here.command(epochs, runs, "command.log") as resumed,
        here.command(epochs, undisturbed, "undisturbed.log") as plain,
    ):
        for process, log in ((resumed, "command.log"), (plain, "undisturbed.log")):
            if process.wait():
                return f"here it ends with status {process.returncode}: {here.last_line(log)}"
    records = sorted(path.parent for path in runs.glob("*/status.json"))
    if len(records) != 1:
        return f"it starts anew here, with another run id: {' and '.join(path.name for path in records)}"
    [expected] = (path.parent for path in undisturbed.glob("*/status.json"))
    if records[0].name != expected.name:
        return f"its run id is {records[0].name} instead of {expected.name}"
    return different_file(expected, records[0])


def different_file(expected: Path, record: Path) -> str | None:
    """The first file of results in which two finished records differ."""
    if (expected / "metrics.csv").read_bytes() != (record / "metrics.csv").read_bytes():
        return "metrics.csv differs"
    with np.load(expected / "predictions.npz") as one, np.load(record / "predictions.npz") as other:
        for name in one.files:
            if name not in other.files or one[name].tobytes() != other[name].tobytes():
                return f"predictions.npz differs: {name}"
    return None


# What is printed


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(found: dict[str, Findings]) -> str:
    """What each configuration came to; what concerns the run ids of all of them stands once, at the end."""
    compared = [one for one in found.values() if not one.refused and not one.problem]
    shared = [key for key in compared[0].keys if all(key in one.keys for one in compared)] if len(compared) > 1 else []
    rows = {name: _lines(one, shared) for name, one in found.items()}
    rows["all"] = [f"ANOTHER RUN ID {key}" for key in shared]
    return "\n".join(
        f"{'' if number else name:12}{line}" for name, lines in rows.items() for number, line in enumerate(lines)
    )


def _lines(found: Findings, shared: list[str]) -> list[str]:
    if found.refused:
        return [f"not compared, BASE does not train it: {found.refused}"]
    keys = [f"ANOTHER RUN ID {key}" for key in found.keys if key not in shared]
    if found.problem:
        return [f"CANNOT BE COMPARED {found.problem}", *keys]
    resumed = [f"RESUMED HERE {found.resumed}"] if found.resumed else []
    return [f"FIRST DIFFERENCE {found.bits}" if found.bits else "same bits", *resumed, *keys]


def compare(tree: Path, commit: str, names: list[str], intended: list[str]) -> int:
    """Compare a tree with a commit, print what is found, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="alexlab-compat-") as temporary:
        folder = Path(temporary)
        base = Side("BASE", check_out(tree, commit, folder), folder / "of_base")
        here = Side("this tree", tree, folder / "of_here")
        found = record_all(base, here, names)
        whole = ((base.read("whole", name), here.read("whole", name)) for name in names)
        one, other = next(pair for pair in whole if not any("refused" in side for side in pair))
        versions = [side["results_version"] for side in (one, other)]
        changed = ", with uncommitted changes" if git(tree, "status", "--porcelain", "--", "src", "conf") else ""
        head = git(tree, "rev-parse", "--short", "HEAD")
        print(f"BASE {commit[:7]}: RESULTS_VERSION {versions[0]}")
        print(f"this tree ({head}{changed}): RESULTS_VERSION {versions[1]}")
        print(report(found))
        if versions[0] != versions[1]:
            print("RESULTS_VERSION differs, so results may: the first differences are information.")
            return 0
        wrong = [name for name in names if found[name].is_wrong(intended)]
        reason = not_resumed(one, other, bool(wrong))
        if reason is None and (problem := resume_by_command(base, here)) is not None:
            reason = f"RESUMED HERE {problem}"
            wrong.append("command")
        print(f"{'command':12}{reason or 'stopped on BASE, it resumes here: same bits'}")
    return conclude(wrong, found)


def not_resumed(base: dict[str, Any], here: dict[str, Any], is_wrong: bool) -> str | None:
    """Why a run half done on BASE starts anew here by design, or need not be tried."""
    if here["unknown_code"]:
        return (
            f"a run half done on BASE starts anew here: {here['unknown_code']} is not in runs/known_code.json; if all "
            "bits are the same, add it"
        )
    if base["unknown_code"]:
        return f"a run half done on BASE starts anew here: BASE did not know its own code ({base['unknown_code']})"
    if base["run_id"] != here["run_id"]:
        return "a run half done on BASE starts anew here: its run id differs"
    return "not tried, since bits differ" if is_wrong else None


def conclude(wrong: list[str], found: dict[str, Findings]) -> int:
    """Print what to do; the exit status."""
    if not wrong:
        print("Nothing differs that should not.")
        return 0
    print(f"Differs where RESULTS_VERSION is equal: {', '.join(wrong)}.")
    if any(name in found and found[name].keys for name in wrong):
        print("Run ids: give a new key its entry in runs/run_id_defaults.json; if they were to change: --intended KEY.")
    if any(name not in found or not found[name].keys for name in wrong):
        print(
            "Bits: undo the change, or raise RESULTS_VERSION in runs/identity.py; CHANGELOG.md lists it under Results."
        )
    return 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("base", nargs="?", metavar="BASE", help="a commit, tag or branch")
    chosen.add_argument("--release", action="store_true", help="compare with the last tag v*, or what stands for it")
    parser.add_argument("--tree", type=Path, default=PROJECT, help="the tree to compare (default: this one)")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS), metavar="NAME")
    parser.add_argument("--intended", nargs="+", default=[], metavar="KEY", help="keys of run ids that were to change")
    args = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))  # so that folders are removed
    try:
        tree = args.tree.resolve()
        base = release(tree) if args.release else args.base
        if base is None:
            print(f"compat: skipped: no tag v* here, nor commit {FIRST_BASE[:7]}; git fetch --unshallow --tags")
            return 0
        return compare(tree, commit_of(tree, base), args.only, args.intended)
    except CompatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped; nothing is left behind.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
